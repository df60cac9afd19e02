//! Events become windows: one second of samples each, in a bounded flight recorder. Stacks are normalised to (module,
//! file offset) the moment they arrive, while their process lives.

mod collector;
mod recorder;
mod recording;
mod stacks;
mod unwinding;

pub use collector::{Collector, Lifecycle, Options, Stats};
pub use recorder::{Recorder, Retention};
pub use recording::{RecordedProcess, Recording, Sample, Thread};
pub use stacks::{Frame, Space, Stack};
