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
use super::open;
use super::row::{Frame, Row};
use super::sites::Sites;
use crate::kernel::{self, Event, Figures, Judgement, Sampler, WaitFilter};
use crate::probes::{self, ProbeSet};
use crate::target::{self, monotonic_ns};

/// How often hits are looked at: at most this long more than the budget is spent.
pub const TICK: Duration = Duration::from_millis(5);
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
    leaving: Vec<(Slot, Receiver<Instant>)>,
    failed: Vec<(u32, anyhow::Error)>,
}

struct Process {
    probes: ProbeSet,
    budget: f64,
    sites: Sites,
}

struct Timed {
    pid: u32,
    function: Function,
    since: Instant,
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
    /// What they cost meanwhile, a share of one core.
    pub load: f64,
    /// Whether they are set now.
    pub is_set: bool,
    /// Calls that have not returned, and the age of the oldest in nanoseconds; known while the probes are set.
    pub in_flight: (u64, Option<u64>),
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
            sampler,
            alarm: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot make an eventfd")?,
            hit_cost,
            processes: BTreeMap::new(),
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).collect(),
            leaving: Vec::new(),
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
        self.sampler.calls().judge(slot, function.judgement())?;
        if let Some(keys) = function.span {
            self.sampler.calls().pair(slot, keys)?;
        }
        let probes = || ProbeSet::new(pid, budget, self.hit_cost);
        let process =
            self.processes.entry(pid).or_insert_with(|| Process { probes: probes(), budget, sites: Sites::default() });
        if let Err(error) = process.probes.add_group(&mut self.sampler, slot, function.wanted(slot)) {
            self.forget_empty(pid);
            return Err(error);
        }
        self.free.pop_front();
        self.slots[slot as usize] = Some(Timed { pid, function, since: Instant::now() });
        self.set_budget(pid, budget);
        Ok(Some(slot))
    }

    /// Judges its calls in another way from now on.
    pub fn judge(&mut self, slot: Slot, judgement: Judgement, has_threshold: bool) -> Result<()> {
        if let Some(Some(timed)) = self.slots.get_mut(slot as usize) {
            (timed.function.judgement, timed.function.has_threshold) = (judgement, has_threshold);
            self.sampler.calls().judge(slot, timed.function.judgement())?;
        }
        Ok(())
    }

    /// Ends timing a function; its slot is free when the kernel is done with the probes.
    pub fn remove(&mut self, slot: Slot) {
        let Some(timed) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Some(process) = self.processes.get_mut(&timed.pid) {
            process.sites.forget(slot);
            self.leaving.extend(process.probes.remove(slot).map(|done| (slot, done)));
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

    /// Lets time pass, and keeps the budgets meanwhile.
    pub fn run_until(&mut self, end: Instant) -> Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            std::thread::sleep(TICK.min(end - now));
            self.look()?;
        }
    }

    /// Keeps the budgets: to be called every [`TICK`].
    pub fn look(&mut self) -> Result<()> {
        self.free_slots();
        let hits = self.sampler.hits()?;
        for (&pid, process) in &mut self.processes {
            match process.probes.observe(&mut self.sampler, &hits) {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => self.sampler.calls().forget_open(&gone),
                // That it has ended is told by others.
                Err(error) if target::is_running(pid) => self.failed.push((pid, error)),
                Err(_) => {}
            }
        }
        self.set_sites()
    }

    /// Sets probes where functions return to, as the places turn up.
    fn set_sites(&mut self) -> Result<()> {
        for site in self.sampler.calls().new_sites() {
            let is_its_own = |timed: &Timed| timed.pid == site.tgid;
            if !self.slots.get(site.function as usize).and_then(Option::as_ref).is_some_and(is_its_own) {
                continue;
            }
            let Some(process) = self.processes.get_mut(&site.tgid) else { continue };
            let Some(wanted) = process.sites.spot(site).and_then(|spot| spot.wanted(site.function)) else { continue };
            match process.probes.add(&mut self.sampler, site.function, vec![wanted]) {
                Ok(()) => self.sampler.calls().site_is_set(site)?,
                Err(error) => tracing::debug!("the end of calls is not seen at {:#x}: {error:#}", site.address),
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
        let is_gone = |done: &Receiver<Instant>| {
            std::iter::from_fn(|| done.try_recv().ok()).for_each(drop);
            done.try_recv() == Err(TryRecvError::Disconnected)
        };
        let gone: Vec<Slot> = self.leaving.extract_if(.., |(_, done)| is_gone(done)).map(|(slot, _)| slot).collect();
        if !gone.is_empty() {
            self.sampler.calls().forget_open(&gone);
            self.free.extend(gone);
        }
    }

    /// Every function with what is known of it.
    pub fn readings(&mut self) -> Result<Vec<(Slot, Reading)>> {
        self.look()?;
        let now_ns = monotonic_ns();
        let mut open: BTreeMap<Slot, Vec<u64>> = BTreeMap::new();
        for (slot, since_ns) in open::since(self.sampler.calls())? {
            open.entry(slot).or_default().push(since_ns);
        }
        let mut readings = Vec::new();
        for (slot, timed) in (0..).zip(&self.slots) {
            let Some(timed) = timed else { continue };
            let Some(process) = self.processes.get(&timed.pid) else { continue };
            let set_since = process.probes.set_since(slot);
            // Those of earlier windows have had nobody who sees their end.
            let is_seen = |since_ns: &&u64| set_since.is_some_and(|set_since| **since_ns >= set_since);
            let open = || open.get(&slot).into_iter().flatten().filter(is_seen);
            let oldest_ns = open().min().map(|since_ns| now_ns.saturating_sub(*since_ns));
            let elapsed = timed.since.elapsed();
            // Where all calls are seen, none is added for the moments between two looks at the clock.
            let attached = if process.probes.is_always_set(slot) { elapsed } else { process.probes.attached(slot) };
            readings.push((
                slot,
                Reading {
                    figures: self.sampler.calls().figures(slot)?,
                    elapsed,
                    attached,
                    load: process.probes.load(slot),
                    is_set: set_since.is_some(),
                    in_flight: (open().count() as u64, oldest_ns),
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
                load: reading.load,
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
        let ends = processes.into_values().flat_map(|process| process.probes.end());
        let ends: Vec<Receiver<Instant>> = ends.chain(self.leaving.drain(..).map(|(_, done)| done)).collect();
        let deadline = Instant::now() + LAST_PATIENCE;
        for end in ends {
            while end.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        }
    }
}
