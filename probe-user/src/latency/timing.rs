//! `Timing`: what is timed in processes, and by which numbers the kernel knows it: has the probes set within the budget of
//! each process, and reads what they saw. A function of a process has a slot: a number in the kernel's maps, which is used
//! again when its probes are gone. The kernel programs are lent to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::estimate::Account;
use super::function::Function;
use super::meter::Meter;
use super::open;
use super::part::Part;
use super::row::Frame;
use super::sites::Sites;
use crate::kernel::{Figures, Judgement, Role, Sampler, feature};
use crate::probes::{self, ProbeSet};
use crate::target::{self, monotonic_ns};

/// How often hits are looked at: at most this long more than the budget is spent.
pub const TICK: Duration = Duration::from_millis(5);
/// And as long as much is left of it.
const CALM_TICK: Duration = Duration::from_millis(100);
/// A process whose probes nothing hits is passed over for so long.
const REST: Duration = Duration::from_millis(500);
/// How long the end waits for probes to go. What is left then goes with the process.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A function of a process, as the kernel knows it.
pub type Slot = u32;

/// Probes, and what they saw.
pub struct Timing {
    hit_cost: Duration,
    processes: BTreeMap<u32, Process>,
    slots: Vec<Option<Timed>>,
    /// Slots that were never used, or are clear again; the longest unused first.
    free: VecDeque<Slot>,
    /// Slots whose probes are on their way out.
    leaving: Vec<(Slot, Receiver<Instant>)>,
    failed: Vec<(u32, anyhow::Error)>,
    meter: Meter,
    /// There is little to look after.
    is_calm: bool,
    /// Hits by slot, as they were told last, and when.
    hits: Vec<u64>,
    looked: Instant,
    /// The same at the look before.
    hits_were: Vec<u64>,
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
    /// Why its probes are away for good.
    problem: String,
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
    /// What is known for the rest of the time.
    pub account: Account,
    /// Whether they are set now.
    pub is_set: bool,
    /// Calls that have not returned, and the age of the oldest in nanoseconds; known while the probes are set.
    pub in_flight: (u64, Option<u64>),
    /// Why it is no longer timed; empty as long as it is.
    pub problem: String,
}

