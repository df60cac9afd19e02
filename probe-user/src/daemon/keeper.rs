//! The keeper: waits for the end of each breach's evidence, fetches it, stores it and tells of it. What cannot be stored
//! is kept in memory and tried again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Scene;
use super::evidence::{Times, Windows, assemble, wall_ahead_ns};
use super::holds::Holds;
use crate::alert::{Message, Outbox};
use crate::config::Evidence;
use crate::monitor::Breach;
use crate::record::Recording;
use crate::snapshot::{Function, Host, Process, Profiles, Sidecar, Store};
use crate::symbolize::Profile;

/// Snapshots that are kept in memory while they cannot be stored. Each is about a megabyte.
const MAX_UNSTORED: usize = 4;

/// A breach with all that was known of it when it happened.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) breach: Breach,
    pub(super) evidence: Evidence,
    pub(super) notify: Vec<String>,
    pub(super) host: Host,
    pub(super) process: Process,
    /// The function that was measured, for metrics of functions.
    pub(super) function: Option<Function>,
    /// Its threads in that moment.
    pub(super) dump: Option<Recording>,
    /// When the process ended, if it did.
    pub(super) gone_at_ns: Option<u64>,
}

impl Job {
    fn end_ns(&self) -> u64 {
        let after = u64::try_from(self.evidence.after.as_nanos()).unwrap_or(u64::MAX);
        let end = self.breach.breached_at_ns.saturating_add(after);
        self.gone_at_ns.map_or(end, |gone| gone.clamp(self.breach.exceeded_since_ns, end))
    }
}

/// What the watcher tells the keeper.
#[derive(Debug)]
pub(super) enum Told {
    /// A rule was broken.
    Breach(Box<Job>),
    /// A process is gone: there will be no more of it.
    Gone { pid: u32, at_ns: u64 },
}

#[derive(Debug)]
struct Unstored {
    sidecar: Sidecar,
    profiles: Profiles,
    notify: Vec<String>,
    since: Instant,
    is_told: bool,
}

/// See the head of this file.
pub(super) struct Keeper {
    scene: Arc<dyn Scene>,
    holds: Arc<Holds>,
    store: Store,
    outbox: Arc<Outbox>,
    waiting: Vec<Job>,
    unstored: VecDeque<Unstored>,
    retry_at: Instant,
    /// How often storing is tried again.
    pub(super) retry: Duration,
    /// How long an alert waits for its snapshot to be stored.
    pub(super) patience: Duration,
}

impl Keeper {
    /// A keeper with nothing to do.
    pub(super) fn new(scene: Arc<dyn Scene>, holds: Arc<Holds>, store: Store, outbox: Arc<Outbox>) -> Self {
        Self {
            scene,
            holds,
            store,
            outbox,
            waiting: Vec::new(),
            unstored: VecDeque::new(),
            retry_at: Instant::now(),
            retry: Duration::from_secs(5),
            patience: Duration::from_secs(20),
        }
    }

