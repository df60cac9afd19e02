//! `Timer`: times functions of processes: has their probes set within the budget of each process, and reads what they saw.
//! One set of kernel programs serves all. A function of a process has a slot: a number in the kernel's maps, which is used
//! again when its probes are gone.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, eventfd};

use super::function::Function;
use super::row::{Frame, Row};
use crate::kernel::{self, Event, Figures, Judgement, OpenCall, Sampler, WaitFilter};
use crate::probes::{self, Change, Governor, ProbeSet};
use crate::target::{self, monotonic_ns};

/// How often hits are looked at: at most this long more than the budget is spent.
const TICK: Duration = Duration::from_millis(5);
/// And as long as they cost next to nothing: a fifth of what it takes the kernel to take probes away.
const CALM_TICK: Duration = Duration::from_millis(20);
/// Whose hits they are is asked at least this often; at once if all hits together are worth a look.
const SHARE_OUT: Duration = Duration::from_millis(60);
/// Worth a look is what costs more than this share of what the smallest budget allows in a second.
const CALM: f64 = 0.1;

/// How long the end waits for probes to go. What is left then goes with the process.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A function of a process, as the kernel knows it.
pub type Slot = u32;

/// Probes, and what they saw.
pub struct Timer {
    sampler: Sampler,
    /// For [`Sampler::read`], which nobody interrupts here.
    alarm: OwnedFd,
    hit_cost: Duration,
    processes: BTreeMap<u32, Process>,
    slots: Vec<Option<Timed>>,
    /// Slots that were never used, or are clear again; the longest unused first.
    free: VecDeque<Slot>,
    /// Slots whose probes are on their way out.
    leaving: Vec<(Slot, Receiver<()>)>,
    /// All hits of the programs.
    hits: u64,
    /// Hits that were not asked whose they are, and since when.
    unshared: u64,
    shared: Instant,
    /// There is little to look after.
    is_calm: bool,
    failed: Vec<(u32, anyhow::Error)>,
}

struct Process {
    probes: ProbeSet,
    budget: f64,
}

struct Timed {
    pid: u32,
    function: Function,
    since: Instant,
    since_ns: u64,
    /// How long the process's probes were set before.
    attached_before: Duration,
    hits: u64,
}

/// What is known of a function of a process since it was added.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Counts, times and histogram.
    pub figures: Figures,
    /// For how long it is timed.
    pub elapsed: Duration,
    /// For how much of that time its probes were set.
    pub attached: Duration,
    /// Whether they are set now.
    pub is_set: bool,
    /// Calls that have not returned, and the age of the oldest in nanoseconds; known while the probes are set.
    pub in_flight: (u64, Option<u64>),
}

/// False for a call that its thread has left without a return, as far as that can be seen: threads that wait show where
/// their stack ends.
fn is_going_on(call: &OpenCall) -> bool {
    target::stack_pointer(call.pid, call.tid).is_none_or(|sp| !call.was_left(sp))
}

