//! The pace of the samplers: all targets are sampled at one rate, those that are looked at closely at a higher one, by
//! perf events of their own. These are there only as long as such a target is.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::PerfEvent;
use aya::programs::perf_event::{
    HardwareEvent, PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};

use super::Clock;
use super::sampler::permission;

/// Which targets are sampled faster, and by what.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    /// Samples per second and CPU of the fast ones; 0 where there are none.
    frequency: u64,
    fast: BTreeSet<u32>,
    links: Vec<PerfEventLinkId>,
    /// Of the usual samplers.
    usual: Vec<PerfEventLinkId>,
}

impl Pace {
    /// Nothing is fast yet.
    pub(super) fn new(frequency: u64) -> Self {
        Self { clock: Clock::CpuCycles, frequency, fast: BTreeSet::new(), links: Vec::new(), usual: Vec::new() }
    }

    /// Begins to sample on every CPU; says what makes the samples.
    pub(super) fn start(&mut self, ebpf: &mut Ebpf, frequency: u64) -> Result<Clock> {
        let program = program(ebpf, "sample")?;
        let cpus = online()?;
        for (index, &cpu) in cpus.iter().enumerate() {
            let attached = attach(program, self.clock, frequency, cpu);
            let link = if index == 0 && attached.is_err() {
                // Virtual machines often have no hardware counter.
                self.clock = Clock::CpuClock;
                attach(program, self.clock, frequency, cpu)
            } else {
                attached
            }?;
            self.usual.push(link);
        }
        if self.frequency > 0 {
            // It is checked now, which takes its time, and set when it is needed.
            self::program(ebpf, "sample_fast")?;
        }
        tracing::debug!(clock = self.clock.name(), cpus = cpus.len(), frequency, "sampling");
        Ok(self.clock)
    }

    /// Samples at another rate from now on. If that fails it stays as it was.
    pub(super) fn change(&mut self, ebpf: &mut Ebpf, frequency: u64) -> Result<()> {
        let program = find(ebpf, "sample")?;
        let mut links = Vec::new();
        for cpu in online()? {
            match attach(program, self.clock, frequency, cpu) {
                Ok(link) => links.push(link),
                Err(error) => {
                    for link in links {
                        program.detach(link)?;
                    }
                    return Err(error);
                }
            }
        }
        for link in std::mem::replace(&mut self.usual, links) {
            program.detach(link)?;
        }
        Ok(())
    }

    /// Is this target a fast one?
    pub(super) fn is_fast(&self, pid: u32) -> bool {
        self.fast.contains(&pid)
    }

    /// A target becomes fast, or is no longer. The perf events come with the first and go with the last.
    pub(super) fn set(&mut self, ebpf: &mut Ebpf, pid: u32, is_fast: bool) -> Result<()> {
        if is_fast {
            self.fast.insert(pid);
        } else {
            self.fast.remove(&pid);
        }
        if self.fast.is_empty() {
            let program: &mut PerfEvent = find(ebpf, "sample_fast")?;
            for link in self.links.drain(..) {
                program.detach(link)?;
            }
        } else if self.links.is_empty() {
            let (clock, frequency) = (self.clock, self.frequency);
            let program = find(ebpf, "sample_fast")?;
            for cpu in online()? {
                // Of the same kind as the others: one of another could interrupt them.
                match attach(program, clock, frequency, cpu) {
                    Ok(link) => self.links.push(link),
                    Err(error) => {
                        self.fast.clear();
                        for link in self.links.drain(..) {
                            program.detach(link)?;
                        }
                        return Err(error);
                    }
                }
            }
            tracing::debug!(frequency, "sampling faster");
        }
        Ok(())
    }
}

fn find<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut PerfEvent> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?.try_into()?)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut PerfEvent> {
    let program = find(ebpf, name)?;
    program.load().map_err(|error| permission("load the sampler", error))?;
    Ok(program)
}

fn online() -> Result<Vec<u32>> {
    aya::util::online_cpus().map_err(|(_, error)| error).context("cannot list the CPUs")
}

fn attach(program: &mut PerfEvent, clock: Clock, frequency: u64, cpu: u32) -> Result<PerfEventLinkId> {
    let (config, policy) = match clock {
        Clock::CpuCycles => (PerfEventConfig::Hardware(HardwareEvent::CpuCycles), SamplePolicy::Frequency(frequency)),
        // A fixed period keeps the timer exact; the frequency mode of a timer only adds jitter.
        Clock::CpuClock => {
            (PerfEventConfig::Software(SoftwareEvent::CpuClock), SamplePolicy::Period(1_000_000_000 / frequency))
        }
    };
    program
        .attach(config, PerfEventScope::AllProcessesOneCpu { cpu }, policy, false)
        .map_err(|error| permission(&format!("open a perf event on CPU {cpu}"), error))
}
