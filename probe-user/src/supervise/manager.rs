//! What the service manager is told, where there is one (`NOTIFY_SOCKET`).

use std::time::{Duration, Instant};

use sd_notify::{NotifyState, notify, watchdog_enabled};

use super::ward::Ward;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Manager {
    /// By when it wants to hear from us again and again.
    watchdog: Option<Duration>,
    fed: Option<Instant>,
    is_ready: bool,
    was_ready: bool,
    is_reloading: bool,
}

impl Manager {
    pub(super) fn new() -> Self {
        Self { watchdog: watchdog_enabled(), fed: None, is_ready: false, was_ready: false, is_reloading: false }
    }

    /// Tells what has changed, and that all are alive when it is time to.
    pub(super) fn tell(&mut self, wards: &[Ward], now: Instant) {
        let is_ready = wards.iter().all(|ward| ward.is_ready);
        if is_ready && !self.was_ready {
            send(&[NotifyState::Ready]);
            self.was_ready = true;
        }
        if is_ready != self.is_ready {
            let status = if is_ready { "the collector and the server run" } else { "a process is being started again" };
            self.say(status);
            self.is_ready = is_ready;
        }
        let Some(limit) = self.watchdog else { return };
        // One that hangs, or that does not come back, is a reason to begin anew with everything.
        let are_alive = wards.iter().all(|ward| now.saturating_duration_since(ward.beat) < limit);
        if are_alive && self.fed.is_none_or(|fed| now.duration_since(fed) >= limit / 3) {
            send(&[NotifyState::Watchdog]);
            self.fed = Some(now);
        }
    }

    /// One line on how things are.
    pub(super) fn say(&self, status: &str) {
        send(&[NotifyState::Status(status)]);
    }

    pub(super) fn reloading(&mut self) {
        self.is_reloading = true;
        let now = NotifyState::monotonic_usec_now().ok();
        send(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>());
    }

    /// The other configuration was taken over, or refused.
    pub(super) fn reloaded(&mut self) {
        if std::mem::take(&mut self.is_reloading) {
            send(&[NotifyState::Ready]);
        }
    }

    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

/// Without a service manager this does nothing.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::debug!("cannot notify the service manager: {error}");
    }
}
