//! Who still needs the recording of a process: the watcher as long as it runs, the keeper as long as it is needed for a
//! snapshot. The last one to let go ends the sampling, so that a process that dies at a breach keeps its evidence. And,
//! with `pins`, which alerts still need their snapshots.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::Scene;
use super::causes::Waits;
use super::pins::Pins;

/// Counts who needs which process.
pub(super) struct Holds {
    scene: Arc<dyn Scene>,
    holds: Mutex<BTreeMap<u32, Hold>>,
    /// The snapshots of alerts that are firing.
    pub(super) pins: Pins,
}

#[derive(Debug, Default)]
struct Hold {
    is_watched: bool,
    snapshots: usize,
}

impl Holds {
    /// Nobody needs anything.
    pub(super) fn new(scene: Arc<dyn Scene>) -> Self {
        Self { scene, holds: Mutex::default(), pins: Pins::default() }
    }

    /// The watcher begins with a process.
    pub(super) fn watch(&self, pid: u32, name: &str, waits: Waits) -> Result<()> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        self.scene.watch(pid, name, waits)?;
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

    /// How many snapshots need a process.
    pub(super) fn snapshots(&self) -> usize {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.values().map(|hold| hold.snapshots).sum()
    }

    /// Whether a snapshot needs this one.
    pub(super) fn has_snapshots(&self, pid: u32) -> bool {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.get(&pid).is_some_and(|hold| hold.snapshots > 0)
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