    /// Works until the other end of the channel is gone; then takes what there is of every breach, and ends.
    pub(super) fn run(mut self, told: &Receiver<Told>) {
        loop {
            match told.recv_timeout(self.idle_time()) {
                Ok(told) => self.hear(told),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.work();
        }
        let now = self.scene.now_ns();
        for job in &mut self.waiting {
            job.gone_at_ns.get_or_insert(now);
        }
        self.work();
        self.try_again();
        for lost in std::mem::take(&mut self.unstored) {
            tracing::error!("the snapshot {} could not be stored and is lost", lost.sidecar.id);
            self.tell(&lost, None);
        }
    }

    pub(super) fn hear(&mut self, told: Told) {
        match told {
            Told::Breach(job) => self.waiting.push(*job),
            Told::Gone { pid, at_ns } => {
                for job in self.waiting.iter_mut().filter(|job| job.breach.pid == pid) {
                    job.gone_at_ns.get_or_insert(at_ns);
                }
            }
        }
    }

    /// Until when there is nothing to do but to listen.
    fn idle_time(&self) -> Duration {
        let now = self.scene.now_ns();
        let next_end = self.waiting.iter().map(|job| Duration::from_nanos(job.end_ns().saturating_sub(now))).min();
        let retry = (!self.unstored.is_empty()).then(|| self.retry_at.saturating_duration_since(Instant::now()));
        [next_end, retry].into_iter().flatten().min().unwrap_or(Duration::from_secs(60))
    }

    /// Does everything that is due.
    pub(super) fn work(&mut self) {
        let now = self.scene.now_ns();
        let waiting = std::mem::take(&mut self.waiting);
        let (due, later) = waiting.into_iter().partition(|job| job.gone_at_ns.is_some() || job.end_ns() <= now);
        self.waiting = later;
        let due: Vec<Job> = due;
        for job in due {
            let pid = job.breach.pid;
            self.keep(job);
            self.holds.end(pid);
        }
        if !self.unstored.is_empty() && Instant::now() >= self.retry_at {
            self.try_again();
        }
    }

    fn keep(&mut self, job: Job) {
        let (exceeded_ns, end_ns) = (job.breach.exceeded_since_ns, job.end_ns());
        let before = u64::try_from(job.evidence.before.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = exceeded_ns.saturating_sub(before);
        let mut windows = Windows::default();
        windows.before = self.fetch(&job, "before", (from_ns, exceeded_ns), &mut windows);
        windows.breach = self.fetch(&job, "breach", (exceeded_ns, end_ns), &mut windows);
        if job.breach.metric.is_memory() {
            // What grew before the threshold was reached is as much to blame as what grew from then on.
            windows.whole = self.fetch(&job, "around", (from_ns, end_ns), &mut windows);
        }
        match &job.dump {
            Some(dump) => windows.dump = Some(self.scene.name(dump)),
            None => drop(windows.failures.insert("window `dump` could not be read".into(), 1)),
        }
        let times = Times { from_ns, end_ns, wall_ahead_ns: wall_ahead_ns(self.scene.now_ns()) };
        let assembled = assemble(&job, times, &windows).or_else(|error| {
            tracing::error!("{}: the profiles of pid {} are lost: {error:#}", job.breach.rule, job.breach.pid);
            let failures = [("profiles could not be written".to_owned(), 1)].into();
            assemble(&job, times, &Windows { failures, ..Windows::default() })
        });
        let (sidecar, profiles) = match assembled {
            Ok(assembled) => assembled,
            Err(error) => {
                tracing::error!("{}: the snapshot of pid {} is lost: {error:#}", job.breach.rule, job.breach.pid);
                return;
            }
        };
        let Job { notify, .. } = job;
        let fresh = Unstored { sidecar, profiles, notify, since: Instant::now(), is_told: false };
        // While older ones wait there is no point in trying with a new one first.
        if self.unstored.is_empty() {
            match self.store.put(&fresh.sidecar, &fresh.profiles) {
                Ok(folder) => return self.tell(&fresh, Some(folder)),
                Err(error) => {
                    let every = humantime::format_duration(self.retry);
                    tracing::error!("{error:#}; it is kept in memory and tried again every {every}");
                    self.retry_at = Instant::now() + self.retry;
                }
            }
        } else if self.unstored.len() >= MAX_UNSTORED
            && let Some(oldest) = self.unstored.pop_front()
        {
            tracing::error!("the snapshot {} could not be stored and is lost: newer ones wait", oldest.sidecar.id);
            self.tell(&oldest, None);
        }
        self.unstored.push_back(fresh);
    }

    fn fetch(&self, job: &Job, name: &str, (from_ns, to_ns): (u64, u64), windows: &mut Windows) -> Profile {
        self.scene.profile(job.breach.pid, from_ns, to_ns).unwrap_or_else(|error| {
            tracing::error!("{}: no profile of pid {} {name} the breach: {error:#}", job.breach.rule, job.breach.pid);
            windows.failures.insert(format!("window `{name}` could not be read"), 1);
            Profile::default()
        })
    }

    /// Tries to store what could not be stored; alerts that have waited for too long go without it.
    fn try_again(&mut self) {
        let had_waiting = !self.unstored.is_empty();
        while let Some(first) = self.unstored.front() {
            match self.store.put(&first.sidecar, &first.profiles) {
                Ok(folder) => {
                    if let Some(stored) = self.unstored.pop_front() {
                        self.tell(&stored, Some(folder));
                    }
                }
                Err(error) => {
                    tracing::debug!("{error:#}");
                    break;
                }
            }
        }
        if had_waiting && self.unstored.is_empty() {
            tracing::info!("{} can be written again", self.store.path().display());
        }
        let mut unstored = std::mem::take(&mut self.unstored);
        for waiting in unstored.iter_mut().filter(|waiting| waiting.since.elapsed() >= self.patience) {
            self.tell(waiting, None);
            waiting.is_told = true;
        }
        self.unstored = unstored;
        self.retry_at = Instant::now() + self.retry;
    }

    /// The one log line of a breach, and its messages.
    fn tell(&self, kept: &Unstored, folder: Option<PathBuf>) {
        let Unstored { sidecar, notify, is_told, .. } = kept;
        if *is_told {
            if folder.is_some() {
                tracing::info!("the snapshot {} is stored after all", sidecar.id);
            }
            return;
        }
        let message = Message::new(sidecar, folder);
        tracing::warn!("{message}");
        for channel in notify {
            self.outbox.push(channel, &message);
        }
    }
}

#[cfg(test)]
mod tests;
