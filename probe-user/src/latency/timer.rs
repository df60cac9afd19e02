//! `Timer`: times functions of a process: has their probes set within the budget, and reads what they saw.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::open;
use super::row::{Frame, Row};
use super::sites::Sites;
use crate::kernel::{self, Judgement, Role, Sampler, SpanKeys, WaitFilter, Wanted, error_test, feature};
use crate::probes::{self, ProbeSet};
use crate::target::monotonic_ns;

/// How often hits are looked at: at most this long more than the budget is spent.
const TICK: Duration = Duration::from_millis(5);

/// A place where a probe is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The file.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// What it is for.
    pub role: Role,
    /// Where in the file the counter is by which a program knows that somebody listens; a static tracepoint may have one.
    pub semaphore: Option<u64>,
}

/// A function or a span to be timed.
#[derive(Clone, Debug)]
pub struct Function {
    /// What it is called in the results.
    pub name: String,
    /// Where probes are set.
    pub places: Vec<At>,
    /// How its calls are judged.
    pub judgement: Judgement,
    /// Whether there is a threshold.
    pub has_threshold: bool,
    /// By which values a span is paired.
    pub span: Option<SpanKeys>,
}

impl Function {
    /// True for another name of the same function.
    pub fn same_place(&self, other: &Self) -> bool {
        self.places == other.places
    }

    /// How its calls are judged, and which figures that needs.
    fn judgement(&self) -> Judgement {
        let Judgement { error_test, mut features, .. } = self.judgement;
        features |= feature::HISTOGRAM;
        if self.has_threshold {
            features |= feature::ATTAINMENT;
        }
        if error_test != error_test::NEVER {
            features |= feature::ERRORS;
        }
        Judgement { features, ..self.judgement }
    }

    /// Its probes. Returns first: a call whose beginning is seen has its end seen.
    fn wanted(&self, number: u32) -> impl Iterator<Item = Wanted> {
        let in_order = self.places.iter().rev();
        in_order.map(move |At { file, offset, role, semaphore }| Wanted {
            file: file.clone(),
            offset: *offset,
            role: *role,
            number,
            semaphore: *semaphore,
        })
    }
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
    sites: Sites,
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
        })?;
        let hit_cost = probes::measure_hit(&mut sampler, functions.len() as u32)?;
        tracing::debug!(?hit_cost, "a hit of a probe");
        for (number, function) in (0..).zip(&functions) {
            sampler.calls().judge(number, function.judgement())?;
            if let Some(keys) = function.span {
                sampler.calls().pair(number, keys)?;
            }
        }
        let groups = (0..).zip(&functions).map(|(number, function)| function.wanted(number).collect()).collect();
        let probes = ProbeSet::set(&mut sampler, options.pid, groups, options.budget, hit_cost)?;
        Ok(Self { sampler, functions, hit_cost, probes, sites: Sites::default() })
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
        let gone: Vec<u32> = self.probes.look(&mut self.sampler)?.into_iter().map(|group| group as u32).collect();
        if !gone.is_empty() {
            self.sampler.calls().forget_open(&gone);
        }
        for site in self.sampler.calls().new_sites() {
            if let Some(wanted) = self.sites.wanted(site) {
                self.probes.add(&mut self.sampler, site.function as usize, vec![wanted])?;
                self.sampler.calls().site_is_set(site)?;
            }
        }
        Ok(())
    }

    /// What was seen so far.
    pub fn rows(&mut self) -> Result<Vec<Row>> {
        self.look()?;
        let now_ns = monotonic_ns();
        // Of each function or span that is going on: its number, and since when. Those of earlier windows have had nobody
        // who sees their end.
        let mut open: Vec<(u32, u64)> = open::since(self.sampler.calls())?;
        open.retain(|(function, since_ns)| {
            self.probes.set_since(*function as usize).is_some_and(|since| *since_ns >= since)
        });
        let elapsed = self.probes.elapsed();
        let rows = (0..).zip(&self.functions).map(|(number, function)| {
            let calls = || open.iter().filter(|(function, _)| *function == number);
            let oldest_ns = calls().map(|(_, since_ns)| now_ns.saturating_sub(*since_ns)).max();
            let frame = Frame {
                elapsed,
                attached_share: self.probes.attached_share(number as usize),
                in_flight: (calls().count() as u64, oldest_ns),
                has_threshold: function.has_threshold,
                is_timed: function.judgement.features & feature::COUNT == 0,
            };
            Ok(Row::new(&function.name, &self.sampler.calls().figures(number)?, &frame))
        });
        rows.collect()
    }
}
