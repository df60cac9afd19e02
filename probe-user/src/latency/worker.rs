//! `Worker`: the thread behind the registry. It compares what is wanted with what there is, and brings the one to the other
//! step by step, looking after the budgets between the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::definition::Definition;
use super::process::{Pair, PairState, Process, budget};
use super::registry::{InProcess, Seen, SeenRow, Shared, Wanted};
use super::search::{Answer, Request, Search};
use super::timer::Timer;
use super::timing::Slot;
use super::window::Window;
use crate::kernel::{self, Event};
use crate::supervise::Pulse;
use crate::target::{self, monotonic_ns};

/// What a round takes at most: setting the probes of one function in one process, and some looking around.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is published what was seen.
const PUBLISH: Duration = Duration::from_secs(1);
/// How often it is asked which processes have mapped something.
const EVENTS: Duration = Duration::from_millis(250);
/// Functions that nobody looks at every second are brought up to date at one in so many publications, by turns.
const TURNS: usize = 4;
/// A process may be about to load what is missing: so long nobody is told.
const NEWS: Duration = Duration::from_secs(3);
/// Functions of processes that can be timed at once, and what their figures may take of the kernel's memory: it is for
/// each CPU, so that large hosts have room for fewer, but some.
const MAX_SLOTS: usize = 512;
const MIN_SLOTS: usize = 32;
const MAX_BYTES: usize = 32 << 20;

/// See the head of this file.
pub(super) struct Worker {
    shared: Arc<Shared>,
    search: Search,
    timer: Option<Timer>,
    /// The programs could not be loaded: of that the log knows.
    is_broken: Option<String>,
    revision: u64,
    definitions: BTreeMap<String, Definition>,
    processes: BTreeMap<u32, Process>,
    /// Functions of which the log knows that they are missing, or that they are timed.
    told: BTreeSet<(String, bool)>,
    lives: u64,
    published_ns: u64,
    /// Functions that somebody looks at every second.
    preferred: BTreeSet<String>,
    /// How often it was published.
    publications: usize,
    /// Pairs have come, gone or got on since they were counted.
    has_changed: bool,
    counts: Counts,
}

/// How far pairs have come.
#[derive(Clone, Copy, Default)]
struct Counts {
    all: usize,
    found: usize,
    timed: usize,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self> {
        let waker = Arc::clone(&shared);
        Ok(Self {
            shared,
            search: Search::start(move || waker.wake())?,
            timer: None,
            is_broken: None,
            revision: 0,
            definitions: BTreeMap::new(),
            processes: BTreeMap::new(),
            told: BTreeSet::new(),
            lives: 0,
            published_ns: 0,
            preferred: BTreeSet::new(),
            publications: 0,
            has_changed: true,
            counts: Counts::default(),
        })
    }

    /// Until the registry is gone.
    pub(super) fn run(mut self) {
        let (mut publish, mut events) = (Instant::now() + PUBLISH, Instant::now());
        let pulse = Pulse::new("functions", DEADLINE);
        while self.wait() {
            let _busy = pulse.begin();
            self.hear();
            let now = Instant::now();
            if self.count() || now >= events {
                self.ask();
            }
            self.time_next();
            if let Some(timer) = &mut self.timer {
                if let Err(error) = timer.look() {
                    tracing::error!("functions: the hits of probes cannot be read: {error:#}");
                }
                for (pid, error) in timer.take_failed() {
                    self.start_over(pid, &format!("{error:#}"));
                }
            }
            if now >= events {
                events = now + EVENTS;
                self.follow();
            }
            if now >= publish {
                publish = now.max(publish + PUBLISH);
                self.publish();
            }
        }
    }

    /// Waits until something may be due; false at the end.
    fn wait(&mut self) -> bool {
        self.count();
        let Counts { all, found, timed } = self.counts;
        let pause = match &self.timer {
            Some(timer) if timed > 0 => timer.pause(),
            _ if all > 0 => EVENTS,
            _ => PUBLISH,
        };
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if !state.is_over && state.revision == self.revision && found == 0 {
            state = shared.wait(state, pause);
        }
        if state.is_over {
            return false;
        }
        if state.revision != self.revision {
            self.revision = state.revision;
            let wanted = state.wanted.clone();
            drop(state);
            self.reconcile(&wanted);
        }
        true
    }

    /// Counts pairs, if something has changed: there may be thousands, and the budgets are looked after many times a second.
    fn count(&mut self) -> bool {
        if !std::mem::take(&mut self.has_changed) {
            return false;
        }
        self.counts = Counts::default();
        for pair in self.processes.values().flat_map(|process| process.pairs.values()) {
            self.counts.all += 1;
            self.counts.found += usize::from(matches!(pair.state, PairState::Found(_)));
            self.counts.timed += usize::from(matches!(pair.state, PairState::Timed(..)));
        }
        true
    }

