//! The keeper: waits for the end of each breach's evidence, fetches it, stores it and tells the announcer of it. What cannot
//! be stored is kept in memory and tried again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::Scene;
use super::announce::News;
use super::causes::Cause;
use super::chronicle::Chronicle;
use super::compared::{self, CallTime};
use super::evidence::{Times, Windows, assemble, wall_ahead_ns};
use super::heap::Hold;
use super::holdings::Holdings;
use super::holds::Holds;
use super::pins::Upkeep;
use crate::alert::Notice;
use crate::config::Evidence;
use crate::monitor::Breach;
use crate::record::{Makings, Recording, Stretch};
use crate::snapshot::{Function, Host, Process, Profiles, Sidecar, Store};
use crate::supervise::Pulse;
use crate::symbolize::Profile;

/// What keeping one snapshot takes at most, with the files of the largest programs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Snapshots that are kept in memory while they cannot be stored. Each is about a megabyte.
const MAX_UNSTORED: usize = 4;

/// A breach with all that was known of it when it happened.
#[derive(Debug)]
pub(super) struct Job {
    /// That of the snapshot.
    pub(super) id: Ulid,
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
    /// What it held in that moment, and what of it was seen to be made, for metrics of threads and descriptors.
    pub(super) holdings: Option<Holdings>,
    pub(super) makings: Makings,
    /// When the process ended, if it did.
    pub(super) gone_at_ns: Option<u64>,
}

impl Job {
    pub(super) fn end_ns(&self) -> u64 {
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
}

/// See the head of this file.
pub(super) struct Keeper {
    scene: Arc<dyn Scene>,
    holds: Arc<Holds>,
    store: Store,
    news: Sender<News>,
    chronicle: Arc<Chronicle>,
    waiting: Vec<Job>,
    unstored: VecDeque<Unstored>,
    retry_at: Instant,
    upkeep: Upkeep,
    pulse: Pulse,
    /// How often storing is tried again.
    pub(super) retry: Duration,
}

impl Keeper {
    /// A keeper with nothing to do.
    pub(super) fn new(
        scene: Arc<dyn Scene>,
        holds: Arc<Holds>,
        store: Store,
        news: Sender<News>,
        chronicle: Arc<Chronicle>,
    ) -> Self {
        Self {
            upkeep: Upkeep::start(&holds.pins, &store),
            scene,
            holds,
            store,
            news,
            chronicle,
            waiting: Vec::new(),
            unstored: VecDeque::new(),
            retry_at: Instant::now(),
            pulse: Pulse::new("keeper", DEADLINE),
            retry: Duration::from_secs(5),
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
        [next_end, retry].into_iter().flatten().min().unwrap_or(Upkeep::EVERY)
    }

    /// Does everything that is due.
    pub(super) fn work(&mut self) {
        let now = self.scene.now_ns();
        let waiting = std::mem::take(&mut self.waiting);
        let (due, later) = waiting.into_iter().partition(|job| job.gone_at_ns.is_some() || job.end_ns() <= now);
        self.waiting = later;
        let due: Vec<Job> = due;
        let pulse = self.pulse.clone();
        for job in due {
            let _busy = pulse.begin();
            let pid = job.breach.pid;
            self.keep(job);
            self.holds.end(pid);
        }
        let _busy = pulse.begin();
        if !self.unstored.is_empty() && Instant::now() >= self.retry_at {
            self.try_again();
        }
        self.upkeep.work(&self.holds.pins, &self.store);
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
        self.compare(&job, &mut windows, (from_ns, exceeded_ns, end_ns));
        windows.figures = self.chronicle.timeline.between(job.breach.pid, &job.breach.rule, from_ns, end_ns);
        if job.breach.metric.is_memory() {
            // What grew before the threshold was reached is as much to blame as what grew from then on.
            windows.whole = self.fetch(&job, "around", (from_ns, end_ns), &mut windows);
        }
        self.look_at_holdings(&job, &mut windows);
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
                self.tell(News::Lost { id: job.id, reason: format!("{error:#}") });
                return;
            }
        };
        self.holds.pins.attach(&self.store, &job.breach, sidecar.id);
        let notice = Box::new(Notice::of_snapshot(&sidecar, Some(self.store.folder(sidecar.id)), &job.notify));
        let fresh = Unstored { sidecar, profiles };
        // While older ones wait there is no point in trying with a new one first.
        let refused =
            if self.unstored.is_empty() { self.store.put(&fresh.sidecar, &fresh.profiles).err() } else { None };
        if self.unstored.is_empty() && refused.is_none() {
            self.chronicle.kept(&fresh.sidecar, true);
            return self.tell(News::Evidence { id: job.id, notice });
        }
        if let Some(error) = refused {
            let every = humantime::format_duration(self.retry);
            tracing::error!("{error:#}; it is kept in memory and tried again every {every}");
            self.retry_at = Instant::now() + self.retry;
        }
        let note = "the snapshot could not be stored yet".to_owned();
        self.tell(News::Evidence { id: job.id, notice: Box::new(Notice { note, ..*notice }) });
        if self.unstored.len() >= MAX_UNSTORED
            && let Some(oldest) = self.unstored.pop_front()
        {
            self.lose(&oldest, "it could not be stored, and newer ones wait");
        }
        self.unstored.push_back(fresh);
    }

