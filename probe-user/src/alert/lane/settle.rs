//! What becomes of notices after an attempt to deliver them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Entry, Lane, age};
use crate::alert::Failure;
use crate::alert::pace::backoff;

/// Longest pause of one notice between two attempts.
const LONGEST: Duration = Duration::from_secs(300);

/// Longest pause of a channel after failures: so long may a new alert wait after the channel works again.
const LONGEST_OF_CHANNEL: Duration = Duration::from_secs(60);

impl Lane {
    /// A message was delivered, or was not.
    pub(in crate::alert) fn settle(&self, batch: &[Entry], result: Result<(), Failure>) {
        match result {
            Ok(()) => self.delivered(batch),
            Err(failure) => self.failed(batch, &failure),
        }
        self.changed.notify_all();
    }

    fn delivered(&self, batch: &[Entry]) {
        let mut state = self.state();
        let is_repeated = state.policy.repeat_interval.is_some();
        let mut attempts = 0;
        for Entry { id, notice } in batch {
            attempts = attempts.max(state.waiting.remove(id).map_or(0, |waiting| waiting.attempts));
            // Before the file goes: what is not known to have been told is not repeated.
            state.active.told(notice, is_repeated);
            self.remove(*id);
            tracing::info!("sent alert {} to {} ({})", notice.rule, self.name, notice.fingerprint);
        }
        if state.failures > 0 {
            tracing::info!("channel {} works again", self.name);
        }
        state.failures = 0;
        let now = Instant::now();
        state.pause_until = now;
        // What failed no more often did so for the same reason, which is gone.
        for waiting in state.waiting.values_mut().filter(|waiting| waiting.attempts > 0) {
            if waiting.attempts <= attempts {
                waiting.due = waiting.due.min(now);
            }
        }
        self.counts.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.counts.messages.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, batch: &[Entry], failure: &Failure) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let now = Instant::now();
        let asked = match failure {
            Failure::Refused { why } if batch.len() > 1 => {
                tracing::warn!("{} has refused {} alerts together, will try each: {why}", self.name, batch.len());
                for entry in batch {
                    if let Some(waiting) = state.waiting.get_mut(&entry.id) {
                        (waiting.is_alone, waiting.is_busy, waiting.due) = (true, false, now);
                    }
                }
                return;
            }
            Failure::Refused { why } => {
                batch.iter().for_each(|entry| self.bury(&mut state, entry.id, why));
                return;
            }
            Failure::Later { after, .. } => *after,
        };
        // The first failure is news, the further ones are not.
        let (name, number) = (&self.name, state.failures + 1);
        match number {
            1 => tracing::warn!("cannot send to {name}, will keep trying: {failure}"),
            _ => tracing::debug!("attempt {number} to send to {name}: {failure}"),
        }
        let pause = backoff(state.failures, LONGEST_OF_CHANNEL);
        state.failures = number;
        state.pause_until = now + asked.unwrap_or(pause).max(pause);
        let retry_for = state.policy.retry_for;
        for entry in batch {
            let Some(waiting) = state.waiting.get_mut(&entry.id) else { continue };
            waiting.due = now + backoff(waiting.attempts, LONGEST);
            waiting.attempts = waiting.attempts.saturating_add(1);
            waiting.is_busy = false;
            if age(entry.id) > retry_for {
                self.bury(&mut state, entry.id, &failure.to_string());
            }
        }
    }
}
