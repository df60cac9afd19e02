//! What this host allows a profiler to do: gathered here, by asking the kernel and reading what it says about itself;
//! judged, without looking at the machine again, in [`verdict`].

pub mod deadlock;
mod facts;
mod trial;
pub mod verdict;

pub use facts::{Capability, Host, Lockdown};
