//! Who still needs the recording of a process: the watcher as long as it runs, the keeper as long as it is needed for a
//! snapshot. The last one to let go ends the sampling, so that a process that dies at a breach keeps its evidence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::Scene;

/// Counts who needs which process.
pub(super) struct Holds {
    scene: Arc<dyn Scene>,
    holds: Mutex<BTreeMap<u32, Hold>>,
}

#[derive(Debug, Default)]
struct Hold {
    is_watched: bool,
    snapshots: usize,
}

impl Holds {
    /// Nobody needs anything.
    pub(super) fn new(scene: Arc<dyn Scene>) -> Self {
        Self { scene, holds: Mutex::default() }
    }

    /// The watcher begins with a process.
    pub(super) fn watch(&self, pid: u32, name: &str) -> Result<()> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        self.scene.watch(pid, name)?;
        holds.entry(pid).or_default().is_watched = true;
        Ok(())
    }

    /// The watcher is done with a process.
    pub(super) fn release(&self, pid: u32) {
        self.change(pid, |hold| hold.is_watched = false);
    }

    /// A snapshot needs a process.
    pub(super) fn begin(&self, pid: u32) {
        self.change(pid, |hold| hold.snapshots += 1);
    }

    /// A snapshot no longer needs it.
    pub(super) fn end(&self, pid: u32) {
        self.change(pid, |hold| hold.snapshots = hold.snapshots.saturating_sub(1));
    }

    fn change(&self, pid: u32, change: impl FnOnce(&mut Hold)) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = holds.entry(pid).or_default();
        change(hold);
        if !hold.is_watched && hold.snapshots == 0 {
            holds.remove(&pid);
            if let Err(error) = self.scene.unwatch(pid) {
                tracing::debug!("letting go of pid {pid}: {error:#}");
            }
        }
    }
}
