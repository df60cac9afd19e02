//! Snapshots: the evidence of a breach, stored so that a crash at any instant leaves either the whole of it or nothing.
//! A snapshot is a folder named by its id, with `snapshot.json` and one gzip pprof for each window.

mod limits;
mod sidecar;
mod store;

pub use limits::Limits;
pub use sidecar::{Function, Host, OtherThreads, Process, ProfileEntry, Sidecar, Thread, Timestamp, VERSION, Window};
pub use store::{Listing, Profiles, Store, is_full};

#[cfg(test)]
pub(crate) use sidecar::tests;
