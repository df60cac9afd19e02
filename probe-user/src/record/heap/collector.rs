//! What the collector is asked about allocations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::collector::{Collector, LOOK_INTERVAL};
use super::HeapTargets;
use crate::heap::Allocators;
use crate::target::{Module, monotonic_ns};

impl Collector {
    /// Samples the allocations of watched processes from now on, at a cost of at most `budget` (a share of one core) for
    /// each. Says since when, and which allocators they have.
    pub fn start_heaps(&self, pids: &[u32], budget: f64) -> Result<(u64, Vec<String>)> {
        let targets = HeapTargets { pids: pids.to_vec(), budget, ..HeapTargets::default() };
        let (from_ns, allocators) = self.follow_heaps(&targets)?;
        let mut files: Vec<String> = allocators.iter().flat_map(|allocators| allocators.files()).collect();
        files.sort();
        files.dedup();
        Ok((from_ns, files))
    }

    /// Samples the allocations of processes from now on, as the targets say. Returns when those that were named are sampled:
    /// since when, and their allocators.
    pub fn follow_heaps(&self, targets: &HeapTargets) -> Result<(u64, Vec<Arc<Allocators>>)> {
        let wanted = targets.clone();
        self.ask(move |state| state.heaps.start(&mut state.sampler, &wanted, state.heap))??;
        self.wait_for_heaps(&targets.pids, None)
    }

    /// Samples the allocations of a process, with its children, that is about to map these files; others are sampled
    /// already. Returns when the probes are set that can be: its allocators, as far as they are known.
    pub fn expect_heap(&self, pid: u32, files: Vec<Arc<Module>>, patience: Duration) -> Result<Vec<Arc<Allocators>>> {
        self.ask(move |state| state.heaps.expect(&mut state.sampler, pid, files))??;
        Ok(self.wait_for_heaps(&[pid], Some(Instant::now() + patience))?.1)
    }

    fn wait_for_heaps(&self, pids: &[u32], until: Option<Instant>) -> Result<(u64, Vec<Arc<Allocators>>)> {
        loop {
            let pids = pids.to_vec();
            let (are_sampled, now_ns, allocators) = self.ask(move |state| {
                state.heaps.catch_up(&mut state.sampler, &state.recorder)?;
                state.heaps.look(&mut state.sampler)?;
                Ok::<_, anyhow::Error>((state.heaps.are_sampled(&pids)?, monotonic_ns(), state.heaps.allocators(&pids)))
            })??;
            if are_sampled || until.is_some_and(|until| Instant::now() >= until) {
                return Ok((now_ns, allocators));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Ends sampling allocations, and says when that was: what is in use then is what a recording has.
    pub fn stop_heaps(&self) -> Result<u64> {
        self.ask(|state| {
            let stopped_ns = state.heaps.stop(&mut state.sampler, state.heap.live)?;
            state.tell_losses(stopped_ns.saturating_sub(1))?;
            Ok(stopped_ns)
        })?
    }
}
