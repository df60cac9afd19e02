//! Allocations: which functions of a process are its allocators', and what a sample of them stands for.

mod allocators;
mod names;
mod weight;

pub use allocators::Allocators;
pub use weight::{Scale, Weight, weigh};
