//! `Programs`: the kernel programs that time functions: programs of their own, or those of a recorder, which also sees what
//! threads do inside slow calls.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::kernel::{self, Event, Sampler, WaitFilter, target_flags};
use crate::latency::{Function, Part, Slot, TICK, Timer, Timing};
use crate::record::{Collector, Events, Lifecycle, Options, Recording, Retention};
use crate::target::monotonic_ns;

/// Bound on what is kept of slow calls.
const MEMORY: usize = 256 << 20;
/// Bound on unwind tables in the kernel.
const UNWIND_MEMORY: usize = 256 << 20;
/// How long timing may wait for the tables by which stacks are unwound.
const TABLES: Duration = Duration::from_secs(2);
/// Waits that are shorter than this part of the threshold tell nothing of why a call was slow.
pub const SHORT_WAITS: u32 = 1000;

/// See the head of this file.
pub enum Programs {
    /// Of their own.
    Own(Box<Timer>),
    /// A recorder's.
    Recorder(Box<Borrowed>),
}

/// Programs of a recorder.
pub struct Borrowed {
    collector: Collector,
    lifecycle: Receiver<Lifecycle>,
    /// `None` while it is lent.
    timing: Option<Timing>,
    /// Since when it records.
    from_ns: u64,
    /// When calls were counted for the last time.
    counted_ns: u64,
}

/// What happens to a process that is timed, or to a child of one.
#[derive(Clone, Copy, Debug)]
pub enum Happened {
    Fork { parent: u32, child: u32 },
    Exec { pid: u32 },
    Exit { pid: u32 },
}

impl Programs {
    /// For so many functions of these processes and of those that descend from them.
    pub fn load(functions: u32, pids: &[u32]) -> Result<Self> {
        let mut timer = Timer::load(functions)?;
        for &pid in pids {
            timer.ask(|_, sampler| sampler.watch(pid, target_flags::INHERIT | target_flags::NO_WAITS))?;
        }
        Ok(Self::Own(Box::new(timer)))
    }

    /// For so many functions of these processes, with what their threads do in calls that take longer than the threshold.
    pub fn with_slow_calls(functions: u32, pids: &[u32], threshold: Duration, frequency: u64) -> Result<Self> {
        let min_ns = u64::try_from((threshold / SHORT_WAITS).as_nanos()).unwrap_or(u64::MAX);
        let collector = Collector::start(&Options {
            kernel: kernel::Options {
                frequency,
                fast_frequency: 0,
                all: false,
                newcomers: false,
                origins: false,
                user_stacks: true,
                kernel_stacks: true,
                waits: WaitFilter { min_ns, each: true, ..WaitFilter::default() },
                functions: functions + 1,
                faults: 0,
                heap: kernel::HeapOptions::default(),
            },
            events: Events { cpu: true, off_cpu: true, ..Events::default() },
            mappings: false,
            retention: Retention { window_ns: u64::MAX, memory: MEMORY },
            unwind_memory: UNWIND_MEMORY,
        })?;
        for &pid in pids {
            collector.watch(pid, None, target_flags::INHERIT)?;
        }
        let lifecycle = collector.lifecycle()?;
        collector.wait_for_tables(TABLES)?;
        let from_ns = collector.start_waits(false)?;
        let timing = collector.with_kernel(move |sampler| Timing::new(sampler, functions))??;
        Ok(Self::Recorder(Box::new(Borrowed {
            collector,
            lifecycle,
            timing: Some(timing),
            from_ns,
            counted_ns: u64::MAX,
        })))
    }

