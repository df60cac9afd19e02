//! What can be known of processes and of the host without touching them. The only room that reads /proc.

mod children;
mod clock;
mod elf;
mod heap;
mod host;
mod mappings;
mod matching;
mod memory;
mod modules;
mod process;
mod stat;
mod state;
mod words;

pub use children::{descendants, is_running};
pub use clock::{monotonic_ns, wall_ns};
pub use elf::Segment;
pub use heap::heap_end;
pub use host::{Host, HostCpu};
pub use mappings::{Mapping, Mappings, parse_maps};
pub use matching::{Candidate, Matcher, pids};
pub use memory::{memory_limit, resident_bytes};
pub use modules::{Module, ModuleKind, Modules};
pub use process::{Process, exists, own_pid_namespace_is_initial, process_of_thread, stack_pointer};
pub use stat::{Stat, read_status_comm};
pub use state::ThreadState;
pub use words::Memory;
