//! The kernel boundary: loads and attaches the programs, decodes what they send. The only room that knows aya.

mod btf;
mod calls;
mod dump;
mod event;
mod heap;
pub mod host;
mod mappings;
mod multi;
mod offsets;
mod sampler;
mod tables;
mod waits;

pub use calls::{Figures, Judgement, OpenCall, Probe, Role, error_test};
pub use dump::{RawThread, Whom};
pub use event::{Event, RawAllocation, RawSample, RawStack, RawWait, RawWaker, thread_name};
pub use heap::{HeapOptions, Heaps, MAX_HEAPS, RawLive, takes};
pub use probe_ebpf::abi::{MappedRange, NO_TABLE, StackId, target_flags};
pub use probe_ebpf::unwind::End;
pub use sampler::{Clock, Options, Sampler};
pub use tables::{MappingTable, UnwindTables};
pub use waits::{OpenWait, WaitFilter};
