//! Processes: who they are and what they have mapped. The only room that knows /proc.

mod clock;
mod elf;
mod mappings;
mod modules;
mod process;

pub use clock::{monotonic_ns, wall_ns};
pub use elf::Segment;
pub use mappings::{Mapping, Mappings};
pub use modules::{Module, ModuleKind, Modules};
pub use process::{Process, exists, own_pid_namespace_is_initial};
