//! Allocations: what the probes in allocators cost, and the sampled allocations that are in use.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use probe_ebpf::abi::StackId;
use probe_ebpf::heap::{HeapCost, LiveAllocation, LiveKey, PendingAllocation};
pub use probe_ebpf::heap::{MAX_HEAPS, function as takes};

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

/// A sampled allocation that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLive {
    /// When it was made, `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// The thread that made it.
    pub tid: u32,
    /// Bytes.
    pub size: u64,
    /// There was one sample point for so many bytes, on average.
    pub mean: u64,
    /// Where it was made.
    pub user_stack: StackId,
}

/// The maps of allocations.
pub struct Heaps {
    costs: PerCpuArray<MapData, PodCost>,
    means: Array<MapData, u64>,
    pending: HashMap<MapData, u32, PodPending>,
    live: HashMap<MapData, PodKey, PodLive>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodCost(HeapCost);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodPending(PendingAllocation);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodKey(LiveKey);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodLive(LiveAllocation);

// SAFETY: integers only and no implicit padding, which `probe_ebpf` asserts.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodCost {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodPending {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodKey {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodLive {}

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
        let sum = cpus.iter().fold((0, 0), |(hits, nanoseconds), PodCost(HeapCost { hits: more, sampling_ns })| {
            (hits + more, nanoseconds + sampling_ns)
        });
        Ok((sum.0, Duration::from_nanos(sum.1)))
    }

    /// The sampled allocations that are in use, as far as anybody has seen.
    pub fn live(&self) -> Vec<RawLive> {
        // One that is freed meanwhile is no error.
        let entries = self.live.iter().flatten();
        let raw = |(PodKey(key), PodLive(live)): (PodKey, PodLive)| {
            let LiveAllocation { time_ns, size, user_stack, tid, mean } = live;
            RawLive { time_ns, pid: key.tgid, tid, size, mean: mean.into(), user_stack }
        };
        entries.map(raw).collect()
    }

    /// Forgets what a process allocated before: it has another program now.
    pub fn forget_live(&mut self, pid: u32, before_ns: u64) {
        let is_old = |(PodKey(key), PodLive(live)): &(PodKey, PodLive)| key.tgid == pid && live.time_ns < before_ns;
        let old: Vec<PodKey> = self.live.iter().flatten().filter(is_old).map(|(key, _)| key).collect();
        for key in old {
            let _ = self.live.remove(&key);
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
