//! The scene of a real host: the flight recorder and the symbolizer behind [`Scene`].

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Result;

use super::Scene;
use crate::config::Sampling;
use crate::kernel::{self, WaitFilter};
use crate::record::{Collector, Events, Lifecycle, Options, Recording, Retention};
use crate::symbolize::{Profile, Symbolizer};
use crate::target;

/// Bound on unwind tables in the kernel, in bytes.
const UNWIND_MEMORY: usize = 32 << 20;

/// Page faults a second that are looked at, of all CPUs together where there are many: each is some 5 µs, and 80 bytes in
/// the flight recorder.
const FAULTS: usize = 1000;
/// And of each CPU.
const FAULTS_OF_A_CPU: std::ops::RangeInclusive<usize> = 20..=200;

/// How long a dump waits for a sample of a thread that runs: a period of the default frequency.
const DUMP_PATIENCE: Duration = Duration::from_millis(60);

/// Starts recording on this host, of no process yet. Also returns what happens to its processes.
pub fn collect(sampling: &Sampling) -> Result<(Arc<dyn Scene>, Receiver<Lifecycle>)> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let faults = (FAULTS / cpus).clamp(*FAULTS_OF_A_CPU.start(), *FAULTS_OF_A_CPU.end());
    let collector = Collector::start(&Options {
        kernel: kernel::Options {
            frequency: sampling.frequency.into(),
            all: false,
            all_lifecycle: true,
            user_stacks: true,
            kernel_stacks: true,
            waits: WaitFilter::default(),
            faults: faults as u64,
            functions: 0,
            heap: kernel::HeapOptions::default(),
        },
        events: Events { cpu: true, page_fault: true, ..Events::default() },
        mappings: true,
        retention: Retention { window_ns: sampling.window.as_nanos() as u64, memory: sampling.memory as usize },
        unwind_memory: UNWIND_MEMORY,
    })?;
    tracing::info!("memory is followed by page faults and mappings (tier 1)");
    let lifecycle = collector.lifecycle()?;
    Ok((Arc::new(Live { collector }), lifecycle))
}

struct Live {
    collector: Collector,
}

impl Scene for Live {
    fn watch(&self, pid: u32, name: &str) -> Result<()> {
        // Children are matched on their own.
        self.collector.watch(pid, Some(name.to_owned()), 0)
    }

    fn unwatch(&self, pid: u32) -> Result<()> {
        self.collector.unwatch(pid)
    }

    fn profile(&self, pid: u32, from_ns: u64, to_ns: u64) -> Result<Profile> {
        let recording = self.collector.extract(&[pid], from_ns, to_ns)?;
        // A symbolizer remembers every file it has read: a new one for each scene keeps a daemon of months small.
        Ok(Symbolizer::new().symbolize(&recording))
    }

    fn dump(&self, pid: u32) -> Result<Recording> {
        Ok(self.collector.dump(pid, DUMP_PATIENCE)?.recording)
    }

    fn name(&self, dump: &Recording) -> Profile {
        Symbolizer::new().symbolize(dump)
    }

    fn now_ns(&self) -> u64 {
        target::monotonic_ns()
    }
}
