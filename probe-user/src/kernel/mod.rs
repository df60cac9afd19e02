//! The kernel boundary: loads and attaches the programs, decodes what they send. The only room that knows aya.

mod btf;
mod event;
pub mod host;
mod mappings;
mod offsets;
mod sampler;
mod tables;

pub use event::{Event, RawSample, RawStack};
pub use probe_ebpf::abi::{MappedRange, NO_TABLE, StackId, target_flags};
pub use probe_ebpf::unwind::End;
pub use sampler::{Clock, Options, Sampler};
pub use tables::{MappingTable, UnwindTables};
