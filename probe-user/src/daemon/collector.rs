//! The scene of a real host: the flight recorder and the symbolizer behind [`Scene`].

use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Scene;
use super::causes::Waits;
use super::limits::Pace;
use crate::config::Sampling;
use crate::kernel::{self, WaitFilter, target_flags};
use crate::record::{
    Baselines, Collector, Events, InUse, Lifecycle, Makings, Options, Recording, Retention, Stats, Stretch,
};
use crate::symbolize::{Profile, Symbolizer};
use crate::target;

/// How long names may be looked up for each window of a snapshot. What has none by then is stored without.
pub(super) const NAMING: Duration = Duration::from_secs(20);
/// Bound on unwind tables in the kernel, in bytes.
pub(super) const UNWIND_MEMORY: usize = 32 << 20;

/// Page faults a second that are looked at, of all CPUs together where there are many: each is some 5 µs, and 80 bytes in
/// the flight recorder.
const FAULTS: usize = 1000;
/// And of each CPU.
const FAULTS_OF_A_CPU: std::ops::RangeInclusive<usize> = 20..=200;

/// The part of the flight recorder's memory that baselines may take beside it.
const BASELINES: usize = 4;

/// How long a dump waits for a sample of a thread that runs: a period of the default frequency.
const DUMP_PATIENCE: Duration = Duration::from_millis(60);

/// Starts recording on this host, of no process yet. Also returns what happens to its processes.
pub fn collect(sampling: &Sampling) -> Result<(Arc<dyn Scene>, Receiver<Lifecycle>)> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let faults = (FAULTS / cpus).clamp(*FAULTS_OF_A_CPU.start(), *FAULTS_OF_A_CPU.end());
    let collector = Collector::start(&Options {
        kernel: kernel::Options {
            frequency: sampling.frequency.into(),
            fast_frequency: sampling.pending_frequency.into(),
            all: false,
            newcomers: true,
            origins: true,
            user_stacks: true,
            kernel_stacks: true,
            waits: WaitFilter::default(),
            faults: faults as u64,
            functions: 0,
            heap: kernel::HeapOptions { live: true, ..kernel::HeapOptions::default() },
        },
        events: Events { cpu: true, page_fault: true, ..Events::default() },
        mappings: true,
        retention: Retention { window_ns: sampling.window.as_nanos() as u64, memory: sampling.memory as usize },
        unwind_memory: UNWIND_MEMORY,
    })?;
    tracing::info!("memory is followed by page faults and mappings (tier 1)");
    let lifecycle = collector.lifecycle()?;
    let baselines = Mutex::new(Baselines::new(sampling.memory as usize / BASELINES));
    Ok((Arc::new(Live { collector, baselines, follows_waits: Mutex::new(false) }), lifecycle))
}

struct Live {
    collector: Collector,
    baselines: Mutex<Baselines>,
    follows_waits: Mutex<bool>,
}

impl Live {
    /// Begins to follow waits when the first are wanted.
    fn start_waits(&self, waits: Waits) -> Result<()> {
        let mut follows_waits = lock(&self.follows_waits);
        if waits != Waits::None && !*follows_waits {
            self.collector.start_waits(false).context("it is not followed where threads wait")?;
            *follows_waits = true;
        }
        Ok(())
    }
}

/// How the kernel is told which waits are meant.
fn flags(waits: Waits) -> u32 {
    match waits {
        Waits::None => target_flags::NO_WAITS,
        Waits::Blocked => target_flags::BLOCKED_WAITS,
        Waits::All => 0,
    }
}

impl Scene for Live {
    fn active(&self) -> Result<BTreeSet<u32>> {
        self.collector.active()
    }

    fn watch(&self, pid: u32, name: &str, waits: Waits) -> Result<()> {
        // Samples without waits are better than nothing.
        if let Err(error) = self.start_waits(waits) {
            tracing::error!("{error:#}");
        }
        // Children are matched on their own.
        self.collector.watch(pid, Some(name.to_owned()), flags(waits))
    }

    fn unwatch(&self, pid: u32) -> Result<()> {
        lock(&self.baselines).forget(pid);
        self.collector.unwatch(pid)
    }

    fn hurry(&self, pid: u32, is_hurried: bool) -> Result<()> {
        self.collector.set_fast(pid, is_hurried)
    }

    fn follow_waits(&self, pid: u32, waits: Waits) -> Result<()> {
        self.start_waits(waits)?;
        self.collector.set_waits(pid, flags(waits))
    }

    fn remember(&self, calm: &BTreeSet<u32>, from_ns: u64, to_ns: u64) -> Result<()> {
        // All at once: each extraction looks at every sample.
        let recording = self.collector.extract(&[], from_ns, to_ns)?;
        lock(&self.baselines).add(&recording, calm);
        Ok(())
    }

    fn calm_stretches(&self, pid: u32) -> usize {
        lock(&self.baselines).count(pid)
    }

    fn baseline(&self, pid: u32, suits: &dyn Fn(&Stretch) -> f64) -> Option<(u64, Profile)> {
        // Naming takes its time, and nobody waits for it.
        let best = lock(&self.baselines).best(pid, suits)?;
        Some((best.from_ns, Symbolizer::within(NAMING).symbolize(&best)))
    }

    fn profile(&self, pid: u32, from_ns: u64, to_ns: u64) -> Result<Profile> {
        let recording = self.collector.extract(&[pid], from_ns, to_ns)?;
        // A symbolizer remembers every file it has read: a new one for each scene keeps a daemon of months small.
        Ok(Symbolizer::within(NAMING).symbolize(&recording))
    }

    fn dump(&self, pid: u32) -> Result<Recording> {
        Ok(self.collector.dump(pid, DUMP_PATIENCE)?.recording)
    }

    fn name(&self, dump: &Recording) -> Profile {
        Symbolizer::within(NAMING).symbolize(dump)
    }

    fn follow(&self, pid: u32, budget: f64) -> Result<()> {
        self.collector.follow(pid, budget)
    }

    fn unfollow(&self, pid: u32) -> Result<()> {
        self.collector.unfollow(pid)
    }

    fn in_use(&self, pid: u32) -> Result<InUse> {
        self.collector.in_use(pid)
    }

    fn ask_origins(&self, pid: u32, threads: bool, descriptors: bool) -> Result<()> {
        self.collector.ask_origins(pid, threads, descriptors)
    }

    fn makings(&self, pid: u32) -> Result<Makings> {
        self.collector.makings(pid)
    }

    fn pace(&self, pace: Pace) -> Result<()> {
        let Pace { frequency, pending_frequency, memory } = pace;
        self.collector.pace(frequency, pending_frequency, memory as usize)
    }

    fn lose(&self, pid: u32, reason: String, count: u64) -> Result<()> {
        self.collector.lose(pid, reason, count)
    }

    fn stats(&self) -> Result<Stats> {
        self.collector.stats()
    }

    fn now_ns(&self) -> u64 {
        target::monotonic_ns()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