impl Timer {
    /// Loads the programs, with room for so many functions of processes, and measures what a hit costs.
    pub fn load(slots: u32) -> Result<Self> {
        let mut sampler = Sampler::load(&kernel::Options {
            frequency: 1,
            all: false,
            all_lifecycle: false,
            user_stacks: false,
            kernel_stacks: false,
            waits: WaitFilter::default(),
            // One more, to measure with.
            functions: slots + 1,
        })?;
        let hit_cost = probes::measure_hit(&mut sampler, slots)?;
        tracing::debug!(?hit_cost, slots, "a hit of a probe");
        Ok(Self {
            hits: sampler.hits()?,
            sampler,
            alarm: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot make an eventfd")?,
            hit_cost,
            processes: BTreeMap::new(),
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).collect(),
            leaving: Vec::new(),
            unshared: 0,
            shared: Instant::now(),
            is_calm: false,
            failed: Vec::new(),
        })
    }

    /// What one hit of a probe costs on this host.
    pub fn hit_cost(&self) -> Duration {
        self.hit_cost
    }

    /// Times a function of a process, whose probes together may cost this share of one core. `None` when all slots are in
    /// use.
    pub fn add(&mut self, pid: u32, function: Function, budget: f64) -> Result<Option<Slot>> {
        let Some(&slot) = self.free.front() else { return Ok(None) };
        self.sampler.calls().clear(slot)?;
        self.sampler.calls().judge(slot, function.judgement)?;
        let governor = || Governor::new(budget, self.hit_cost, monotonic_ns());
        let process =
            self.processes.entry(pid).or_insert_with(|| Process { probes: ProbeSet::new(pid, governor()), budget });
        let wanted = function.wanted(slot);
        if let Err(error) = process.probes.add(&mut self.sampler, wanted) {
            self.forget_empty(pid);
            return Err(error);
        }
        self.free.pop_front();
        let (since, since_ns) = (Instant::now(), monotonic_ns());
        let attached_before = process.probes.attached();
        self.slots[slot as usize] = Some(Timed { pid, function, since, since_ns, attached_before, hits: 0 });
        self.set_budget(pid, budget);
        Ok(Some(slot))
    }

    /// Judges its calls in another way from now on.
    pub fn judge(&mut self, slot: Slot, judgement: Judgement, has_threshold: bool) -> Result<()> {
        if let Some(Some(timed)) = self.slots.get_mut(slot as usize) {
            (timed.function.judgement, timed.function.has_threshold) = (judgement, has_threshold);
            self.sampler.calls().judge(slot, judgement)?;
        }
        Ok(())
    }

    /// Ends timing a function; its slot is free when the kernel is done with the probes.
    pub fn remove(&mut self, slot: Slot) {
        let Some(timed) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Some(process) = self.processes.get_mut(&timed.pid) {
            self.leaving.push((slot, process.probes.remove(slot)));
            self.forget_empty(timed.pid);
        }
    }

    fn forget_empty(&mut self, pid: u32) {
        if self.processes.get(&pid).is_some_and(|process| process.probes.is_empty()) {
            self.processes.remove(&pid);
        }
    }

    /// Ends timing a process. It may be gone already.
    pub fn forget(&mut self, pid: u32) {
        let of_process = |timed: &Option<Timed>| timed.as_ref().is_some_and(|timed| timed.pid == pid);
        let slots: Vec<Slot> =
            (0..).zip(&self.slots).filter(|(_, timed)| of_process(timed)).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.remove(slot);
        }
    }

    /// What the probes of a process may cost, as a share of one core.
    pub fn set_budget(&mut self, pid: u32, budget: f64) {
        if let Some(process) = self.processes.get_mut(&pid).filter(|process| process.budget != budget) {
            process.budget = budget;
            process.probes.set_budget(budget);
        }
    }

    /// What has happened to the processes of the host since the last call.
    pub fn events(&mut self, handle: impl FnMut(Event)) -> Result<()> {
        self.sampler.read(Duration::ZERO, self.alarm.as_fd(), handle)
    }

    /// When [`Self::look`] is to be called again.
    pub fn pause(&self) -> Duration {
        if self.is_calm { CALM_TICK } else { TICK }
    }

    /// Lets time pass, and keeps the budgets meanwhile.
    pub fn run_until(&mut self, end: Instant) -> Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            std::thread::sleep(self.pause().min(end - now));
            self.look()?;
        }
    }

    /// Keeps the budgets: to be called after every [`Self::pause`].
    pub fn look(&mut self) -> Result<()> {
        self.free_slots();
        let hits = self.sampler.hits()?;
        self.unshared += hits.saturating_sub(self.hits);
        self.hits = hits;
        let smallest = self.processes.values().map(|process| process.budget).fold(f64::INFINITY, f64::min);
        let is_cheap = self.unshared as f64 * self.hit_cost.as_secs_f64() < CALM * smallest;
        // Where probes go, for how long they were set is to be known exactly.
        let is_steady = self.processes.values().all(|process| process.probes.is_set() || process.probes.is_away());
        self.is_calm = is_cheap && is_steady;
        if self.is_calm && self.shared.elapsed() < SHARE_OUT {
            return Ok(());
        }
        self.share_out()
    }

    /// Tells each process's governor of its hits.
    fn share_out(&mut self) -> Result<()> {
        (self.unshared, self.shared) = (0, Instant::now());
        let mut hits: BTreeMap<u32, u64> = BTreeMap::new();
        for (slot, timed) in (0..).zip(&mut self.slots) {
            let Some(timed) = timed else { continue };
            if self.processes.get(&timed.pid).is_some_and(|process| process.probes.is_away()) {
                continue;
            }
            let now = self.sampler.calls().hits(slot)?;
            *hits.entry(timed.pid).or_default() += now.saturating_sub(timed.hits);
            timed.hits = now;
        }
        for (&pid, process) in &mut self.processes {
            match process.probes.observe(&mut self.sampler, hits.get(&pid).copied().unwrap_or(0)) {
                Ok(Change::Gone) => self.sampler.calls().forget_open(pid),
                Ok(Change::Nothing) => {}
                // That it has ended is told by others.
                Err(error) if target::is_running(pid) => self.failed.push((pid, error)),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Processes whose probes could not be set again, and why; they are to be forgotten.
    pub fn take_failed(&mut self) -> Vec<(u32, anyhow::Error)> {
        std::mem::take(&mut self.failed)
    }

    /// Slots whose probes are gone can be used again.
    fn free_slots(&mut self) {
        let is_gone = |done: &Receiver<()>| done.try_recv() == Err(TryRecvError::Disconnected);
        let gone: Vec<Slot> = self.leaving.extract_if(.., |(_, done)| is_gone(done)).map(|(slot, _)| slot).collect();
        if !gone.is_empty() {
            self.sampler.calls().forget_functions(&gone);
            self.free.extend(gone);
        }
    }

    /// Every function with what is known of it.
    pub fn readings(&mut self) -> Result<Vec<(Slot, Reading)>> {
        self.share_out()?;
        let now_ns = monotonic_ns();
        let mut open: BTreeMap<Slot, (u64, Option<u64>)> = BTreeMap::new();
        let slots = &self.slots;
        // A slot may have been another function's before.
        let is_its_own = |call: &OpenCall| {
            let timed = slots.get(call.function as usize).and_then(Option::as_ref);
            timed.is_some_and(|timed| timed.pid == call.pid && timed.since_ns <= call.since_ns)
        };
        for call in self.sampler.calls().open()?.into_iter().filter(|call| is_its_own(call) && is_going_on(call)) {
            let (count, oldest) = open.entry(call.function).or_default();
            *count += 1;
            *oldest = (*oldest).max(Some(now_ns.saturating_sub(call.since_ns)));
        }
        let mut readings = Vec::new();
        for (slot, timed) in (0..).zip(&self.slots) {
            let Some(timed) = timed else { continue };
            let Some(process) = self.processes.get(&timed.pid) else { continue };
            let is_set = process.probes.is_set();
            readings.push((
                slot,
                Reading {
                    figures: self.sampler.calls().figures(slot)?,
                    elapsed: timed.since.elapsed(),
                    attached: process.probes.attached().saturating_sub(timed.attached_before),
                    is_set,
                    in_flight: open.get(&slot).copied().filter(|_| is_set).unwrap_or_default(),
                },
            ));
        }
        Ok(readings)
    }

    /// What was seen so far, for people.
    pub fn rows(&mut self) -> Result<Vec<Row>> {
        let readings = self.readings()?;
        let rows = readings.into_iter().filter_map(|(slot, reading)| {
            let timed = self.slots.get(slot as usize)?.as_ref()?;
            let frame = Frame {
                elapsed: reading.elapsed,
                attached_share: (reading.attached.as_secs_f64() / reading.elapsed.as_secs_f64()).min(1.0),
                in_flight: reading.in_flight,
                has_threshold: timed.function.has_threshold,
            };
            Some(Row::new(timed.pid, &timed.function.name, &reading.figures, &frame))
        });
        Ok(rows.collect())
    }
}

impl Drop for Timer {
    /// The kernel takes some 100 ms for each probe: all at once, not one after the other.
    fn drop(&mut self) {
        let processes = std::mem::take(&mut self.processes);
        let ends = processes.into_values().map(|process| process.probes.end());
        let ends: Vec<Receiver<()>> = ends.chain(self.leaving.drain(..).map(|(_, done)| done)).collect();
        let deadline = Instant::now() + LAST_PATIENCE;
        for end in ends {
            let _ = end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}
