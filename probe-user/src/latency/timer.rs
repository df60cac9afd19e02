//! `Timer`: times functions of a process: sets their probes, lets the governor take them away, and reads what they saw.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cost;
use super::governor::{Governor, Verdict};
use super::row::{Frame, Row};
use crate::kernel::{self, Judgement, OpenCall, Probe, Role, Sampler, WaitFilter};
use crate::target::{self, monotonic_ns};

/// How often hits are looked at: at most this long more than the budget is spent.
const TICK: Duration = Duration::from_millis(5);

/// A function to be timed.
#[derive(Clone, Debug)]
pub struct Function {
    /// What it is called in the results.
    pub name: String,
    /// The file that has it.
    pub file: PathBuf,
    /// Places in the file where probes are set.
    pub places: Vec<(u64, Role)>,
    /// How its calls are judged.
    pub judgement: Judgement,
    /// Whether there is a threshold.
    pub has_threshold: bool,
}

impl Function {
    /// True for another name of the same function.
    pub fn same_place(&self, other: &Self) -> bool {
        self.file == other.file && self.places == other.places
    }
}

/// False for a call that its thread has left without a return, as far as that can be seen: threads that wait show where
/// their stack ends.
fn is_going_on(call: &OpenCall) -> bool {
    target::stack_pointer(call.pid, call.tid).is_none_or(|sp| !call.was_left(sp))
}

/// What to time, and how dearly.
#[derive(Clone, Debug)]
pub struct Options {
    /// The process.
    pub pid: u32,
    /// Share of one core that the probes may cost.
    pub budget: f64,
}

/// Probes, and what they saw.
pub struct Timer {
    sampler: Sampler,
    options: Options,
    functions: Vec<Function>,
    governor: Governor,
    hit_cost: Duration,
    state: State,
    started: Instant,
    looked: Instant,
    hits: u64,
    /// Hits a second when the probes were last set.
    rate: f64,
    /// Time in which the probes were set.
    attached: Duration,
}

enum State {
    Set(Vec<Probe>),
    /// They are on their way out; the channel tells when the kernel is done.
    Leaving(Receiver<()>),
    Away,
}

impl Timer {
    /// Measures what a hit costs and sets the probes.
    pub fn start(options: Options, functions: Vec<Function>) -> Result<Self> {
        let mut sampler = Sampler::load(&kernel::Options {
            frequency: 1,
            all: false,
            all_lifecycle: false,
            user_stacks: false,
            kernel_stacks: false,
            waits: WaitFilter::default(),
            faults: 0,
            // One more, to measure with.
            functions: functions.len() as u32 + 1,
        })?;
        let hit_cost = cost::measure(&mut sampler, functions.len() as u32)?;
        tracing::debug!(?hit_cost, "a hit of a probe");
        for (number, function) in (0..).zip(&functions) {
            sampler.calls().judge(number, function.judgement)?;
        }
        let governor = Governor::new(options.budget, hit_cost, monotonic_ns());
        let hits = sampler.hits()?;
        let now = Instant::now();
        let mut timer = Self {
            sampler,
            options,
            functions,
            governor,
            hit_cost,
            state: State::Away,
            started: now,
            looked: now,
            hits,
            rate: 0.0,
            attached: Duration::ZERO,
        };
        timer.set()?;
        timer.started = Instant::now();
        timer.looked = timer.started;
        Ok(timer)
    }

    /// What one hit of a probe costs on this host.
    pub fn hit_cost(&self) -> Duration {
        self.hit_cost
    }

    /// Since when it times.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets time pass, and keeps the budget meanwhile.
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

    fn look(&mut self) -> Result<()> {
        let hits = self.sampler.hits()?;
        let new = hits.saturating_sub(self.hits);
        let elapsed = self.looked.elapsed();
        (self.hits, self.looked) = (hits, Instant::now());
        let mut cost = new;
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
                // Nobody has seen them return.
                self.sampler.calls().forget_open();
            }
            State::Away => {}
        }
        match self.governor.observe(cost, elapsed) {
            Verdict::TakeAway => self.take_away(),
            Verdict::SetAgain => self.set()?,
            Verdict::AsTheyAre => {}
        }
        Ok(())
    }

    fn set(&mut self) -> Result<()> {
        if let State::Leaving(done) = &self.state {
            let _ = done.recv();
            self.sampler.calls().forget_open();
        }
        let mut probes = Vec::new();
        for (number, function) in (0..).zip(&self.functions) {
            // Returns first: a call whose beginning is seen has its end seen.
            let in_order = function.places.iter().rev();
            for &(offset, role) in in_order {
                probes.push(self.sampler.probe(self.options.pid, &function.file, offset, number, role)?);
            }
        }
        // What setting them took is no time in which they could see.
        self.looked = Instant::now();
        self.state = State::Set(probes);
        Ok(())
    }

    /// Off this thread, and all at once: the kernel waits some 100 ms for each.
    fn take_away(&mut self) {
        let State::Set(probes) = std::mem::replace(&mut self.state, State::Away) else { return };
        let (tell, done) = channel();
        for probe in probes {
            let tell = tell.clone();
            std::thread::spawn(move || {
                drop(probe);
                drop(tell);
            });
        }
        drop(tell);
        self.state = State::Leaving(done);
    }

    /// What was seen so far.
    pub fn rows(&mut self) -> Result<Vec<Row>> {
        self.look()?;
        let now_ns = monotonic_ns();
        let open: Vec<OpenCall> = match self.state {
            State::Set(_) => self.sampler.calls().open()?.into_iter().filter(is_going_on).collect(),
            State::Leaving(_) | State::Away => Vec::new(),
        };
        let elapsed = self.started.elapsed();
        let attached_share = (self.attached.as_secs_f64() / elapsed.as_secs_f64()).min(1.0);
        let rows = (0..).zip(&self.functions).map(|(number, function)| {
            let calls = || open.iter().filter(|call| call.function == number);
            let oldest_ns = calls().map(|call| now_ns.saturating_sub(call.since_ns)).max();
            let frame = Frame {
                elapsed,
                attached_share,
                in_flight: (calls().count() as u64, oldest_ns),
                has_threshold: function.has_threshold,
            };
            Ok(Row::new(&function.name, &self.sampler.calls().figures(number)?, &frame))
        });
        rows.collect()
    }
}
