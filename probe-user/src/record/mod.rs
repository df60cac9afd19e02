//! Events become windows: one second of samples each, in a bounded flight recorder. Stacks are normalised to (module,
//! file offset) the moment they arrive, while their process lives.

mod builders;
mod collector;
mod dump;
mod heap;
mod recorder;
mod recording;
mod stacks;
mod state;
mod unwinding;

pub use collector::{Collector, Lifecycle, Options, Stats};
pub use dump::{Dump, DumpedThread};
pub use recorder::{Recorder, Retention};
pub use recording::{
    Allocation, Events, Heap, HeapRecord, Kind, RecordedProcess, Recording, Sample, Thread, Wait, Waker,
};
pub use stacks::{Frame, Space, Stack};
