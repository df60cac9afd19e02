//! Pins: while an alert fires, the limits of the store leave its snapshot alone. The watcher says which alerts fire; the
//! keeper, which may wait for the disk, tells the store. When the daemon starts it finds the pins of an earlier one: they
//! are taken over by alerts that fire again, and otherwise end after a while, because nobody may be left to end them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ulid::Ulid;

use crate::monitor::Breach;
use crate::snapshot::Store;

/// How long the pins of an earlier daemon last unless their alerts fire again.
const GRACE: Duration = Duration::from_secs(600);

/// An alert: the rule and the process.
type Key = (String, u32);

/// The alerts that fire, with their snapshots.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Sorted by time. Only the first and the last are pinned: what an alert that fires for weeks can keep is bounded.
    firing: BTreeMap<Key, Vec<Ulid>>,
    /// Of an earlier daemon.
    inherited: BTreeMap<Key, Vec<Ulid>>,
    /// No longer needed, of which the store does not know yet.
    ended: Vec<Ulid>,
}

impl State {
    fn end(&mut self, is_over: impl Fn(&Key) -> bool) {
        for (_, ids) in self.firing.extract_if(.., |key, _| is_over(key)) {
            self.ended.extend(ids);
        }
    }
}

impl Pins {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An alert begins to fire.
    pub(super) fn fire(&self, rule: &str, pid: u32) {
        let mut state = self.state();
        let key = (rule.to_owned(), pid);
        let inherited = state.inherited.remove(&key).unwrap_or_default();
        state.firing.entry(key).or_default().extend(inherited);
    }

    /// An alert fires no longer.
    pub(super) fn resolve(&self, rule: &str, pid: u32) {
        self.state().end(|key| key.1 == pid && key.0 == rule);
    }

    /// Whether a snapshot is that of an alert that fires.
    pub(super) fn has(&self, id: Ulid) -> bool {
        self.state().firing.values().any(|ids| ids.contains(&id))
    }

    /// There are other rules: the alerts of those that are gone end.
    pub(super) fn keep_rules(&self, is_rule: impl Fn(&str) -> bool) {
        self.state().end(|key| !is_rule(&key.0));
    }

    /// A snapshot is about to be stored: if its alert is still firing, it stays.
    pub(super) fn attach(&self, store: &Store, breach: &Breach, id: Ulid) {
        let mut state = self.state();
        let Some(ids) = state.firing.get_mut(&(breach.rule.clone(), breach.pid)) else { return };
        ids.push(id);
        let surplus: Vec<Ulid> = ids.drain(1..ids.len().max(2) - 1).collect();
        state.ended.extend(surplus);
        drop(state);
        report(store.pin(id));
    }
}

/// What the keeper does for the store from time to time.
#[derive(Debug)]
pub(super) struct Upkeep {
    started: Instant,
    next: Instant,
}

impl Upkeep {
    /// How often.
    pub(super) const EVERY: Duration = Duration::from_secs(60);

    /// Begins with what an earlier daemon has pinned.
    pub(super) fn start(pins: &Pins, store: &Store) -> Self {
        let mut state = pins.state();
        for id in store.pinned().unwrap_or_default() {
            match store.sidecar(id) {
                Ok(sidecar) => state.inherited.entry((sidecar.rule, sidecar.process.pid)).or_default().insert(0, id),
                // It does not say of what it is.
                Err(_) => state.ended.push(id),
            }
        }
        let now = Instant::now();
        Self { started: now, next: now + Self::EVERY }
    }

    /// Does what is due.
    pub(super) fn work(&mut self, pins: &Pins, store: &Store) {
        let mut state = pins.state();
        if self.started.elapsed() >= GRACE {
            let inherited = std::mem::take(&mut state.inherited);
            state.ended.extend(inherited.into_values().flatten());
        }
        let ended = std::mem::take(&mut state.ended);
        drop(state);
        for id in ended {
            report(store.unpin(id));
        }
        if Instant::now() >= self.next {
            store.maintain();
            self.next = Instant::now() + Self::EVERY;
        }
    }
}

/// A pin that is not on the disk holds until the daemon ends.
fn report(changed: anyhow::Result<()>) {
    if let Err(error) = changed {
        tracing::warn!("{error:#}");
    }
}

#[cfg(test)]
mod tests;
