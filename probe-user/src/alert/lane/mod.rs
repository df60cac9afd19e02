//! A channel's lane: the notices that wait for it, each in a file of its own, so that they outlive the process; what is
//! firing, so that nothing is told twice and ends are told to those who know the beginning; and what was given up.

mod active;
mod complete;
mod dead;
mod end;
mod pick;
mod settle;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::channel::Policy;
use super::pace::Bucket;
use super::{Notice, disk};
use crate::target::steady_now;
use active::Active;
pub(super) use dead::DeadLetters;

/// Most notices that wait for a channel.
pub const MAX_QUEUED: usize = 1000;

/// A notice on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// That of the notice, or for a repetition one of its own.
    pub(super) id: Ulid,
    pub(super) notice: Notice,
}

impl Entry {
    /// What the channel is told. A repetition is another message, so that it has the id of its own.
    pub(super) fn message(&self) -> Notice {
        Notice { id: self.id, ..self.notice.clone() }
    }
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    attempts: u32,
    due: Instant,
    /// A sender is at it.
    is_busy: bool,
    /// It was refused in a group: the next attempt shows whether it was to blame.
    is_alone: bool,
    is_saved: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Lane {
    name: String,
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    pub(super) counts: Counts,
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) deduplicated: AtomicU64,
}

#[derive(Debug)]
struct State {
    waiting: BTreeMap<Ulid, Waiting>,
    active: Active,
    dead: DeadLetters,
    policy: Policy,
    /// Most notices of a message.
    group: usize,
    bucket: Bucket,
    /// The channel is not used before.
    pause_until: Instant,
    /// Failures since the last success.
    failures: u32,
}

impl Lane {
    /// Opens the lane of a channel below a folder and takes up what waits there.
    pub(super) fn open(folder: &Path, name: &str, policy: Policy, group: usize) -> Result<Self> {
        let folder = folder.join(folder_name(name));
        let failed = || format!("cannot open the queue of {name} in {}", folder.display());
        for part in ["queue", "active", "dead"] {
            let part = folder.join(part);
            disk::make_folder(&part, None).with_context(failed)?;
            disk::clean(&part).with_context(failed)?;
        }
        let now = Instant::now();
        let mut waiting = BTreeMap::new();
        for id in disk::ids(&folder.join("queue")).with_context(failed)? {
            let path = folder.join("queue").join(disk::file(id));
            match disk::read::<Entry>(&path) {
                Ok(entry) => {
                    let entry = Entry { id, ..entry };
                    let fresh =
                        Waiting { entry, attempts: 0, due: now, is_busy: false, is_alone: false, is_saved: true };
                    waiting.insert(id, fresh);
                }
                Err(error) => {
                    tracing::error!("{} is not an alert: {error}", path.display());
                    let _ = std::fs::rename(&path, path.with_extension("bad"));
                }
            }
        }
        let state = State {
            waiting,
            active: Active::open(&folder.join("active")).with_context(failed)?,
            dead: DeadLetters::open(&folder.join("dead")).with_context(failed)?,
            bucket: Bucket::new(policy.rate, policy.burst, now),
            policy,
            group,
            pause_until: now,
            failures: 0,
        };
        let (state, name) = (Mutex::new(state), name.to_owned());
        Ok(Self { name, folder, state, changed: Condvar::new(), counts: Counts::default() })
    }

