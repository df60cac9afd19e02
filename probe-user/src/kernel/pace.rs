//! The pace of the samplers: all targets are sampled at one rate, those that are looked at closely at a higher one, by
//! perf events of their own. These are there only as long as such a target is.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::PerfEvent;
use aya::programs::perf_event::{
    HardwareEvent, PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use fastrand::Rng;
use probe_ebpf::abi::period;

use super::sampler::permission;
use super::{Clock, rhythm};
use crate::target::monotonic_ns;

/// Which targets are sampled faster, and by what.
pub(super) struct Pace {
    clock: Clock,
    random: Rng,
    /// By [`period`].
    periods: Array<MapData, u64>,
    usual: Tickers,
    /// Its frequency is 0 where no target is sampled faster.
    fast: Tickers,
    /// The targets that are.
    pids: BTreeSet<u32>,
}

/// The perf events of one rate.
#[derive(Debug)]
struct Tickers {
    /// The program that they run.
    program: &'static str,
    /// Index into the periods.
    period: u32,
    /// Samples per second and CPU.
    frequency: u64,
    /// None as long as nothing is sampled.
    all: Vec<Ticker>,
}

/// One of them.
#[derive(Debug)]
struct Ticker {
    cpu: u32,
    link: PerfEventLinkId,
    /// When it gets another period.
    until_ns: u64,
}

impl Pace {
    /// Nothing is sampled yet.
    pub(super) fn new(fast_frequency: u64, periods: Array<MapData, u64>) -> Self {
        let tickers = |program, period, frequency| Tickers { program, period, frequency, all: Vec::new() };
        Self {
            clock: Clock::CpuCycles,
            random: Rng::with_seed(monotonic_ns() ^ u64::from(std::process::id()).rotate_left(32)),
            periods,
            usual: tickers("sample", period::USUAL, 0),
            fast: tickers("sample_fast", period::FAST, fast_frequency),
            pids: BTreeSet::new(),
        }
    }

    /// Begins to sample on every CPU; says what makes the samples.
    pub(super) fn start(&mut self, ebpf: &mut Ebpf, frequency: u64) -> Result<Clock> {
        let load = |ebpf: &mut Ebpf, name| {
            let program = find(ebpf, name)?;
            program.load().map_err(|error| permission("load the sampler", error))
        };
        load(ebpf, self.usual.program)?;
        if self.fast.frequency > 0 {
            // It is checked now, which takes its time, and set when it is needed.
            load(ebpf, self.fast.program)?;
        }
        self.usual.frequency = frequency;
        if self.usual.begin(ebpf, self.clock, &mut self.random, &mut self.periods).is_err() {
            // Virtual machines often have no hardware counter.
            self.clock = Clock::CpuClock;
            self.usual.begin(ebpf, self.clock, &mut self.random, &mut self.periods)?;
        }
        tracing::debug!(clock = self.clock.name(), cpus = self.usual.all.len(), frequency, "sampling");
        Ok(self.clock)
    }

    /// Samples at another rate from now on. If that fails it stays as it was.
    pub(super) fn change(&mut self, ebpf: &mut Ebpf, frequency: u64) -> Result<()> {
        self.usual.change(ebpf, self.clock, frequency, &mut self.random, &mut self.periods)
    }

    /// The same of the fast targets.
    pub(super) fn change_fast(&mut self, ebpf: &mut Ebpf, frequency: u64) -> Result<()> {
        self.fast.change(ebpf, self.clock, frequency, &mut self.random, &mut self.periods)
    }

    /// Gives another period to each CPU that has had its own for long enough; see [`rhythm`].
    pub(super) fn vary(&mut self, ebpf: &mut Ebpf, now_ns: u64) -> Result<()> {
        // The kernel itself adjusts the period of a hardware counter, which stands still while a CPU is idle.
        if self.clock == Clock::CpuClock {
            self.usual.vary(ebpf, &mut self.random, now_ns)?;
            self.fast.vary(ebpf, &mut self.random, now_ns)?;
        }
        Ok(())
    }

    /// Is this target a fast one?
    pub(super) fn is_fast(&self, pid: u32) -> bool {
        self.pids.contains(&pid)
    }

    /// A target becomes fast, or is no longer. The perf events come with the first and go with the last.
    pub(super) fn set(&mut self, ebpf: &mut Ebpf, pid: u32, is_fast: bool) -> Result<()> {
        if is_fast {
            self.pids.insert(pid);
        } else {
            self.pids.remove(&pid);
        }
        if self.pids.is_empty() {
            self.fast.end(ebpf)?;
        } else if self.fast.all.is_empty() {
            // Of the same kind as the others: one of another could interrupt them.
            let result = self.fast.begin(ebpf, self.clock, &mut self.random, &mut self.periods);
            if result.is_err() {
                self.pids.clear();
            }
            result?;
            tracing::debug!(frequency = self.fast.frequency, "sampling faster");
        }
        Ok(())
    }
}

impl Tickers {
    /// Samples on every CPU from now on, at its frequency instead of another one before. If that fails all is as before.
    fn begin(
        &mut self,
        ebpf: &mut Ebpf,
        clock: Clock,
        random: &mut Rng,
        periods: &mut Array<MapData, u64>,
    ) -> Result<()> {
        let program = find(ebpf, self.program)?;
        let now_ns = monotonic_ns();
        let mut all = Vec::new();
        for cpu in aya::util::online_cpus().map_err(|(_, error)| error).context("cannot list the CPUs")? {
            match attach(program, clock, self.frequency, cpu, random) {
                Ok(link) => all.push(Ticker { cpu, link, until_ns: now_ns + rhythm::stretch_ns(true, random) }),
                Err(error) => {
                    detach(program, all)?;
                    return Err(error);
                }
            }
        }
        detach(program, std::mem::replace(&mut self.all, all))?;
        let period_ns = match clock {
            Clock::CpuCycles => 1_000_000_000u64.checked_div(self.frequency).unwrap_or(0),
            Clock::CpuClock => 0,
        };
        Ok(periods.set(self.period, period_ns, 0)?)
    }

    /// Samples at another frequency from now on, or when it begins. If that fails it stays as it was.
    fn change(
        &mut self,
        ebpf: &mut Ebpf,
        clock: Clock,
        frequency: u64,
        random: &mut Rng,
        periods: &mut Array<MapData, u64>,
    ) -> Result<()> {
        let before = std::mem::replace(&mut self.frequency, frequency);
        if before == frequency || self.all.is_empty() {
            return Ok(());
        }
        let result = self.begin(ebpf, clock, random, periods);
        if result.is_err() {
            self.frequency = before;
        }
        result
    }

    fn vary(&mut self, ebpf: &mut Ebpf, random: &mut Rng, now_ns: u64) -> Result<()> {
        for ticker in self.all.iter_mut().filter(|ticker| ticker.until_ns <= now_ns) {
            // Also if it fails, or a CPU that has gone would be tried again and again.
            ticker.until_ns = now_ns + rhythm::stretch_ns(false, random);
            let program = find(ebpf, self.program)?;
            let link = attach(program, Clock::CpuClock, self.frequency, ticker.cpu, random)?;
            program.detach(std::mem::replace(&mut ticker.link, link))?;
        }
        Ok(())
    }

    fn end(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        detach(find(ebpf, self.program)?, std::mem::take(&mut self.all))
    }
}

fn detach(program: &mut PerfEvent, tickers: Vec<Ticker>) -> Result<()> {
    for ticker in tickers {
        program.detach(ticker.link)?;
    }
    Ok(())
}

fn find<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut PerfEvent> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?.try_into()?)
}

fn attach(
    program: &mut PerfEvent,
    clock: Clock,
    frequency: u64,
    cpu: u32,
    random: &mut Rng,
) -> Result<PerfEventLinkId> {
    let (config, policy) = match clock {
        Clock::CpuCycles => (PerfEventConfig::Hardware(HardwareEvent::CpuCycles), SamplePolicy::Frequency(frequency)),
        // A fixed period keeps the timer exact; the frequency mode of a timer only adds jitter.
        Clock::CpuClock => (
            PerfEventConfig::Software(SoftwareEvent::CpuClock),
            SamplePolicy::Period(rhythm::period_ns(frequency, random)),
        ),
    };
    program
        .attach(config, PerfEventScope::AllProcessesOneCpu { cpu }, policy, false)
        .map_err(|error| permission(&format!("open a perf event on CPU {cpu}"), error))
}
