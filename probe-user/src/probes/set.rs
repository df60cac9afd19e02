//! `ProbeSet`: probes that are set and taken away together, as a governor says.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::governor::{Governor, Verdict};
use crate::kernel::{Probe, Role, Sampler};

/// A probe that is to be set.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The file.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// What it is for.
    pub role: Role,
    /// What the programs know it by.
    pub number: u32,
}

/// What has become of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    Nothing,
    /// They are gone: whatever was going on when they went, nobody has seen its end.
    Gone,
}

/// Probes in a process.
pub struct ProbeSet {
    pid: u32,
    /// In the order in which they are set.
    wanted: Vec<Wanted>,
    governor: Governor,
    state: State,
    /// They are to be set again as soon as they are gone.
    is_due: bool,
    started: Instant,
    looked: Instant,
    hits: u64,
    /// Hits a second when the probes were last set.
    rate: f64,
    /// Time in which the probes were set.
    attached: Duration,
}

enum State {
    /// With their numbers.
    Set(Vec<(u32, Probe)>),
    /// They are on their way out; the channel tells when the kernel is done.
    Leaving(Receiver<()>),
    Away,
}

impl ProbeSet {
    /// No probes yet.
    pub fn new(pid: u32, governor: Governor) -> Self {
        let now = Instant::now();
        Self {
            pid,
            wanted: Vec::new(),
            governor,
            state: State::Set(Vec::new()),
            is_due: false,
            started: now,
            looked: now,
            hits: 0,
            rate: 0.0,
            attached: Duration::ZERO,
        }
    }

    /// Sets the probes, in their order.
    pub fn set(sampler: &mut Sampler, pid: u32, wanted: Vec<Wanted>, governor: Governor) -> Result<Self> {
        let mut set = Self { wanted, hits: sampler.hits()?, ..Self::new(pid, governor) };
        set.set_all(sampler)?;
        set.started = Instant::now();
        set.looked = set.started;
        Ok(set)
    }

    /// Sets further probes, in their order; later, if the others are away.
    pub fn add(&mut self, sampler: &mut Sampler, wanted: Vec<Wanted>) -> Result<()> {
        if let State::Set(set) = &mut self.state {
            set.extend(set_these(sampler, self.pid, &wanted)?);
        }
        self.wanted.extend(wanted);
        Ok(())
    }

    /// Takes the probes of a number away; the channel is closed when the kernel is done with it.
    pub fn remove(&mut self, number: u32) -> Receiver<()> {
        self.wanted.retain(|probe| probe.number != number);
        let mut probes = Vec::new();
        if let State::Set(set) = &mut self.state {
            let (leaving, staying) = std::mem::take(set).into_iter().partition(|(other, _)| *other == number);
            (probes, *set) = (leaving, staying);
        }
        drop_all(probes)
    }

    /// Takes all away, for good; the channel is closed when the kernel is done with it.
    pub fn end(self) -> Receiver<()> {
        match self.state {
            State::Set(probes) => drop_all(probes),
            State::Leaving(done) => done,
            State::Away => drop_all(Vec::new()),
        }
    }

    /// True without any probe.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// True while none is there, for want of budget.
    pub fn is_away(&self) -> bool {
        matches!(self.state, State::Away)
    }

    /// Another share of one core that they may cost.
    pub fn set_budget(&mut self, budget: f64) {
        self.governor.set_budget(budget);
    }

    /// The time in which they were set.
    pub fn attached(&self) -> Duration {
        self.attached
    }

    /// Since when they are watched over.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// True while the probes are set.
    pub fn is_set(&self) -> bool {
        matches!(self.state, State::Set(_))
    }

    /// The share of the time in which they were set, from 0 to 1.
    pub fn attached_share(&self) -> f64 {
        (self.attached.as_secs_f64() / self.elapsed().as_secs_f64()).min(1.0)
    }

    /// Keeps the budget: to be called every few milliseconds, because until then more than the budget may be spent. All
    /// hits of the programs are taken to be of these probes.
    pub fn look(&mut self, sampler: &mut Sampler) -> Result<Change> {
        let hits = sampler.hits()?;
        let new = hits.saturating_sub(self.hits);
        self.hits = hits;
        self.observe(sampler, new)
    }

    /// The same for one of several sets, that had so many hits since the last look.
    pub fn observe(&mut self, sampler: &mut Sampler, new: u64) -> Result<Change> {
        let elapsed = self.looked.elapsed();
        self.looked = Instant::now();
        let (mut cost, mut change) = (new, Change::Nothing);
        match &self.state {
            State::Set(_) => {
                self.attached += elapsed;
                self.rate = new as f64 / elapsed.as_secs_f64().max(1e-6);
            }
            // The kernel first takes the program from a probe, then waits some 100 ms, then takes the probe: meanwhile it
            // costs what it did, and nobody counts (kernel/trace/bpf_trace.c, perf_event_detach_bpf_prog).
            State::Leaving(done) if done.try_recv() == Err(TryRecvError::Empty) => {
                if new > 0 {
                    self.attached += elapsed;
                }
                cost = new.max((self.rate * elapsed.as_secs_f64()) as u64);
            }
            State::Leaving(_) => {
                self.state = State::Away;
                change = Change::Gone;
            }
            State::Away => {}
        }
        match self.governor.observe(cost, elapsed) {
            Verdict::TakeAway => self.take_away(),
            Verdict::SetAgain => self.is_due = true,
            Verdict::AsTheyAre => {}
        }
        // Whoever is told that they are gone has until the next look to forget what they saw last.
        if self.is_due && change == Change::Nothing && matches!(self.state, State::Away) {
            self.is_due = false;
            self.set_all(sampler)?;
        }
        Ok(change)
    }

    fn set_all(&mut self, sampler: &mut Sampler) -> Result<()> {
        let probes = set_these(sampler, self.pid, &self.wanted)?;
        // What setting them took is no time in which they could see.
        self.looked = Instant::now();
        self.state = State::Set(probes);
        Ok(())
    }

    /// Off this thread: the kernel waits some 100 ms for each.
    fn take_away(&mut self) {
        let State::Set(probes) = std::mem::replace(&mut self.state, State::Away) else { return };
        self.state = State::Leaving(drop_all(probes));
    }
}

/// All or none.
fn set_these(sampler: &mut Sampler, pid: u32, wanted: &[Wanted]) -> Result<Vec<(u32, Probe)>> {
    let mut probes = Vec::with_capacity(wanted.len());
    for Wanted { file, offset, role, number } in wanted {
        match sampler.probe(pid, file, *offset, *number, *role) {
            Ok(probe) => probes.push((*number, probe)),
            Err(error) => {
                drop_all(probes);
                return Err(error);
            }
        }
    }
    Ok(probes)
}

/// Each on a thread of its own; the channel is closed when the last is gone.
fn drop_all(probes: Vec<(u32, Probe)>) -> Receiver<()> {
    let (tell, done) = channel();
    for probe in probes {
        let tell = tell.clone();
        std::thread::spawn(move || {
            drop(probe);
            drop(tell);
        });
    }
    done
}