    /// Goes on by other settings of the channel; what the old ones made wait is tried at once.
    pub(super) fn set_policy(&self, policy: Policy, group: usize) {
        let mut state = self.state();
        let now = Instant::now();
        state.bucket = Bucket::new(policy.rate, policy.burst, now);
        state.policy = policy;
        state.group = group.max(1);
        state.pause_until = now;
        state.waiting.values_mut().for_each(|waiting| waiting.due = waiting.due.min(now));
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a notice in, unless it says what is known. It is on the disk when this returns, or the disk has refused it;
    /// see [`Lane::flush`].
    pub(super) fn accept(&self, notice: &Notice) {
        let mut state = self.state();
        let is_news = if notice.is_completion {
            self.complete(&mut state, notice)
        } else if notice.is_brief() {
            self.push(&mut state, notice.id, notice);
            state.active.remove(&notice.fingerprint);
            true
        } else if notice.is_resolved() {
            let was_told = state.active.contains(&notice.fingerprint);
            if was_told {
                self.end(&mut state, notice);
            }
            was_told
        } else if state.active.knows(notice) {
            false
        } else {
            self.push(&mut state, notice.id, notice);
            if let Some(oldest) = state.active.insert(notice) {
                let Notice { rule, fingerprint, .. } = &oldest;
                tracing::error!("{}: too many alerts fire: gave up {rule} ({fingerprint}), the oldest", self.name);
                self.end(&mut state, &oldest.out_of_sight());
            }
            true
        };
        if !is_news {
            self.counts.deduplicated.fetch_add(1, Ordering::Relaxed);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn push(&self, state: &mut State, id: Ulid, notice: &Notice) {
        if state.waiting.contains_key(&id) {
            return;
        }
        let entry = Entry { id, notice: notice.clone() };
        let saved = disk::write(&self.file(id), None, &entry);
        if let Err(error) = &saved {
            tracing::warn!("an alert for {} waits in memory only: {error}", self.name);
        }
        let due = Instant::now() + state.policy.group_wait;
        let is_saved = saved.is_ok();
        let fresh = Waiting { entry, attempts: 0, due, is_busy: false, is_alone: false, is_saved };
        state.waiting.insert(id, fresh);
        while state.waiting.len() > MAX_QUEUED {
            let oldest = state.waiting.iter().find(|(_, waiting)| !waiting.is_busy).map(|(&id, _)| id);
            let Some(oldest) = oldest else { break };
            self.bury(state, oldest, "too many alerts wait for this channel");
        }
    }

    fn save(&self, waiting: &mut Waiting) {
        waiting.is_saved = disk::write(&self.file(waiting.entry.id), None, &waiting.entry).is_ok();
    }

    /// Gives a notice up.
    fn bury(&self, state: &mut State, id: Ulid, why: &str) {
        let Some(waiting) = state.waiting.remove(&id) else { return };
        let rule = &waiting.entry.notice.rule;
        tracing::error!(
            "gave up sending to {} the alert of {rule}: {why}; it is kept in {}/dead",
            self.name,
            self.folder.display()
        );
        state.dead.add(&waiting.entry, waiting.attempts, why);
        state.active.put_off(&waiting.entry.notice);
        self.counts.dead.fetch_add(1, Ordering::Relaxed);
        self.remove(id);
    }

    fn remove(&self, id: Ulid) {
        if let Err(error) = disk::remove(&self.file(id)) {
            tracing::warn!("cannot remove {}: {error}; it will be sent again", self.file(id).display());
        }
    }

    /// Is all that was accepted on the disk? What was refused is tried again.
    pub(super) fn flush(&self) -> bool {
        let mut state = self.state();
        let State { waiting, active, .. } = &mut *state;
        waiting.values_mut().filter(|waiting| !waiting.is_saved).for_each(|waiting| self.save(waiting));
        waiting.values().all(|waiting| waiting.is_saved) && active.flush()
    }

    /// How many notices wait, and how long the oldest has.
    pub(super) fn queued(&self) -> (usize, Duration) {
        let state = self.state();
        let oldest = state.waiting.first_key_value().map(|(&id, _)| age(id)).unwrap_or_default();
        (state.waiting.len(), oldest)
    }

    /// Wakes whoever waits in [`Lane::next`].
    pub(super) fn wake(&self) {
        // With the lock, so that nobody is between looking and waiting.
        let _state = self.state();
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: Ulid) -> PathBuf {
        self.folder.join("queue").join(disk::file(id))
    }
}

/// How long ago an id was given.
fn age(id: Ulid) -> Duration {
    steady_now().duration_since(id.datetime()).unwrap_or_default()
}

/// A folder's name for any name of a channel.
pub(super) fn folder_name(channel: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if channel.len() <= 100 && channel.chars().all(is_plain) {
        return channel.to_owned();
    }
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(channel.as_bytes());
    let plain: String = channel.chars().filter(|&c| is_plain(c)).take(40).collect();
    // With a dot, which plain names do not have.
    format!("{plain}.{}", digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests;
