//! The kernel boundary: loads and attaches the programs, decodes what they send. The only room that knows aya.

mod attach;
mod boundary;
mod btf;
mod calls;
mod clock;
pub mod closer;
mod decode;
mod dump;
mod event;
mod heap;
mod hits;
pub mod host;
mod lookup;
mod mappings;
mod memory;
mod multi;
mod newcomers;
mod offsets;
mod origins;
mod pace;
mod placing;
mod prober;
mod rhythm;
mod sampler;
mod tables;
mod text;
mod uprobes;
mod waits;

pub use calls::{
    Caller, Calls, Figures, Judgement, MAX_READS, OpenCall, OpenSpan, Operand, Site, SpanKeys, Tally, error_test,
    feature, functions_within, source,
};
pub use clock::{ThreadClock, ThreadTime};
pub use dump::{RawThread, Whom};
pub use event::{
    Event, MemoryChange, RawAllocation, RawAllocationEnd, RawCall, RawMemory, RawSample, RawStack, RawWait, RawWaker,
    thread_name,
};
pub use heap::{CONSTANT, HeapOptions, Heaps, Layout, MAX_HEAPS, takes};
pub use multi::loading_time;
pub use newcomers::Newcomer;
pub use origins::{How, Origins, RawOrigin};
pub use probe_ebpf::abi::{FileKey, FileTable, MappedRange, NO_TABLE, StackId, target_flags};
pub use probe_ebpf::unwind::End;
pub use prober::Prober;
pub use sampler::{Clock, Options, Sampler};
pub use tables::{MappingTable, UnwindTables};
pub use text::{Refused, Text};
pub use uprobes::{Probes, Role, Wanted};
pub use waits::{OpenWait, WaitFilter};
