//! Allocations: which functions of a process are its allocators', and what a sample of them stands for.

mod allocators;
mod look;
mod names;
mod published;
mod survival;
mod tier;
mod weight;

pub use allocators::{Allocators, Found};
pub use look::Look;
pub use survival::{Estimate, Object, in_use};
pub use tier::Tier;
pub use weight::{Scale, Weight, chance, weigh, weigh_published};
