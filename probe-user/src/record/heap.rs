//! `Heaps`: the processes whose allocations are sampled, and the probes in their allocators.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::recorder::Recorder;
use super::recording::{Heap, Recording};
use crate::heap::{Allocators, Scale};
use crate::kernel::{HeapOptions, MAX_HEAPS, RawLive, Sampler};
use crate::probes::{self, Change, ProbeSet};
use crate::target::monotonic_ns;

/// How often it is looked what the probes cost: at most this long more than the budget is spent.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Sample points get nearer to each other by at most this factor: each sample costs as much as several hits.
const MOST_OFTEN: u64 = 64;

/// See the head of this file.
#[derive(Default)]
pub struct Heaps {
    /// By their numbers.
    heaps: Vec<Sampled>,
    /// One sample for so many bytes that are allocated, on average.
    sample_bytes: u64,
    /// When it was ended; 0 before.
    stopped_ns: u64,
    /// What was in use when they were last sampled.
    live: Option<Vec<RawLive>>,
    /// Processes that have another program since they were last asked for.
    executed: Vec<u32>,
}

/// The probes of a process are one group, of this name.
const GROUP: u32 = 0;

struct Sampled {
    pid: u32,
    allocators: Arc<Allocators>,
    probes: ProbeSet,
    /// When its probes were set, once that is over.
    scale: Option<Scale>,
}

impl Sampled {
    fn scale(&self, now_ns: u64) -> Scale {
        self.scale.clone().unwrap_or_else(|| Scale::new(self.probes.windows(GROUP), now_ns))
    }
}

impl Heaps {
    /// True if none is sampled.
    pub fn is_empty(&self) -> bool {
        self.heaps.is_empty() || self.stopped_ns > 0
    }

    /// Sets probes in the allocators of watched processes. Returns since when, and the files of the allocators.
    pub fn start(
        &mut self,
        sampler: &mut Sampler,
        recorder: &Recorder,
        pids: &[u32],
        options: HeapOptions,
        budget: f64,
    ) -> Result<(u64, Vec<String>)> {
        self.sample_bytes = options.sample_bytes;
        let hit_cost = probes::measure_hit(sampler, 0)?;
        tracing::debug!(?hit_cost, "a hit of a probe");
        let mut files = Vec::new();
        for &pid in pids {
            let number = self.heaps.len() as u32;
            ensure!(number < MAX_HEAPS, "the allocations of {MAX_HEAPS} processes at most can be sampled at once");
            let finder = recorder.finder(pid).with_context(|| format!("pid {pid} is not watched"))?;
            let allocators = Allocators::find(pid, &finder, options.live)?;
            files.extend(allocators.files().into_iter().filter(|file| !files.contains(file)).collect::<Vec<_>>());
            let wanted = allocators.probes(number, options.live);
            tracing::debug!(pid, probes = wanted.len(), ?wanted, "sampling allocations");
            sampler.heaps().sample(number, options.sample_bytes)?;
            let mut probes = ProbeSet::set(sampler, pid, vec![wanted], budget, hit_cost)?;
            probes.keep_windows();
            self.heaps.push(Sampled { pid, allocators: Arc::new(allocators), probes, scale: None });
        }
        Ok((monotonic_ns(), files))
    }

    /// Keeps the budgets.
    pub fn look(&mut self, sampler: &mut Sampler) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        for (number, heap) in (0..).zip(&mut self.heaps) {
            let (hits, sampling) = sampler.heaps().cost(number)?;
            match heap.probes.look_at(sampler, hits, sampling)? {
                Change::Nothing => {}
                Change::Gone => sampler.heaps().forget_pending(),
                // What is seen for a part of the time is sampled the more often, so that there are as many samples.
                Change::Set => {
                    let share = heap.scale(monotonic_ns()).share();
                    let least = self.sample_bytes.div_ceil(MOST_OFTEN);
                    let mean = ((self.sample_bytes as f64 * share) as u64).clamp(least, self.sample_bytes);
                    sampler.heaps().sample(number, mean)?;
                }
            }
        }
        Ok(())
    }

    /// Ends sampling. What is in use now is what there is to report. Says when that was.
    pub fn stop(&mut self, sampler: &mut Sampler, live: bool) -> Result<u64> {
        self.look(sampler)?;
        self.live = live.then(|| sampler.heaps().live());
        self.stopped_ns = monotonic_ns();
        for heap in &mut self.heaps {
            heap.scale = Some(heap.scale(self.stopped_ns));
            drop(heap.probes.remove(GROUP));
        }
        Ok(self.stopped_ns)
    }

    /// A process has another program from now on.
    pub fn has_executed(&mut self, pid: u32) {
        if self.heaps.iter().any(|heap| heap.pid == pid) {
            self.executed.push(pid);
        }
    }

    /// Forgets what processes had allocated before they got another program.
    pub fn forget_executed(&mut self, sampler: &mut Sampler, now_ns: u64) {
        for pid in self.executed.drain(..) {
            sampler.heaps().forget_live(pid, now_ns);
        }
    }

    /// Adds to a recording how allocations were sampled, and which of them are in use.
    pub fn report(&self, recorder: &mut Recorder, recording: &mut Recording) {
        let now_ns = if self.stopped_ns > 0 { self.stopped_ns } else { monotonic_ns() };
        let heap = |heap: &Sampled| (heap.pid, Heap { allocators: heap.allocators.clone(), scale: heap.scale(now_ns) });
        recording.heap.sample_bytes = self.sample_bytes;
        recording.heap.heaps = self.heaps.iter().map(heap).collect::<HashMap<_, _>>();
        if let Some(live) = &self.live {
            recorder.add_live(recording, live);
        }
    }
}
