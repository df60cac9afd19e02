//! Events become windows: one second of samples each, in a bounded flight recorder. Stacks are normalised to (module,
//! file offset) the moment they arrive, while their process lives.

mod builders;
mod calls;
mod collector;
mod dump;
mod growth;
mod heap;
mod recorder;
mod recording;
mod stacks;
mod state;
mod unwinding;

pub use collector::{Collector, Lifecycle, Options, Stats};
pub use dump::{Dump, DumpedThread};
pub use growth::{Grown, Growth};
pub use recorder::{Recorder, Retention};
pub use recording::{
    Allocation, Events, Heap, HeapRecord, Kind, RecordedProcess, Recording, Sample, SlowCall, Thread, Wait, Waker,
};
pub use stacks::{Frame, Space, Stack};
