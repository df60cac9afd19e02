//! What a lane sends next, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::{Entry, Lane, MAX_QUEUED, State, Waiting};

/// An alert that failed so often lets others go first, as it may be the only one that fails.
const PATIENCE: u32 = 4;

/// Longest time that is waited without looking.
const LOOK: Duration = Duration::from_secs(60);

impl Lane {
    /// Waits for the next message: what goes into it, oldest first, at most one notice of each alert. `None` once it is to
    /// stop.
    pub(in crate::alert) fn next(&self, stop: &AtomicBool) -> Option<Vec<Entry>> {
        let mut state = self.state();
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Instant::now();
            let repeat = state.repeat(now);
            let wait = match state.pick(now) {
                Ok(ids) => {
                    state.bucket.take();
                    let is_retry = ids.iter().any(|id| state.waiting[id].attempts > 0);
                    self.counts.retried.fetch_add(u64::from(is_retry), Ordering::Relaxed);
                    let mut batch = Vec::with_capacity(ids.len());
                    for id in ids {
                        if let Some(waiting) = state.waiting.get_mut(&id) {
                            waiting.is_busy = true;
                            batch.push(waiting.entry.clone());
                        }
                    }
                    return Some(batch);
                }
                Err(wait) => wait,
            };
            let wait = [Some(LOOK), wait, repeat].into_iter().flatten().min().unwrap_or(LOOK);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// Lets those alerts wait anew that are to be repeated, as far as they leave room for news; returns how long until the
    /// next is.
    fn repeat(&mut self, now: Instant) -> Option<Duration> {
        let interval = self.policy.repeat_interval?;
        let waits: BTreeSet<&str> = self.waiting.values().map(|waiting| &*waiting.entry.notice.fingerprint).collect();
        let room = (MAX_QUEUED / 2).saturating_sub(self.waiting.len());
        let (due, next) = self.active.to_repeat(interval, room, &waits);
        for notice in due {
            let id = Ulid::new();
            let entry = Entry { id, notice };
            // Not written down: that it is due will be seen again.
            let fresh = Waiting { entry, attempts: 0, due: now, is_busy: false, is_alone: false, is_saved: true };
            self.waiting.insert(id, fresh);
        }
        next
    }

    /// The ids of the next message; else how long until there may be one.
    fn pick(&mut self, now: Instant) -> Result<Vec<Ulid>, Option<Duration>> {
        // What is said of one alert keeps its order.
        let mut heads: BTreeMap<&str, (&Ulid, &Waiting)> = BTreeMap::new();
        for head in &self.waiting {
            heads.entry(&head.1.entry.notice.fingerprint).or_insert(head);
        }
        let mut heads: Vec<(&Ulid, &Waiting)> = heads.into_values().filter(|(_, waiting)| !waiting.is_busy).collect();
        heads.sort_by_key(|(id, waiting)| (waiting.attempts / PATIENCE, **id));
        let Some(soonest) = heads.iter().map(|(_, waiting)| waiting.due).min() else { return Err(None) };
        let soonest = soonest.max(self.pause_until);
        if soonest > now {
            return Err(Some(soonest - now));
        }
        let Some(&(&first, waiting)) = heads.iter().find(|(_, waiting)| waiting.due <= now) else { return Err(None) };
        let mut ids = vec![first];
        if !waiting.is_alone {
            // What has not failed comes along, though its time to wait for others is not over.
            let joins = |waiting: &Waiting| !waiting.is_alone && (waiting.attempts == 0 || waiting.due <= now);
            let others = heads.iter().filter(|(id, waiting)| **id != first && joins(waiting));
            ids.extend(others.map(|(id, _)| **id).take(self.group.saturating_sub(1)));
            ids.sort();
        }
        match self.bucket.wait(now) {
            Duration::ZERO => Ok(ids),
            wait => Err(Some(wait)),
        }
    }
}
