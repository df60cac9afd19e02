//! Allocations: what the probes in allocators cost, and the sampled allocations that are in use.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
pub use probe_ebpf::heap::{CONSTANT, Layout, MAX_HEAPS, function as takes};
use probe_ebpf::heap::{HeapCost, LiveAllocation, LiveKey, MAX_LAYOUTS, PendingAllocation};

use super::boundary::OfKernel;
use super::event::RawAllocation;

/// How allocations are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapOptions {
    /// One sample for so many allocated bytes, on average; below 4 GiB.
    pub sample_bytes: u64,
    /// Follow samples until they are freed.
    pub live: bool,
}

impl Default for HeapOptions {
    fn default() -> Self {
        Self { sample_bytes: 512 * 1024, live: false }
    }
}

/// The maps of allocations.
pub struct Heaps {
    costs: PerCpuArray<MapData, OfKernel<HeapCost>>,
    means: Array<MapData, u64>,
    pending: HashMap<MapData, u32, OfKernel<PendingAllocation>>,
    live: HashMap<MapData, OfKernel<LiveKey>, OfKernel<LiveAllocation>>,
}

/// The ways in which the arguments of published samples lie, by their numbers.
pub(super) struct Layouts {
    map: Array<MapData, OfKernel<Layout>>,
    known: Vec<Layout>,
}

impl Layouts {
    pub fn new(map: Map) -> Result<Self> {
        Ok(Self { map: Array::try_from(map)?, known: Vec::new() })
    }

    /// The number of one of them; the kernel is told of a new one.
    pub fn number(&mut self, layout: &Layout) -> Result<u32> {
        let known = self.known.iter().position(|known| known == layout);
        let number = known.unwrap_or(self.known.len()) as u32;
        if known.is_none() {
            ensure!(number < MAX_LAYOUTS, "the arguments of published samples lie in more than {MAX_LAYOUTS} ways");
            self.map.set(number, OfKernel(*layout), 0).context("cannot tell the kernel where arguments lie")?;
            self.known.push(*layout);
        }
        Ok(number)
    }
}

impl Heaps {
    pub(super) fn new(costs: Map, means: Map, pending: Map, live: Map) -> Result<Self> {
        Ok(Self {
            costs: PerCpuArray::try_from(costs)?,
            means: Array::try_from(means)?,
            pending: HashMap::try_from(pending)?,
            live: HashMap::try_from(live)?,
        })
    }

    /// Samples a heap from now on, with one sample point for so many bytes, on average; below 4 GiB.
    pub fn sample(&mut self, heap: u32, mean: u64) -> Result<()> {
        self.means.set(heap, mean, 0).context("cannot tell the kernel how to sample allocations")
    }

    /// Hits of the probes of a heap since they were first set, and the time that samples took besides.
    pub fn cost(&self, heap: u32) -> Result<(u64, Duration)> {
        let cpus = self.costs.get(&heap, 0).context("cannot read what probes cost")?;
        let sum = cpus.iter().fold((0, 0), |(hits, nanoseconds), OfKernel(HeapCost { hits: more, sampling_ns })| {
            (hits + more, nanoseconds + sampling_ns)
        });
        Ok((sum.0, Duration::from_nanos(sum.1)))
    }

    /// The sampled allocations that are in use, as far as anybody has seen.
    pub fn live(&self) -> Vec<RawAllocation> {
        // One that is freed meanwhile is no error.
        let entries = self.live.iter().flatten();
        let raw = |(OfKernel(key), OfKernel(live)): (OfKernel<LiveKey>, OfKernel<LiveAllocation>)| {
            let LiveAllocation { time_ns, size, weight, user_stack, tid, mean } = live;
            RawAllocation { time_ns, pid: key.tgid, tid, size, mean: mean.into(), weight, user_stack }
        };
        entries.map(raw).collect()
    }

    /// Forgets what processes allocated before a time of each: they have another program since, or are gone.
    pub fn forget_live(&mut self, before_ns: &BTreeMap<u32, u64>) {
        let is_old = |(OfKernel(key), OfKernel(live)): &(OfKernel<LiveKey>, OfKernel<LiveAllocation>)| {
            before_ns.get(&key.tgid).is_some_and(|before_ns| live.time_ns < *before_ns)
        };
        let old: Vec<OfKernel<LiveKey>> = self.live.iter().flatten().filter(is_old).map(|(key, _)| key).collect();
        for key in old {
            let _ = self.live.remove(&key);
        }
    }

    /// Forgets samples of a process that are in use: all that `keep`, which is asked by size and mean, gives no other mean.
    pub fn thin(&mut self, pid: u32, mut keep: impl FnMut(u64, u64) -> Option<u64>) {
        // One that has been freed meanwhile is not put back.
        const BPF_EXIST: u64 = 2;
        let of_pid = |(key, _): &(OfKernel<LiveKey>, OfKernel<LiveAllocation>)| key.0.tgid == pid;
        let entries: Vec<(OfKernel<LiveKey>, OfKernel<LiveAllocation>)> =
            self.live.iter().flatten().filter(of_pid).collect();
        for (key, OfKernel(live)) in entries {
            let _ = match keep(live.size, live.mean.into()) {
                Some(mean) => self.live.insert(key, OfKernel(LiveAllocation { mean: mean as u32, ..live }), BPF_EXIST),
                None => self.live.remove(&key),
            };
        }
    }

    /// Forgets the calls that have not returned: when probes are taken away, nobody sees them return.
    pub fn forget_pending(&mut self) {
        let tids: Vec<u32> = self.pending.keys().flatten().collect();
        for tid in tids {
            let _ = self.pending.remove(&tid);
        }
    }
}