    /// Asks, wherever the programs are.
    fn ask<T: Send + 'static>(
        &mut self,
        ask: impl FnOnce(&mut Timing, &mut Sampler) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Own(timer) => timer.ask(ask),
            Self::Recorder(borrowed) => {
                let Borrowed { collector, timing: lent, .. } = &mut **borrowed;
                let mut timing = lent.take().context("what is timed was lost")?;
                let (timing, answer) = collector.with_kernel(move |sampler| {
                    let answer = ask(&mut timing, sampler);
                    (timing, answer)
                })?;
                *lent = Some(timing);
                answer
            }
        }
    }

    /// Times a function of a process; `None` when there is no room.
    pub fn add(&mut self, pid: u32, function: Function, budget: f64) -> Result<Option<Slot>> {
        self.ask(move |timing, sampler| timing.add(sampler, pid, function, budget))
    }

    /// What the probes of each of these processes may cost, as a share of one core.
    pub fn set_budget(&mut self, pids: Vec<u32>, budget: f64) -> Result<()> {
        self.ask(move |timing, _| {
            pids.into_iter().for_each(|pid| timing.set_budget(pid, budget));
            Ok(())
        })
    }

    /// Times a process no longer. What was seen of it.
    pub fn forget(&mut self, pid: u32) -> Result<Vec<Part>> {
        self.ask(move |timing, sampler| {
            let slots = timing.slots_of(pid);
            let parts = timing.parts(sampler, |slot| slots.contains(&slot))?;
            timing.forget(pid);
            Ok(parts)
        })
    }

    /// What has happened to processes since the last call.
    pub fn happened(&mut self) -> Result<Vec<Happened>> {
        let mut happened = Vec::new();
        match self {
            Self::Own(timer) => timer.events(|event| {
                happened.extend(match event {
                    Event::Fork { parent, child } => Some(Happened::Fork { parent, child }),
                    Event::Exec { pid, .. } => Some(Happened::Exec { pid }),
                    Event::Exit { pid } | Event::SetAside { pid } => Some(Happened::Exit { pid }),
                    _ => None,
                });
            })?,
            Self::Recorder(borrowed) => {
                happened.extend(borrowed.lifecycle.try_iter().filter_map(|change| match change {
                    Lifecycle::Fork { parent, child } => Some(Happened::Fork { parent, child }),
                    Lifecycle::Exec { pid } => Some(Happened::Exec { pid }),
                    Lifecycle::Exit { pid } | Lifecycle::SetAside { pid } => Some(Happened::Exit { pid }),
                    Lifecycle::Newcomer(_) => None,
                }));
            }
        }
        Ok(happened)
    }

    /// What one hit of a probe costs on this host.
    pub fn hit_cost(&mut self) -> Result<Duration> {
        self.ask(|timing, _| Ok(timing.hit_cost()))
    }

    /// Lets time pass, and keeps the budgets meanwhile.
    pub fn run_until(&mut self, end: Instant) -> Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            std::thread::sleep(TICK.min(end - now));
            let failed = self.ask(|timing, sampler| {
                timing.look(sampler)?;
                Ok(timing.take_failed().pop())
            })?;
            if let Some((_, error)) = failed {
                return Err(error);
            }
        }
    }

    /// What was seen so far.
    pub fn parts(&mut self) -> Result<Vec<Part>> {
        let (parts, now_ns) = self.ask(|timing, sampler| Ok((timing.parts(sampler, |_| true)?, monotonic_ns())))?;
        if let Self::Recorder(borrowed) = self {
            borrowed.counted_ns = now_ns;
        }
        Ok(parts)
    }

    /// What threads did, and which of the calls in the latest [`Self::parts`] were slow; `None` if that was not asked for. Takes
    /// the probes away.
    pub fn recording(self) -> Result<Option<Recording>> {
        let Self::Recorder(borrowed) = self else { return Ok(None) };
        let Borrowed { collector, timing, from_ns, counted_ns, lifecycle: _ } = *borrowed;
        drop(timing);
        let to_ns = collector.stop_waits()?;
        let mut recording = collector.extract(&[], from_ns, to_ns)?;
        // Probes leave one after the other, and calls go on to end meanwhile.
        recording.calls.retain(|call| call.time_ns <= counted_ns);
        Ok(Some(recording))
    }
}
