//! `Registry`: the functions of services by their names, timed in all processes of their targets as long as they are
//! defined. Whoever defines a function or tells of a process never waits: a thread of its own (`worker`) does what takes
//! time, and publishes what it sees once a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::definition::Definition;
use super::row::Row;
use super::worker::Worker;

/// See the head of this file. Dropping it takes all probes away.
pub struct Registry {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is known of all functions at one time.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The time of the publication before, and of this one: `CLOCK_MONOTONIC`, nanoseconds. 0 before the first.
    pub from_ns: u64,
    /// As above.
    pub at_ns: u64,
    /// By process and name of the function.
    pub rows: BTreeMap<(u32, Arc<str>), Arc<SeenRow>>,
}

/// What is known of a function in a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeenRow {
    /// Its figures of the last [`super::WINDOW`].
    pub row: Row,
    /// Whether its probes are set now: otherwise the calls in flight are not known.
    pub is_set: bool,
}

/// How a function is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// What was defined.
    pub definition: Definition,
    /// The processes of its target.
    pub processes: Vec<(u32, InProcess)>,
}

/// How a function is doing in a process.
#[derive(Clone, Debug, PartialEq)]
pub enum InProcess {
    /// It is looked for.
    Looking,
    /// It is timed.
    Timed {
        /// The share of the last seconds in which its probes were set.
        attached_share: f64,
    },
    /// It cannot be timed for this reason; it is tried again.
    Missing(String),
}

/// What both threads know.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) wanted: Wanted,
    /// Counts the changes of `wanted`.
    pub(super) revision: u64,
    pub(super) is_over: bool,
    pub(super) seen: Arc<Seen>,
    pub(super) processes: BTreeMap<(Arc<str>, u32), InProcess>,
}

/// What is to be.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    pub(super) definitions: BTreeMap<String, Definition>,
    pub(super) processes: BTreeMap<u32, Joined>,
    /// Share of one core that the probes of each target may cost.
    pub(super) budget: f64,
    /// Functions that somebody looks at every second.
    pub(super) preferred: BTreeSet<String>,
}

/// A process of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) targets: Vec<String>,
    /// Tells it from others that had its pid.
    pub(super) life: u64,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, or the end of the pause.
    pub(super) fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        pause: std::time::Duration,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    fn change<T>(&self, change: impl FnOnce(&mut Wanted) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.wanted);
        state.revision += 1;
        self.wake();
        result
    }
}

impl Registry {
    /// Starts the thread, with nothing to do. `budget` is the share of one core that the probes of each target may cost;
    /// its processes share it.
    pub fn start(budget: f64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.change(|wanted| wanted.budget = budget);
        let worker = Worker::new(Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("functions".into()).spawn(move || worker.run());
        let thread = thread.context("cannot start the thread that times functions")?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Times a function from now on, or in another way: what is defined under its name is replaced.
    pub fn put(&self, definition: Definition) -> Result<()> {
        definition.check()?;
        self.shared.change(|wanted| wanted.definitions.insert(definition.name.clone(), definition));
        Ok(())
    }

    /// Ends timing a function. False if there is none of that name.
    pub fn remove(&self, name: &str) -> bool {
        self.shared.change(|wanted| wanted.definitions.remove(name).is_some())
    }

    /// A function by its name.
    pub fn get(&self, name: &str) -> Option<Definition> {
        self.shared.lock().wanted.definitions.get(name).cloned()
    }

    /// Every function, in the order of names; or that of a name.
    pub fn list(&self, name: Option<&str>) -> Vec<Status> {
        let state = self.shared.lock();
        let status = |definition: &Definition| {
            let of_target = |joined: &Joined| joined.targets.contains(&definition.target);
            let pids = state.wanted.processes.iter().filter(|(_, joined)| of_target(joined)).map(|(pid, _)| *pid);
            let name: Arc<str> = definition.name.as_str().into();
            let known = |pid| state.processes.get(&(Arc::clone(&name), pid)).cloned();
            let processes = pids.map(|pid| (pid, known(pid).unwrap_or(InProcess::Looking))).collect();
            Status { definition: definition.clone(), processes }
        };
        let is_wanted = |definition: &&Definition| name.is_none_or(|name| definition.name == name);
        state.wanted.definitions.values().filter(is_wanted).map(status).collect()
    }

    /// A process belongs to these targets from now on. It is another one than what had its pid before, unless only the
    /// targets are new.
    pub fn join(&self, pid: u32, targets: Vec<String>) {
        self.shared.change(|wanted| match wanted.processes.get_mut(&pid) {
            Some(joined) => joined.targets = targets,
            None => {
                static LIVES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
                let life = LIVES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                wanted.processes.insert(pid, Joined { targets, life });
            }
        });
    }

    /// A process is gone, or belongs to no target any more.
    pub fn leave(&self, pid: u32) {
        self.shared.change(|wanted| wanted.processes.remove(&pid));
    }

    /// What the probes of each target may cost from now on, as a share of one core.
    pub fn set_budget(&self, budget: f64) {
        self.shared.change(|wanted| wanted.budget = budget);
    }

    /// These functions are brought up to date every second, others every few seconds.
    pub fn prefer(&self, names: BTreeSet<String>) {
        self.shared.change(|wanted| wanted.preferred = names);
    }

    /// What was seen when it was looked at last.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.shared.lock().seen)
    }
}

impl Registry {
    /// Whether its thread has died.
    pub fn is_dead(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Takes all probes away and times nothing any more, whoever else still knows of it.
    pub fn end(&self) {
        self.shared.lock().is_over = true;
        self.shared.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, symbol: &str) -> Definition {
        let (name, symbol, target) = (name.into(), symbol.into(), "app".into());
        Definition { name, group: String::new(), target, symbol, threshold: None, errors: None }
    }

    #[test]
    fn functions_come_change_and_go() {
        let registry = Registry::start(0.01).expect("starts");
        assert!(registry.put(definition("bad", "libx.so:")).is_err() && registry.put(definition("", "f")).is_err());
        registry.put(definition("push", "send")).expect("right");
        registry.put(definition("pull", "recv")).expect("right");
        registry.put(definition("push", "send_all")).expect("right");
        assert_eq!(registry.get("push").expect("there").symbol, "send_all");
        // Of another target, so that nothing is looked for.
        registry.join(u32::MAX, vec!["other".into()]);
        let list = registry.list(None);
        let shown: Vec<_> =
            list.iter().map(|status| (status.definition.name.as_str(), status.processes.len())).collect();
        assert_eq!(shown, [("pull", 0), ("push", 0)]);
        assert!(registry.remove("push") && !registry.remove("push"));
        assert_eq!(registry.list(None).len(), 1);
        assert!(registry.seen().rows.is_empty());
    }

    #[test]
    fn what_others_do_has_no_part_in_a_budget() {
        let joined =
            |targets: &[&str]| Joined { targets: targets.iter().map(|target| (*target).into()).collect(), life: 0 };
        let wanted = Wanted {
            definitions: [("f".to_owned(), definition("f", "f"))].into(),
            processes: [(1, joined(&["app"])), (2, joined(&["app", "b"])), (3, joined(&["b"]))].into(),
            budget: 0.01,
            preferred: BTreeSet::new(),
        };
        let budget = |pid: u32| super::super::process::budget(&wanted, &wanted.processes[&pid]);
        assert_eq!([budget(1), budget(2), budget(3)], [0.005, 0.005, 0.0], "two share that of their target");
    }
}
