//! The keeper: waits for the end of each breach's evidence, fetches it, stores it and tells of it. What cannot be stored
//! is kept in memory and tried again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Scene;
use super::chronicle::Chronicle;
use super::evidence::{Times, Windows, assemble, wall_ahead_ns};
use super::heap::Hold;
use super::holds::Holds;
use super::pins::Upkeep;
use crate::alert::{Journal, Links, Notice, NoticeKind, sentence};
use crate::config::Evidence;
use crate::monitor::{Breach, Over};
use crate::record::Recording;
use crate::snapshot::{Function, Host, Process, Profiles, Sidecar, Store};
use crate::symbolize::Profile;

/// How long an alert of an earlier daemon has time to fire again: the longest that rules usually wait.
const GRACE: Duration = Duration::from_secs(600);

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
    /// What it allocates is followed until this is dropped, for metrics of memory.
    pub(super) heap: Option<Hold>,
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
    /// A rule was broken by a process that is too hot to be looked at.
    Skipped(Box<Job>),
    /// A breach is over.
    Over(Box<Over>),
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
    journal: Arc<Journal>,
    /// Alerts that the disk has refused so far.
    held: usize,
    chronicle: Arc<Chronicle>,
    /// Breaches that are over, of which nobody was told that they began.
    over: Vec<Over>,
    /// Alerts that an earlier daemon has told of, since when they are known. Those that do not fire again are over.
    inherited: Option<(Instant, Vec<Notice>)>,
    waiting: Vec<Job>,
    unstored: VecDeque<Unstored>,
    retry_at: Instant,
    upkeep: Upkeep,
    /// How often storing is tried again.
    pub(super) retry: Duration,
    /// How long an alert waits for its snapshot to be stored.
    pub(super) patience: Duration,
}

impl Keeper {
    /// A keeper with nothing to do.
    pub(super) fn new(
        scene: Arc<dyn Scene>,
        holds: Arc<Holds>,
        store: Store,
        journal: Arc<Journal>,
        chronicle: Arc<Chronicle>,
    ) -> Self {
        let inherited = Some((Instant::now(), journal.firing())).filter(|(_, alerts)| !alerts.is_empty());
        Self {
            upkeep: Upkeep::start(&holds.pins, &store),
            scene,
            holds,
            store,
            journal,
            held: 0,
            chronicle,
            over: Vec::new(),
            inherited,
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
            self.lose(&lost, "it could not be stored");
        }
    }