impl Timing {
    /// With room for so many functions of processes: for programs that were loaded with room for one more. Measures what a
    /// hit costs.
    pub fn new(sampler: &mut Sampler, slots: u32) -> Result<Self> {
        let hit_cost = probes::measure_hit(sampler, slots)?;
        tracing::debug!(?hit_cost, slots, "a hit of a probe");
        Ok(Self {
            hit_cost,
            processes: BTreeMap::new(),
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).collect(),
            leaving: Vec::new(),
            failed: Vec::new(),
            meter: Meter::default(),
            is_calm: false,
            hits: sampler.hits(),
            looked: Instant::now(),
            hits_were: Vec::new(),
        })
    }

    /// What one hit of a probe costs on this host.
    pub fn hit_cost(&self) -> Duration {
        self.hit_cost
    }

    /// Times a function of a process, whose probes together may cost this share of one core. `None` when all slots are in
    /// use.
    pub fn add(&mut self, sampler: &mut Sampler, pid: u32, function: Function, budget: f64) -> Result<Option<Slot>> {
        let Some(&slot) = self.free.front() else { return Ok(None) };
        sampler.calls().clear(slot)?;
        sampler.calls().judge(slot, function.judgement())?;
        if let Some(keys) = function.span {
            sampler.calls().pair(slot, keys)?;
        }
        self.meter.begin(slot, pid, function.judgement(), self.hit_cost);
        let meter = self.meter.clone();
        let switch: probes::Switch = Box::new(move |sampler, slot, moment| meter.hear(sampler, slot, moment));
        let probes = || ProbeSet::new(pid, budget, self.hit_cost).switched(switch);
        let process =
            self.processes.entry(pid).or_insert_with(|| Process { probes: probes(), budget, sites: Sites::default() });
        if let Err(error) = process.probes.add_group(sampler, slot, function.wanted(slot)) {
            self.meter.end(slot);
            self.forget_empty(pid);
            return Err(error);
        }
        // Each call has one of both, but where a frame may begin again.
        let is_apart = |role: Role| matches!(role, Role::Enter | Role::Leave);
        let has_both = function.spots.iter().all(|spot| is_apart(spot.role)) && function.spots.len() > 1;
        // Set one by one, each turn would be many changes of the target's code.
        let is_cheap = sampler.sets_many_at_once();
        if is_cheap
            && has_both
            && function.features & (feature::GO | feature::LOOPS | feature::SITES | feature::PARK) == 0
        {
            process.probes.set_in_parts(slot);
        }
        self.free.pop_front();
        self.slots[slot as usize] = Some(Timed { pid, function, since: Instant::now(), problem: String::new() });
        self.set_budget(pid, budget);
        Ok(Some(slot))
    }

    /// Judges its calls in another way from now on.
    pub fn judge(
        &mut self,
        sampler: &mut Sampler,
        slot: Slot,
        judgement: Judgement,
        has_threshold: bool,
    ) -> Result<()> {
        if let Some(Some(timed)) = self.slots.get_mut(slot as usize) {
            (timed.function.judgement, timed.function.has_threshold) = (judgement, has_threshold);
            self.meter.judge(sampler, slot, timed.function.judgement())?;
        }
        Ok(())
    }

    /// Ends timing a function; its slot is free when the kernel is done with the probes.
    pub fn remove(&mut self, slot: Slot) {
        let Some(timed) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.meter.end(slot);
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

    /// The slots of a process.
    pub fn slots_of(&self, pid: u32) -> Vec<Slot> {
        let of_process = |timed: &Option<Timed>| timed.as_ref().is_some_and(|timed| timed.pid == pid);
        (0..).zip(&self.slots).filter(|(_, timed)| of_process(timed)).map(|(slot, _)| slot).collect()
    }

    /// Ends timing a process. It may be gone already.
    pub fn forget(&mut self, pid: u32) {
        for slot in self.slots_of(pid) {
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

    /// When [`Self::look`] is to be called again.
    pub fn pause(&self) -> Duration {
        if self.is_calm { CALM_TICK } else { TICK }
    }

    /// Keeps the budgets: to be called after every [`Self::pause`].
    pub fn look(&mut self, sampler: &mut Sampler) -> Result<()> {
        self.look_at(sampler, REST)
    }

    /// Passes over a process that is at rest, unless it was for so long.
    fn look_at(&mut self, sampler: &mut Sampler, rest: Duration) -> Result<()> {
        self.free_slots(sampler);
        std::mem::swap(&mut self.hits, &mut self.hits_were);
        sampler.read_hits(&mut self.hits);
        let now = Instant::now();
        let looked_were = std::mem::replace(&mut self.looked, now);
        let (hits, hits_were) = (&self.hits, &self.hits_were);
        let has_news = |(slot, now): (usize, &u64)| (hits_were.get(slot) != Some(now)).then_some(slot);
        let pid_of = |slot: usize| Some(self.slots.get(slot)?.as_ref()?.pid);
        let hit: BTreeSet<u32> = hits.iter().enumerate().filter_map(has_news).filter_map(pid_of).collect();
        for (&pid, process) in &mut self.processes {
            let mut observed = Ok(Vec::new());
            if let Some(at) = process.probes.at_rest_since() {
                if !hit.contains(&pid) && now.saturating_duration_since(at) < rest {
                    continue;
                }
                // What there was until the look before is no part of what there is now: a burst is as fast as it is.
                if at < looked_were {
                    observed = process.probes.observe(sampler, hits_were, looked_were);
                }
            }
            observed = observed.and_then(|mut gone| {
                gone.extend(process.probes.observe(sampler, hits, now)?);
                Ok(gone)
            });
            for (slot, refused) in process.probes.take_refused() {
                if let Some(Some(timed)) = self.slots.get_mut(slot as usize) {
                    timed.problem = refused.to_string();
                }
            }
            match observed {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => sampler.calls().forget_spans(&gone),
                // That it has ended is told by others.
                Err(error) if target::is_running(pid) => self.failed.push((pid, error)),
                Err(_) => {}
            }
        }
        // Each by its own budget: many that cost little together are no reason to hurry. Where probes go, for how long they were
        // set is to be known exactly.
        let is_calm = |process: &Process| process.probes.is_steady() && process.probes.has_reserve();
        self.is_calm = self.processes.values().all(is_calm);
        self.meter.look(sampler)?;
        self.set_sites(sampler)
    }

    /// Sets probes where functions return to, as the places turn up.
    fn set_sites(&mut self, sampler: &mut Sampler) -> Result<()> {
        for site in sampler.calls().new_sites() {
            let is_its_own = |timed: &Timed| timed.pid == site.tgid;
            if !self.slots.get(site.function as usize).and_then(Option::as_ref).is_some_and(is_its_own) {
                continue;
            }
            let Some(process) = self.processes.get_mut(&site.tgid) else { continue };
            let Some(wanted) = process.sites.spot(site).and_then(|spot| spot.wanted(site.function)) else { continue };
            match process.probes.add(sampler, site.function, vec![wanted]) {
                Ok(()) => sampler.calls().site_is_set(site)?,
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
    fn free_slots(&mut self, sampler: &mut Sampler) {
        let is_gone = |done: &Receiver<Instant>| {
            std::iter::from_fn(|| done.try_recv().ok()).for_each(drop);
            done.try_recv() == Err(TryRecvError::Disconnected)
        };
        let gone: Vec<Slot> = self.leaving.extract_if(.., |(_, done)| is_gone(done)).map(|(slot, _)| slot).collect();
        if !gone.is_empty() {
            sampler.calls().forget_spans(&gone);
            sampler.calls().forget_callers(|pid| self.processes.contains_key(&pid));
            self.free.extend(gone);
        }
    }

    /// Every function with what is known of it, if its slot is wanted.
    pub fn readings(
        &mut self,
        sampler: &mut Sampler,
        is_wanted: impl Fn(Slot) -> bool,
    ) -> Result<Vec<(Slot, Reading)>> {
        self.look_at(sampler, Duration::ZERO)?;
        let now_ns = monotonic_ns();
        let mut open: BTreeMap<Slot, Vec<u64>> = BTreeMap::new();
        let has_spans = self.slots.iter().flatten().any(|timed| timed.function.span.is_some());
        for (slot, since_ns) in open::since(sampler.calls(), has_spans)? {
            open.entry(slot).or_default().push(since_ns);
        }
        let mut readings = Vec::new();
        for (slot, timed) in (0..).zip(&self.slots).filter(|(slot, _)| is_wanted(*slot)) {
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
                    figures: sampler.calls().figures(slot)?,
                    elapsed,
                    attached,
                    load: process.probes.load(slot),
                    account: self.meter.account(slot, process.probes.clean(slot)),
                    is_set: set_since.is_some(),
                    in_flight: (open().count() as u64, oldest_ns),
                    problem: timed.problem.clone(),
                },
            ));
        }
        Ok(readings)
    }

    /// What was seen so far, of those slots that are wanted.
    pub fn parts(&mut self, sampler: &mut Sampler, is_wanted: impl Fn(Slot) -> bool) -> Result<Vec<Part>> {
        let readings = self.readings(sampler, is_wanted)?;
        let parts = readings.into_iter().filter_map(|(slot, reading)| {
            let timed = self.slots.get(slot as usize)?.as_ref()?;
            let Reading { elapsed, attached, .. } = reading;
            let frame = Frame {
                elapsed,
                attached_share: (attached.as_secs_f64() / elapsed.as_secs_f64()).min(1.0),
                estimate: reading.account.estimate(reading.figures.calls, reading.figures.left, elapsed, attached),
                load: reading.load,
                in_flight: reading.in_flight,
                has_threshold: timed.function.has_threshold,
            };
            let Reading { figures, problem, .. } = reading;
            Some(Part { slot, pid: timed.pid, name: timed.function.name.clone(), figures, frame, problem })
        });
        Ok(parts.collect())
    }
}

impl Drop for Timing {
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