    /// Ends what is not wanted any more, changes what is wanted otherwise, and notes what is new.
    fn reconcile(&mut self, wanted: &Wanted) {
        self.has_changed = true;
        let Self { processes, timer, .. } = self;
        processes.retain(|pid, process| {
            let stays = wanted.processes.get(pid).is_some_and(|joined| joined.life == process.joined.life);
            if let (false, Some(timer)) = (stays, timer.as_mut()) {
                timer.forget(*pid);
            }
            stays
        });
        for (pid, joined) in &wanted.processes {
            self.lives += 1;
            let process = processes.entry(*pid).or_insert_with(|| Process::new(joined, self.lives));
            process.joined = joined.clone();
            process.reconcile(wanted, timer.as_mut());
            process.budget = budget(wanted, joined);
            if let Some(timer) = timer.as_mut() {
                timer.set_budget(*pid, process.budget);
            }
        }
        let (before, after) = (&self.definitions, &wanted.definitions);
        self.told.retain(|(name, _)| match (before.get(name), after.get(name)) {
            (Some(before), Some(after)) => before.has_same_places(after),
            _ => false,
        });
        self.definitions = after.clone();
        self.preferred.clone_from(&wanted.preferred);
        if wanted.definitions.is_empty()
            && let Some(timer) = self.timer.take()
        {
            // It waits for its probes.
            std::thread::spawn(move || drop(timer));
        }
    }

