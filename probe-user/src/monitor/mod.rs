//! What is wrong and who did it: rules over measured values, and the functions that explain a breach. Pure: no clock and
//! no I/O; time is handed in, in nanoseconds of the monotonic clock.

mod culprits;
mod engine;
mod functions;
mod metric;
mod quiet;
mod rule;
mod state;
mod trend;

pub use culprits::{
    Calls, Culprit, Gain, Kept, Of, Open, Part, What, call_culprits, culprits, gains, growth_culprits, kept,
    maker_culprits, open_culprits, thread_culprits, wait_culprits,
};
pub use engine::{Breach, Engine, Observation, Over, Standing, Subject, Transition};
pub use functions::of_function;
pub use metric::{Fold, Metric, Scope, Unit};
pub use quiet::Quiet;
pub use rule::{ANY_TARGET, Condition, Per, Rule, Side};
pub use state::{KeptTrack, State};
pub use trend::Trend;
