//! Events become windows: one second of samples each, in a bounded flight recorder. Stacks are normalised to (module,
//! file offset) the moment they arrive, while their process lives.

mod baselines;
mod builders;
mod calls;
mod collector;
mod dump;
mod follow;
mod growth;
mod heap;
mod origins;
mod pins;
mod recorder;
mod recording;
mod reference;
mod stacks;
mod state;
mod unwinding;

pub use baselines::{Baselines, Stretch};
pub use collector::{Collector, Lifecycle, Options, Stats};
pub use dump::{Dump, DumpedThread};
pub use follow::{InUse, MAX_FOLLOWED};
pub use growth::{Grown, Growth};
pub use heap::HeapTargets;
pub use origins::{Made, Makings};
pub use recorder::Retention;
pub use recording::{
    Allocation, Ended, Events, Heap, HeapRecord, Kind, RecordedProcess, Recording, Sample, SlowCall, Thread, Wait,
    Waker,
};
pub use stacks::{Frame, Space, Stack};