    /// What was seen until the breach; where that is nothing, what was seen since, if the process lives.
    fn look_at_holdings(&self, job: &Job, windows: &mut Windows) {
        let cause = Cause::of(job.breach.metric);
        let Some(holdings) = &job.holdings else { return };
        windows.holdings = Some(holdings.clone());
        let later = || {
            let makings = self.scene.makings(job.breach.pid).ok().filter(|makings| !makings.made.is_empty())?;
            Some((holdings.again(job.breach.pid, cause)?, makings))
        };
        let name = |makings: &Makings| (makings.made.clone(), self.scene.name(&makings.recording));
        if !job.makings.made.is_empty() {
            windows.makings = Some(name(&job.makings));
        } else if job.gone_at_ns.is_none()
            && let Some((holdings, makings)) = later()
        {
            windows.holdings = Some(holdings);
            windows.makings = Some(name(&makings));
        }
    }

    fn tell(&self, news: News) {
        if self.news.send(news).is_err() {
            tracing::error!("the announcer has died"); // and the daemon ends
        }
    }

    /// Fetches the calm stretch that suits the breach best, with how long calls took then and now.
    fn compare(&self, job: &Job, windows: &mut Windows, (from_ns, exceeded_ns, end_ns): (u64, u64, u64)) {
        let (pid, call_times) = (job.breach.pid, &self.chronicle.call_times);
        let Some(Function { name, row, .. }) = &job.function else {
            let load = compared::load(&windows.during);
            windows.baseline = self.scene.baseline(pid, &|stretch| compared::suits(stretch, load));
            return;
        };
        let between = |from_ns: u64, to_ns: u64| call_times.between(pid, name, from_ns, to_ns);
        // One in which the function was called about as often, if it was at all.
        let calls = |stretch: &Stretch| between(stretch.from_ns, stretch.to_ns).map_or(0.0, |(calls, _)| calls as f64);
        let seconds = |stretch: &Stretch| (stretch.to_ns - stretch.from_ns) as f64 / 1e9;
        windows.baseline = self.scene.baseline(pid, &|stretch| match calls(stretch) / seconds(stretch).max(1.0) {
            rate if rate > 0.0 => -(rate / row.rate.max(0.01)).ln().abs().round(),
            _ => f64::NEG_INFINITY,
        });
        let baseline = windows
            .baseline
            .as_ref()
            .and_then(|(since_ns, calm)| between(*since_ns, since_ns.saturating_add(calm.header.duration_ns)));
        windows.call_time = CallTime {
            now_ns: call_times.longest(pid, name, exceeded_ns, end_ns).max(row.avg_ns),
            baseline_ns: baseline.map(|(_, average_ns)| average_ns),
            before_ns: call_times.before(pid, name, exceeded_ns).filter(|_| from_ns < exceeded_ns),
        };
    }

    fn fetch(&self, job: &Job, name: &str, (from_ns, to_ns): (u64, u64), windows: &mut Windows) -> Profile {
        self.scene.profile(job.breach.pid, from_ns, to_ns).unwrap_or_else(|error| {
            tracing::error!("{}: no profile of pid {} {name} the breach: {error:#}", job.breach.rule, job.breach.pid);
            windows.failures.insert(format!("window `{name}` could not be read"), 1);
            Profile::default()
        })
    }

    /// Tries to store what could not be stored.
    fn try_again(&mut self) {
        let had_waiting = !self.unstored.is_empty();
        while let Some(first) = self.unstored.front() {
            if let Err(error) = self.store.put(&first.sidecar, &first.profiles) {
                tracing::debug!("{error:#}");
                break;
            }
            tracing::info!("the snapshot {} is stored now", first.sidecar.id);
            self.chronicle.kept(&first.sidecar, true);
            self.unstored.pop_front();
        }
        if had_waiting && self.unstored.is_empty() {
            tracing::info!("{} can be written again", self.store.path().display());
        }
        self.retry_at = Instant::now() + self.retry;
    }

    /// Nothing more is tried for a snapshot.
    fn lose(&self, lost: &Unstored, reason: &str) {
        tracing::error!("the snapshot {} is lost: {reason}", lost.sidecar.id);
        self.chronicle.kept(&lost.sidecar, false);
    }
}

#[cfg(test)]
mod tests;
