//! What can be known of processes and of the host without touching them. The only room that reads /proc.

mod address;
mod cgroup;
mod children;
mod clock;
mod container;
mod container_name;
mod elf;
mod heap;
mod host;
mod kept;
mod layers;
mod loader;
mod mappings;
mod matching;
mod memory;
mod modules;
mod process;
mod small;
mod stat;
mod state;
mod threads;
mod usage;
mod words;

pub use cgroup::{Groups, OfGroups};
pub use children::{descendants, is_running, latest_pid};
pub use clock::{monotonic_ns, wall_ns};
pub use container::Container;
pub use container_name::ContainerName;
pub use elf::Segment;
pub use heap::heap_end;
pub use host::{Host, HostCpu};
pub use kept::ProcFiles;
pub use layers::files_in_layers;
pub use loader::files_of_command;
pub use mappings::{Mapping, Mappings, parse_maps};
pub use matching::{Candidate, Matcher, On, pids};
pub use memory::{host_memory_percent, own_bytes, resident_bytes};
pub use modules::{Module, ModuleKind, Modules, open_plain};
pub use process::{Process, check_access, exists, own_pid_namespace_is_initial, process_of_thread, stack_pointer};
pub use stat::{Stat, read_status_comm, started_at};
pub use state::ThreadState;
pub use threads::threads;
pub use usage::{StorageBytes, Task, TaskFields};
pub use words::Memory;

use small::read_small;
