//! The store, as the routes look at it: all that they know of how snapshots are found and read.

use ulid::Ulid;

use super::problem::Problem;
pub use crate::snapshot::{Page, Query};
use crate::snapshot::{Sidecar, Store, Totals, Window};

/// The stored snapshots.
#[derive(Debug)]
pub struct Snapshots {
    store: Store,
}

impl Snapshots {
    /// Those of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Looks for some.
    pub fn query(&self, query: &Query) -> Result<Page, Problem> {
        Ok(self.store.query(query)?)
    }

    /// What is known of one.
    pub fn sidecar(&self, id: Ulid) -> Result<Sidecar, Problem> {
        Ok(self.store.sidecar(id)?)
    }

    /// One of its profiles: a gzip pprof.
    pub fn profile(&self, sidecar: &Sidecar, window: Window) -> Result<Vec<u8>, Problem> {
        Ok(self.store.profile(sidecar.id, window)?)
    }

    /// How many there are, and the bytes of their files.
    pub fn totals(&self) -> Result<Totals, Problem> {
        Ok(self.store.count(&Query::all())?)
    }
}