    pub(super) fn hear(&mut self, told: Told) {
        match told {
            Told::Breach(job) => self.waiting.push(*job),
            Told::Skipped(job) => self.skip(&job),
            Told::Over(over) => self.over.push(*over),
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
        let held = (self.held > 0).then_some(self.retry);
        [next_end, retry, held].into_iter().flatten().min().unwrap_or(Upkeep::EVERY)
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
        self.upkeep.work(&self.holds.pins, &self.store);
        self.end_alerts();
        self.held = self.journal.flush();
    }

    /// All that is left of it is the alert.
    fn skip(&self, job: &Job) {
        let wall_ahead_ns = wall_ahead_ns(self.scene.now_ns());
        let times = Times { from_ns: job.breach.exceeded_since_ns, end_ns: job.breach.breached_at_ns, wall_ahead_ns };
        match assemble(job, times, &Windows::default()) {
            Ok((sidecar, _)) => {
                let notice = Notice::of_snapshot(&sidecar, None, &job.notify);
                self.journal.append(&Notice { kind: NoticeKind::Skipped, ..notice });
            }
            Err(error) => tracing::error!("{}: nobody is told: {error:#}", job.breach.rule),
        }
    }

    /// Tells of breaches that are over, as soon as it was told of them that they are.
    fn end_alerts(&mut self) {
        if self.inherited.as_ref().is_some_and(|(since, _)| since.elapsed() >= GRACE)
            && let Some((_, alerts)) = self.inherited.take()
        {
            let (firing, ..) = self.chronicle.totals();
            let is_over = |alert: &&Notice| {
                !firing.iter().any(|now| now.rule == alert.rule && now.pid.is_none_or(|pid| pid == alert.process.pid))
            };
            let still = self.journal.firing();
            for alert in alerts.iter().filter(is_over).filter(|alert| still.iter().any(|now| now.id == alert.id)) {
                self.journal.append(&alert.over(None));
            }
        }
        if self.over.is_empty() {
            return;
        }
        let firing = self.journal.firing();
        let over = std::mem::take(&mut self.over);
        for over in over {
            let Breach { rule, pid, .. } = &over.breach;
            let is_untold = self.waiting.iter().any(|job| job.breach.rule == *rule && job.breach.pid == *pid)
                || self
                    .unstored
                    .iter()
                    .any(|kept| !kept.is_told && kept.sidecar.rule == *rule && kept.sidecar.process.pid == *pid);
            if is_untold {
                self.over.push(over);
                continue;
            }
            for alert in firing.iter().filter(|alert| alert.rule == *rule && alert.process.pid == *pid) {
                self.journal.append(&alert.over(over.value));
            }
        }
    }

    fn keep(&mut self, job: Job) {
        let (exceeded_ns, end_ns) = (job.breach.exceeded_since_ns, job.end_ns());
        let before = u64::try_from(job.evidence.before.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = exceeded_ns.saturating_sub(before);
        let mut windows = Windows::default();
        // At once: a moment later other memory is in use.
        let in_use = job.heap.as_ref().map(Hold::in_use);
        windows.before = self.fetch(&job, "before", (from_ns, exceeded_ns), &mut windows);
        windows.during = self.fetch(&job, "breach", (exceeded_ns, end_ns), &mut windows);
        windows.baseline = self.scene.baseline(job.breach.pid);
        windows.figures = self.chronicle.timeline.between(job.breach.pid, &job.breach.rule, from_ns, end_ns);
        if job.breach.metric.is_memory() {
            // What grew before the threshold was reached is as much to blame as what grew from then on.
            windows.whole = self.fetch(&job, "around", (from_ns, end_ns), &mut windows);
        }
        match in_use {
            Some(Ok(in_use)) => windows.live = Some((self.scene.name(&in_use.recording), in_use)),
            Some(Err(reason)) => drop(windows.failures.insert(format!("allocations not followed: {reason}"), 1)),
            None => {}
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
        self.holds.pins.attach(&self.store, &job.breach, sidecar.id);
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
            self.lose(&oldest, "it could not be stored, and newer ones wait");
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
        let is_late = |waiting: &&mut Unstored| !waiting.is_told && waiting.since.elapsed() >= self.patience;
        for waiting in unstored.iter_mut().filter(is_late) {
            self.tell(waiting, None);
            waiting.is_told = true;
        }
        self.unstored = unstored;
        self.retry_at = Instant::now() + self.retry;
    }

    /// Nothing more is tried for a snapshot; its alert goes without it.
    fn lose(&self, lost: &Unstored, reason: &str) {
        tracing::error!("the snapshot {} is lost: {reason}", lost.sidecar.id);
        self.chronicle.kept(&lost.sidecar, false);
        self.tell(lost, None);
    }

    /// The one log line of a breach, and its alert.
    fn tell(&self, kept: &Unstored, folder: Option<PathBuf>) {
        let Unstored { sidecar, notify, is_told, .. } = kept;
        if folder.is_some() {
            self.chronicle.kept(sidecar, true);
        }
        if *is_told {
            if folder.is_some() {
                tracing::info!("the snapshot {} is stored after all", sidecar.id);
            }
            return;
        }
        let notice = Notice::of_snapshot(sidecar, folder, notify);
        tracing::warn!("{}", sentence(&notice, &Links::default()));
        self.journal.append(&notice);
    }
}

#[cfg(test)]
mod tests;
