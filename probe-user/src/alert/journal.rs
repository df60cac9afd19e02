//! The journal: notices on their way from the process that watches to the one that sends, a file each. One process writes,
//! the other only reads and keeps by itself how far it has come, so that neither needs the other to be alive.

mod reader;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use ulid::Ulid;

use super::{Notice, disk};
use crate::target::steady_now;
pub use reader::Reader;

/// Most notices that are kept, whether they were read or not.
pub const MAX_NOTICES: usize = 10_000;

/// How long a notice is kept, unless its alert still fires.
pub const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

/// Most alerts that may fire at once. They are kept, so that the others need room beside them.
const MAX_FIRING: usize = MAX_NOTICES / 2;

/// Most notices that wait in memory while the disk takes none.
const MAX_HELD: usize = 1000;

/// The writing end.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    group: Option<u32>,
    max_notices: usize,
    max_firing: usize,
    max_age: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is on the disk and may go.
    ids: BTreeSet<Ulid>,
    /// What is on the disk and stays, by fingerprint: the newest notice of each alert that has no end. An end is told by it,
    /// however long the alert lasts.
    firing: Firing,
    /// The last id that was given.
    last: Option<Ulid>,
    /// What the disk has refused so far.
    held: VecDeque<Notice>,
}

impl Journal {
    /// Opens the journal in the folder `path`, which is made if it is missing. Members of `group` may read it. One process
    /// at a time may write.
    pub fn open(path: &Path, group: Option<u32>) -> Result<Self> {
        let failed = || format!("cannot open the journal of alerts {}", path.display());
        disk::make_folder(path, group).with_context(failed)?;
        disk::clean(path).with_context(failed)?;
        let mut state = State::default();
        for id in disk::ids(path).with_context(failed)? {
            state.last = Some(id);
            match disk::read::<Notice>(&path.join(disk::file(id))) {
                Ok(notice) => state.add(Notice { id, ..notice }),
                // What is damaged says nothing.
                Err(_) => drop(state.ids.insert(id)),
            }
        }
        let (path, state) = (path.to_owned(), Mutex::new(state));
        let (max_notices, max_firing, max_age) = (MAX_NOTICES, MAX_FIRING, MAX_AGE);
        Ok(Self { path, group, max_notices, max_firing, max_age, state })
    }

    /// The same with other bounds. The newest notice always stays, because its id is what the next one follows.
    pub fn with_limits(self, max_notices: usize, max_age: Duration) -> Self {
        Self { max_notices: max_notices.max(1), max_firing: (max_notices / 2).max(1), max_age, ..self }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many notices it holds.
    pub fn count(&self) -> usize {
        let state = self.state();
        state.ids.len() + state.firing.len()
    }

    /// The alerts that were told of and have no end, those of earlier processes included.
    pub fn firing(&self) -> Vec<Notice> {
        let state = self.state();
        let mut firing = state.firing.clone();
        for notice in &state.held {
            take_in(&mut firing, notice.clone());
        }
        firing.into_values().collect()
    }

    /// The same of one rule and process.
    pub fn firing_of(&self, rule: &str, pid: u32) -> Vec<Notice> {
        let is_meant = |notice: &&Notice| notice.rule == rule && notice.process.pid == pid;
        let state = self.state();
        if state.held.is_empty() {
            return state.firing.values().filter(is_meant).cloned().collect();
        }
        drop(state);
        self.firing().iter().filter(is_meant).cloned().collect()
    }

    /// Adds a notice and returns its id. It is on the disk when this returns, unless the disk refuses: then it waits in
    /// memory, before those that follow, until [`Journal::flush`] or the next notice finds that the disk takes it.
    pub fn append(&self, notice: &Notice) -> Ulid {
        let mut notice = notice.clone();
        notice.sanitize();
        let mut state = self.state();
        let id = state.hold(notice);
        if let Err(error) = self.write(&mut state) {
            tracing::warn!("an alert waits in memory only: {error:#}");
            while state.held.len() > MAX_HELD {
                // An end that is lost leaves an alert that seems to fire for ever.
                let place = state.held.iter().position(|notice| !notice.is_resolved()).unwrap_or_default();
                state.held.remove(place);
                tracing::error!("{MAX_HELD} alerts wait in memory: dropped the oldest");
            }
        }
        id
    }

    /// Tries again to write what the disk has refused; returns how many notices it still refuses.
    pub fn flush(&self) -> usize {
        let mut state = self.state();
        if let Err(error) = self.write(&mut state) {
            tracing::debug!("{error:#}");
        }
        state.held.len()
    }

    fn write(&self, state: &mut State) -> Result<()> {
        loop {
            while let Some(notice) = state.held.front() {
                let path = self.path.join(disk::file(notice.id));
                disk::make_folder(&self.path, self.group)
                    .and_then(|()| disk::write(&path, self.group, notice))
                    .with_context(|| format!("cannot write {}", path.display()))?;
                if let Some(notice) = state.held.pop_front() {
                    state.add(notice);
                }
                self.prune(state);
            }
            // Only now: what is held follows what is written.
            if state.firing.len() <= self.max_firing {
                return Ok(());
            }
            let Some(oldest) = state.firing.values().min_by_key(|notice| notice.id) else { return Ok(()) };
            let Notice { rule, fingerprint, .. } = oldest;
            tracing::error!("{} alerts fire at once: gave up {rule} ({fingerprint}), the oldest", state.firing.len());
            let end = oldest.out_of_sight();
            state.hold(end);
        }
    }

    fn prune(&self, state: &mut State) {
        let now = steady_now();
        let is_old = |id: &Ulid| now.duration_since(id.datetime()).is_ok_and(|age| age > self.max_age);
        while let Some(oldest) = state.ids.first().copied()
            && Some(oldest) != state.last
            && (state.ids.len() + state.firing.len() > self.max_notices || is_old(&oldest))
        {
            state.ids.pop_first();
            if let Err(error) = disk::remove(&self.path.join(disk::file(oldest))) {
                tracing::warn!("cannot remove an old alert from {}: {error}", self.path.display());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a notice its id, and its place behind those that are not written yet.
    fn hold(&mut self, notice: Notice) -> Ulid {
        let id = next_id(self.last);
        self.last = Some(id);
        self.held.push_back(Notice { id, ..notice });
        id
    }

    /// A notice is on the disk.
    fn add(&mut self, notice: Notice) {
        self.ids.extend((notice.is_resolved() || notice.is_brief()).then_some(notice.id));
        self.ids.extend(take_in(&mut self.firing, notice).map(|before| before.id));
    }
}

/// Alerts by fingerprint.
type Firing = BTreeMap<String, Notice>;

/// An alert fires or is over; returns what was known of it before.
fn take_in(firing: &mut Firing, notice: Notice) -> Option<Notice> {
    // It is about a breach that is over: the same rule may be broken again by now.
    if notice.is_completion && notice.is_resolved() {
        return None;
    }
    match notice.is_resolved() || notice.is_brief() {
        true => firing.remove(&notice.fingerprint),
        false => firing.insert(notice.fingerprint.clone(), notice),
    }
}

/// An id that follows all earlier ones, though the clock may have been set back.
pub(super) fn next_id(last: Option<Ulid>) -> Ulid {
    let fresh = Ulid::new();
    match last {
        Some(last) if fresh <= last => Ulid(last.0.saturating_add(1)),
        _ => fresh,
    }
}

#[cfg(test)]
mod tests;
