//! Probes within a budget: what a hit costs on this host, and sets of probes that a governor takes away and sets again.

mod cost;
mod governor;
mod group;
mod leaving;
mod set;

pub use cost::measure as measure_hit;
pub use governor::{Governor, Verdict};
pub use group::{Part, Window};
pub use leaving::settle;
pub use set::{Change, Moment, ProbeSet, Switch};
