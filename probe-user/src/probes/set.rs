//! `ProbeSet`: the probes in a process, in groups that are set and taken away as a governor says.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::governor::{Governor, Verdict};
use super::group::Group;
use crate::kernel::{Sampler, Wanted};
use crate::target::monotonic_ns;

/// Probes in a process. Dropping it waits until they are gone.
pub struct ProbeSet {
    pid: u32,
    groups: Vec<Group>,
    governor: Governor,
    hit_cost: Duration,
    started: Instant,
    looked: Instant,
}

impl ProbeSet {
    /// Sets the probes of each group, in their order. `budget` is a share of one core, for all of them together; `hit_cost`
    /// is what a hit costs here.
    pub fn set(
        sampler: &mut Sampler,
        pid: u32,
        groups: Vec<Vec<Wanted>>,
        budget: f64,
        hit_cost: Duration,
    ) -> Result<Self> {
        let mut groups: Vec<Group> = groups.into_iter().map(Group::new).collect();
        let hits = sampler.hits()?;
        for group in &mut groups {
            group.pass(&hits, Instant::now());
            group.set(sampler, pid)?;
        }
        let governor = Governor::new(budget, groups.len(), monotonic_ns());
        // What was seen before the last one was set is seen by few.
        let now = Instant::now();
        Ok(Self { pid, groups, governor, hit_cost, started: now, looked: now })
    }

    /// Since when they are watched over.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// More probes of a group, from now on; they are set before the others.
    pub fn add(&mut self, sampler: &mut Sampler, group: usize, wanted: Vec<Wanted>) -> Result<()> {
        self.groups[group].add(sampler, self.pid, wanted)
    }

    /// Since when a group's probes are set, `CLOCK_MONOTONIC` in nanoseconds; `None` if they are not.
    pub fn set_since(&self, group: usize) -> Option<u64> {
        let group = &self.groups[group];
        group.is_set().then_some(group.set_ns)
    }

    /// The share of the time in which a group's probes were set, from 0 to 1.
    pub fn attached_share(&self, group: usize) -> f64 {
        let elapsed = self.looked.saturating_duration_since(self.started).as_secs_f64();
        if elapsed > 0.0 { (self.groups[group].attached().as_secs_f64() / elapsed).min(1.0) } else { 1.0 }
    }

    /// Keeps the budget: to be called every few milliseconds, because until then more than the budget may be spent. Returns
    /// the groups whose probes are gone now: whatever was going on when they went, nobody has seen its end.
    pub fn look(&mut self, sampler: &mut Sampler) -> Result<Vec<usize>> {
        let hits = sampler.hits()?;
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.looked);
        self.looked = now;
        let (mut gone, mut costs) = (Vec::new(), Vec::with_capacity(self.groups.len()));
        for (at, group) in self.groups.iter_mut().enumerate() {
            let passed = group.pass(&hits, now);
            costs.push(self.hit_cost.mul_f64(passed.hits as f64));
            gone.extend(passed.is_gone.then_some(at));
        }
        for (group, verdict) in self.groups.iter_mut().zip(self.governor.observe(&costs, elapsed)) {
            match verdict {
                Verdict::TakeAway => group.take_away(self.pid),
                Verdict::SetAgain => group.is_due = true,
                Verdict::AsTheyAre => {}
            }
        }
        for (at, group) in self.groups.iter_mut().enumerate() {
            // Whoever is told that they are gone has until the next look to forget what they saw last.
            if group.is_due && group.is_away() && !gone.contains(&at) {
                group.set(sampler, self.pid)?;
            }
        }
        Ok(gone)
    }
}

impl Drop for ProbeSet {
    fn drop(&mut self) {
        for group in &mut self.groups {
            group.take_away(self.pid);
        }
        for group in &mut self.groups {
            group.wait();
        }
    }
}