    /// Takes in what the search has found.
    fn hear(&mut self) {
        let Answer { pid, life, found, took } = match self.search.answer() {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(error) => {
                // Whatever killed it may have been one file: a new one looks at the others.
                tracing::error!("functions: {error:#}");
                let waker = Arc::clone(&self.shared);
                match Search::start(move || waker.wake()) {
                    Ok(search) => self.search = search,
                    Err(error) => tracing::error!("functions: {error:#}"),
                }
                return;
            }
        };
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.life == life) else { return };
        self.has_changed = true;
        process.was_searched(took);
        for (definition, found) in found {
            let Some(pair) = process.pairs.get_mut(definition.name.as_str()) else { continue };
            if pair.definition.symbol == definition.symbol {
                pair.found(found);
            }
        }
    }

    /// Has a process searched that may have what is wanted.
    fn ask(&mut self) {
        if self.search.is_busy() || self.counts.timed == self.counts.all || !self.has_timer() {
            return;
        }
        let now = Instant::now();
        let due = self.processes.iter_mut().find(|(_, process)| process.is_due(now));
        let Some((&pid, process)) = due else { return };
        self.has_changed = true;
        process.is_searched(now);
        let definitions = process.pairs.values_mut().filter_map(|pair| match pair.state {
            PairState::Wanted | PairState::Missing(..) => Some(pair.definition.clone()),
            PairState::Found(_) | PairState::Timed(..) => None,
        });
        let definitions = definitions.collect();
        for pair in process.pairs.values_mut().filter(|pair| matches!(pair.state, PairState::Wanted)) {
            pair.state = PairState::Missing(String::new(), now);
        }
        self.search.ask(Request { pid, life: process.life, definitions });
    }

    /// Loads the programs when they are first needed.
    fn has_timer(&mut self) -> bool {
        if self.timer.is_some() || self.is_broken.is_some() || self.counts.all == 0 {
            return self.timer.is_some();
        }
        let slots = kernel::functions_within(MAX_BYTES).map(|slots| slots.clamp(MIN_SLOTS, MAX_SLOTS));
        match slots.and_then(|slots| Timer::load(slots as u32)) {
            Ok(timer) => self.timer = Some(timer),
            Err(error) => {
                let reason = format!("functions cannot be timed: {error:#}");
                tracing::error!("{reason}");
                self.is_broken = Some(reason);
            }
        }
        self.timer.is_some()
    }

    /// Sets the probes of one function: it takes milliseconds, between which budgets are to be looked after.
    fn time_next(&mut self) {
        if self.counts.found == 0 {
            return;
        }
        let Some(timer) = &mut self.timer else { return };
        let next = self.processes.iter_mut().find_map(|(&pid, process)| {
            let budget = process.budget;
            let is_found = |pair: &&mut Pair| matches!(pair.state, PairState::Found(_));
            Some((pid, budget, process.pairs.values_mut().find(is_found)?))
        });
        let Some((pid, budget, pair)) = next else { return };
        let PairState::Found(function) = std::mem::replace(&mut pair.state, PairState::Wanted) else { return };
        self.has_changed = true;
        let Definition { name, symbol, .. } = &pair.definition;
        let count = function.spots.len();
        let missing = |reason: String| PairState::Missing(reason, Instant::now());
        pair.state = match timer.add(pid, function, budget) {
            Ok(Some(slot)) => {
                let is_first = self.told.insert((name.clone(), true));
                self.told.remove(&(name.clone(), false));
                if is_first {
                    tracing::info!("function {name}: timing {symbol} in pid {pid}, {count} probes");
                } else {
                    tracing::debug!("function {name}: timing {symbol} in pid {pid}, {count} probes");
                }
                PairState::Timed(slot, Window::default())
            }
            Ok(None) => missing("too many functions of too many processes are timed already".into()),
            Err(error) => missing(format!("{error:#}")),
        };
    }

    /// What has happened to processes meanwhile.
    fn follow(&mut self) {
        let Some(timer) = &mut self.timer else { return };
        let (mut replaced, processes) = (Vec::new(), &mut self.processes);
        let read = timer.events(|event| match event {
            Event::Map { pid, .. } => {
                if let Some(process) = processes.get_mut(&pid) {
                    process.has_mapped = true;
                }
            }
            Event::NewImage { pid } => replaced.push(pid),
            _ => {}
        });
        if let Err(error) = read {
            tracing::error!("functions: {error:#}");
        }
        for pid in replaced {
            self.start_over(pid, "it runs another program");
        }
    }

    /// Looks for everything in a process again.
    fn start_over(&mut self, pid: u32, reason: &str) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if let Some(timer) = &mut self.timer {
            timer.forget(pid);
        }
        self.has_changed = true;
        tracing::debug!("functions of pid {pid} are looked for again: {reason}");
        self.lives += 1;
        process.start_over(self.lives);
    }

    /// The slots that are to be brought up to date: those that somebody looks at, those of which nothing is known yet, and
    /// of the others those whose turn it is.
    fn due(&mut self, before: &Seen) -> BTreeSet<Slot> {
        let turn = self.publications;
        self.publications += 1;
        let is_due = |pid: u32, name: &Arc<str>, slot: Slot| {
            (slot as usize + turn).is_multiple_of(TURNS)
                || self.preferred.contains(&**name)
                || !before.rows.contains_key(&(pid, Arc::clone(name)))
        };
        let mut due = BTreeSet::new();
        for (&pid, process) in &self.processes {
            for (name, pair) in &process.pairs {
                if let PairState::Timed(slot, _) = pair.state
                    && is_due(pid, name, slot)
                {
                    due.insert(slot);
                }
            }
        }
        due
    }

    /// Tells what was seen.
    fn publish(&mut self) {
        let at_ns = monotonic_ns();
        let before = Arc::clone(&self.shared.lock().seen);
        let due = self.due(&before);
        let readings =
            self.timer.as_mut().map_or_else(|| Ok(Vec::new()), |timer| timer.readings(|slot| due.contains(&slot)));
        let readings: BTreeMap<Slot, _> = match readings {
            Ok(readings) => readings.into_iter().collect(),
            Err(error) => return tracing::error!("functions: their figures cannot be read: {error:#}"),
        };
        let from_ns = std::mem::replace(&mut self.published_ns, at_ns);
        let mut seen = Seen { from_ns, at_ns, rows: BTreeMap::new() };
        let mut states = BTreeMap::new();
        for (&pid, process) in &mut self.processes {
            for (name, pair) in &mut process.pairs {
                if let PairState::Timed(slot, _) = pair.state
                    && let Some(reading) = readings.get(&slot).filter(|reading| !reading.problem.is_empty())
                {
                    self.timer.iter_mut().for_each(|timer| timer.remove(slot));
                    self.has_changed = true;
                    tracing::warn!("function {name}: no longer timed in pid {pid}: {}", reading.problem);
                    pair.state = PairState::Missing(reading.problem.clone(), Instant::now());
                }
                let state = match &mut pair.state {
                    PairState::Timed(slot, window) => {
                        let key = (pid, Arc::clone(name));
                        let row = match readings.get(slot) {
                            Some(reading) => {
                                window.push(reading);
                                let has_threshold = pair.definition.threshold.is_some();
                                let row = window.row(pid, name, has_threshold, reading.in_flight);
                                Arc::new(SeenRow { row, is_set: reading.is_set })
                            }
                            None => match before.rows.get(&key) {
                                Some(row) => Arc::clone(row),
                                None => continue,
                            },
                        };
                        let attached_share = row.row.attached_share;
                        seen.rows.insert(key, row);
                        InProcess::Timed { attached_share }
                    }
                    PairState::Missing(reason, since) if !reason.is_empty() => {
                        if since.elapsed() >= NEWS
                            && !self.told.contains(&(name.to_string(), true))
                            && target::is_running(pid)
                            && self.told.insert((name.to_string(), false))
                        {
                            tracing::warn!("function {name}: not timed in pid {pid}: {reason}");
                        }
                        InProcess::Missing(reason.clone())
                    }
                    _ => self.is_broken.clone().map_or(InProcess::Looking, InProcess::Missing),
                };
                states.insert((Arc::clone(name), pid), state);
            }
        }
        let mut state = self.shared.lock();
        (state.seen, state.processes) = (Arc::new(seen), states);
    }
}
