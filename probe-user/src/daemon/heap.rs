//! `Heaps`: whose allocations are followed, and why. Following costs, so that it begins when a rule on the memory of a process
//! is about to be broken, and ends when the snapshot has been taken or the rule is normal again; unless its target asks for
//! it always.
//!
//! A thread of its own brings what there is to what is wanted, because probes take milliseconds to set, and looking for
//! allocators as long as files are large.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Scene;
use crate::monitor::{Subject, Transition};
use crate::record::{InUse, MAX_FOLLOWED};
use crate::supervise::Pulse;

/// How long a process is followed on when its rule is normal again: it may soon be pending once more.
const LINGER: Duration = Duration::from_secs(5);
/// Of the processes that may be followed at once, those that are so always: one place is left for a breach.
const MAX_ALWAYS: usize = MAX_FOLLOWED - 1;
/// What setting or taking away the probes of one process takes at most.
const DEADLINE: Duration = Duration::from_secs(60);

/// See the head of this file. Dropping it ends all following.
pub(super) struct Heaps {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    scene: Arc<dyn Scene>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wants: BTreeMap<u32, Want>,
    /// What following a process may cost, as a share of one core.
    budget: f64,
    is_over: bool,
}

/// A rule that is about to be broken, and what it is applied to.
type Cause = (String, Subject);

/// Why a process is to be followed, and how far that has come. Only the thread takes one away.
#[derive(Debug, Default)]
struct Want {
    /// Rules that it is about to break, for itself or as the one with most part in it.
    causes: BTreeSet<Cause>,
    /// Its target asks for it.
    is_always: bool,
    /// Snapshots that need what was seen.
    snapshots: usize,
    /// None of these lately.
    until: Option<Instant>,
    /// It runs another program: what was followed is gone.
    is_replaced: bool,
    status: Status,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Status {
    #[default]
    Waiting,
    /// Others are followed, of which the log knows.
    Full,
    Followed,
    /// It cannot be followed.
    Refused(String),
}

impl Want {
    fn is_urgent(&self) -> bool {
        !self.causes.is_empty() || self.snapshots > 0
    }

    fn is_wanted(&self, now: Instant) -> bool {
        self.is_urgent() || self.is_always || self.until.is_some_and(|until| now < until)
    }
}

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Start(u32),
    Stop(u32),
    Wait(Option<Duration>),
}

