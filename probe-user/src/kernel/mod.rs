//! The kernel boundary: loads and attaches the programs, decodes what they send. The only room that knows aya.

mod btf;
mod calls;
mod dump;
mod event;
mod heap;
mod hits;
pub mod host;
mod mappings;
mod memory;
mod multi;
mod offsets;
mod sampler;
mod tables;
mod uprobes;
mod waits;

pub use calls::{
    Caller, Calls, Figures, Judgement, MAX_READS, OpenCall, OpenSpan, Operand, Site, SpanKeys, error_test, feature,
    functions_within, source,
};
pub use dump::{RawThread, Whom};
pub use event::{
    Event, MemoryChange, RawAllocation, RawCall, RawMemory, RawSample, RawStack, RawWait, RawWaker, thread_name,
};
pub use heap::{HeapOptions, Heaps, MAX_HEAPS, RawLive, takes};
pub use probe_ebpf::abi::{MappedRange, NO_TABLE, StackId, target_flags};
pub use probe_ebpf::unwind::End;
pub use sampler::{Clock, Options, Sampler};
pub use tables::{MappingTable, UnwindTables};
pub use uprobes::{Probes, Role, Wanted};
pub use waits::{OpenWait, WaitFilter};
