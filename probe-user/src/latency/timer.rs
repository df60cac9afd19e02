//! `Timer`: times functions of a process: has their probes set within the budget, and reads what they saw.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::row::{Frame, Row};
use crate::kernel::{self, HeapOptions, Judgement, OpenCall, Role, Sampler, WaitFilter};
use crate::probes::{self, Change, Governor, ProbeSet, Wanted};
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

    /// Its probes. Returns first: a call whose beginning is seen has its end seen.
    fn wanted(&self, number: u32) -> impl Iterator<Item = Wanted> {
        let in_order = self.places.iter().rev();
        in_order.map(move |&(offset, role)| Wanted { file: self.file.clone(), offset, role, number })
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
    functions: Vec<Function>,
    hit_cost: Duration,
    probes: ProbeSet,
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
            // One more, to measure with.
            functions: functions.len() as u32 + 1,
            heap: HeapOptions::default(),
        })?;
        let hit_cost = probes::measure_hit(&mut sampler, functions.len() as u32)?;
        tracing::debug!(?hit_cost, "a hit of a probe");
        for (number, function) in (0..).zip(&functions) {
            sampler.calls().judge(number, function.judgement)?;
        }
        let governor = Governor::new(options.budget, hit_cost, monotonic_ns());
        let wanted = (0..).zip(&functions).flat_map(|(number, function)| function.wanted(number)).collect();
        let hits = sampler.hits()?;
        let probes = ProbeSet::set(&mut sampler, options.pid, wanted, governor, hits)?;
        Ok(Self { sampler, functions, hit_cost, probes })
    }

    /// What one hit of a probe costs on this host.
    pub fn hit_cost(&self) -> Duration {
        self.hit_cost
    }

    /// Since when it times.
    pub fn elapsed(&self) -> Duration {
        self.probes.elapsed()
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
        if self.probes.look(&mut self.sampler)? == Change::Gone {
            self.sampler.calls().forget_open();
        }
        Ok(())
    }

    /// What was seen so far.
    pub fn rows(&mut self) -> Result<Vec<Row>> {
        self.look()?;
        let now_ns = monotonic_ns();
        let open: Vec<OpenCall> = match self.probes.is_set() {
            true => self.sampler.calls().open()?.into_iter().filter(is_going_on).collect(),
            false => Vec::new(),
        };
        let (elapsed, attached_share) = (self.probes.elapsed(), self.probes.attached_share());
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