impl Heaps {
    /// Nobody is followed yet. `budget` is what following a process may cost, as a share of one core.
    pub(super) fn start(scene: Arc<dyn Scene>, budget: f64) -> Result<Self> {
        let state = Mutex::new(State { budget, ..State::default() });
        let shared = Arc::new(Shared { scene, state, changed: Condvar::new() });
        let thread = std::thread::Builder::new()
            .name("heaps".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .context("cannot start the thread that follows allocations")?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Another share of one core, for those that are followed from now on.
    pub(super) fn set_budget(&self, budget: f64) {
        self.shared.lock().budget = budget;
    }

    /// Whether a process is to be followed without any rule.
    pub(super) fn always(&self, pid: u32, is_always: bool) {
        self.shared.change(pid, is_always, |want| want.is_always = is_always);
    }

    /// A rule on memory has changed its state. `pid` is the process that has most part in it now, which need not be the one
    /// that had when the rule was pending.
    pub(super) fn hear(&self, pid: u32, rule: &str, subject: &Subject, change: &Transition) {
        let cause = (rule.to_owned(), subject.clone());
        match change {
            Transition::Pending => self.shared.change(pid, true, |want| _ = want.causes.insert(cause)),
            Transition::Normal | Transition::Skipped(_) => self.shared.calm(&cause),
            // From here on its snapshot needs it.
            Transition::Firing(_) => {}
            Transition::Recovering | Transition::Relapsed | Transition::Resolved(_) => {}
        }
    }

    /// Other rules than these are gone, or others by now: nobody will hear of them any more.
    pub(super) fn keep(&self, is_kept: impl Fn(&str, &Subject) -> bool) {
        let mut state = self.shared.lock();
        for want in state.wants.values_mut() {
            want.causes.retain(|(rule, subject)| is_kept(rule, subject));
        }
        self.shared.changed.notify_all();
    }

    /// A rule was broken: the process is followed until the hold is dropped.
    pub(super) fn hold(&self, pid: u32, rule: &str, subject: &Subject) -> Hold {
        self.shared.change(pid, true, |want| want.snapshots += 1);
        self.shared.calm(&(rule.to_owned(), subject.clone()));
        Hold { shared: Arc::clone(&self.shared), pid }
    }

    /// A process runs another program.
    pub(super) fn executed(&self, pid: u32) {
        self.shared.change(pid, false, |want| want.is_replaced = true);
    }

    /// A process is gone, or nobody's target any more. Snapshots may still need what was seen.
    pub(super) fn leave(&self, pid: u32) {
        self.shared.change(pid, false, |want| {
            want.causes.clear();
            (want.is_always, want.until) = (false, None);
        });
    }
}

impl Heaps {
    /// Whether its thread has died.
    pub(super) fn is_dead(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Follows nobody any more, whoever else still knows of it.
    pub(super) fn end(&self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Heaps {
    fn drop(&mut self) {
        self.end();
    }
}

impl Want {
    fn calm(&mut self, cause: &Cause) {
        if self.causes.remove(cause) && !self.is_urgent() {
            self.until = Some(Instant::now() + LINGER);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wanted of a process; `is_new` if that may be the first.
    fn change(&self, pid: u32, is_new: bool, change: impl FnOnce(&mut Want)) {
        let mut state = self.lock();
        if is_new {
            change(state.wants.entry(pid).or_default());
        } else if let Some(want) = state.wants.get_mut(&pid) {
            change(want);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Nobody is followed for this any more.
    fn calm(&self, cause: &Cause) {
        self.lock().wants.values_mut().for_each(|want| want.calm(cause));
        self.changed.notify_all();
    }

    fn run(&self) {
        let pulse = Pulse::new("heaps", DEADLINE);
        let mut state = self.lock();
        while !state.is_over {
            let (step, budget) = (state.next(Instant::now()), state.budget);
            state = match step {
                Step::Wait(None) => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Step::Wait(Some(time)) => {
                    self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
                }
                Step::Start(pid) => {
                    drop(state);
                    let _busy = pulse.begin();
                    let followed = self.scene.follow(pid, budget);
                    let mut state = self.lock();
                    state.started(pid, followed);
                    state
                }
                Step::Stop(pid) => {
                    drop(state);
                    let _busy = pulse.begin();
                    self.stop(pid);
                    self.lock()
                }
            };
        }
        let followed: Vec<u32> = state.followed().collect();
        state.wants.clear();
        drop(state);
        followed.into_iter().for_each(|pid| self.stop(pid));
    }

    fn stop(&self, pid: u32) {
        match self.scene.unfollow(pid) {
            Ok(()) => tracing::debug!("the allocations of pid {pid} are no longer followed"),
            Err(error) => tracing::error!("the allocations of pid {pid} are still followed: {error:#}"),
        }
    }
}

impl State {
    fn followed(&self) -> impl Iterator<Item = u32> {
        self.wants.iter().filter(|(_, want)| want.status == Status::Followed).map(|(&pid, _)| pid)
    }

    /// Ends come first, then what is urgent.
    fn next(&mut self, now: Instant) -> Step {
        self.wants.retain(|_, want| want.is_wanted(now) || want.status == Status::Followed);
        let is_over = |want: &Want| want.is_replaced || !want.is_wanted(now);
        for (&pid, want) in &mut self.wants {
            if want.status == Status::Followed && is_over(want) {
                (want.status, want.is_replaced) = (Status::Waiting, false);
                return Step::Stop(pid);
            }
            if std::mem::take(&mut want.is_replaced) {
                want.status = Status::Waiting;
            }
        }
        let count = self.followed().count();
        let is_waiting = |want: &Want| matches!(want.status, Status::Waiting | Status::Full);
        for (is_urgent, most) in [(true, MAX_FOLLOWED), (false, MAX_ALWAYS)] {
            let waiting = self.wants.iter_mut().filter(|(_, want)| is_waiting(want) && want.is_urgent() == is_urgent);
            for (&pid, want) in waiting {
                if count < most {
                    return Step::Start(pid);
                }
                if std::mem::replace(&mut want.status, Status::Full) == Status::Waiting {
                    tracing::warn!("the allocations of pid {pid} are not followed: {}", full(count));
                }
            }
        }
        let next = self.wants.values().filter(|want| !want.is_urgent() && !want.is_always);
        let next = next.filter_map(|want| want.until).min();
        Step::Wait(next.map(|next| next.saturating_duration_since(now) + Duration::from_millis(1)))
    }

    fn started(&mut self, pid: u32, followed: Result<()>) {
        let status = match followed {
            Ok(()) => {
                tracing::debug!("following the allocations of pid {pid}");
                Status::Followed
            }
            Err(error) => {
                tracing::warn!("the allocations of pid {pid} cannot be followed: {error:#}");
                Status::Refused(format!("{error:#}"))
            }
        };
        if let Some(want) = self.wants.get_mut(&pid) {
            want.status = status;
        }
    }
}

fn full(count: usize) -> String {
    format!("{count} processes are followed already")
}

/// What a snapshot needs of a process whose memory broke a rule.
pub(super) struct Hold {
    shared: Arc<Shared>,
    pid: u32,
}

impl Hold {
    /// What the process allocated and has in use now, or why that is not known.
    pub(super) fn in_use(&self) -> Result<InUse, String> {
        let state = self.shared.lock();
        let reason = match state.wants.get(&self.pid).map(|want| &want.status) {
            Some(Status::Followed) => None,
            Some(Status::Refused(reason)) => Some(reason.clone()),
            Some(Status::Full) => Some(full(state.followed().count())),
            Some(Status::Waiting) | None => Some("there was no time to begin".to_owned()),
        };
        drop(state);
        match reason {
            Some(reason) => Err(reason),
            None => self.shared.scene.in_use(self.pid).map_err(|error| format!("{error:#}")),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.change(self.pid, false, |want| want.snapshots = want.snapshots.saturating_sub(1));
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.pid)
    }
}

#[cfg(test)]
mod tests;
