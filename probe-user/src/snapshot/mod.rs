//! Snapshots: the evidence of a breach, stored so that a crash at any instant leaves either the whole of it or nothing.
//! A snapshot is a folder named by its id, with `snapshot.json` and one gzip pprof for each window. `docs/store.md`
//! describes what is on the disk.

mod limits;
mod sidecar;
mod store;

pub use limits::Limits;
pub use sidecar::{
    Figure, Function, Host, Live, OtherThreads, Process, ProfileEntry, Sidecar, Thread, Timestamp, VERSION, Window,
};
pub use store::{Damaged, Listing, Options, Page, Profiles, Query, Store, Totals, is_full};

#[cfg(test)]
pub(crate) use sidecar::tests;
