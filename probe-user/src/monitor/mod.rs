//! What is wrong and who did it: rules over measured values, and the functions that explain a breach. Pure: no clock and
//! no I/O; time is handed in, in nanoseconds of the monotonic clock.

mod culprits;
mod functions;
mod rules;
mod trend;

pub use culprits::{Culprit, culprits, growth_culprits};
pub use functions::of_function;
pub use rules::{Breach, Engine, Metric, Observation, Rule, Side, Transition};
pub use trend::Trend;
