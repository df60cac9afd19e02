//! `Followed`: a process whose allocations are to be sampled, with its allocators, their probes and what these cost.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::recording::Heap;
use super::seeker::Set;
use crate::heap::{Allocators, Scale};
use crate::kernel::{Sampler, Wanted};
use crate::probes::{Change, ProbeSet};
use crate::target::{Module, monotonic_ns};

/// Sample points get nearer to each other by at most this factor: each sample costs as much as several hits.
const MOST_OFTEN: u64 = 64;
/// The probes of a process are one group, of this name.
const GROUP: u32 = 0;
/// Before its probes were set for so long, nobody knows what a process would cost.
const LEARNING: Duration = Duration::from_millis(50);

/// A process, sampled or not yet.
pub struct Followed {
    /// The process that was named, from which it descends; itself if it was.
    pub root: u32,
    /// The number of its heap in the kernel.
    pub number: u32,
    /// Hits of this number before it was its, and what they had cost besides.
    pub paid: (u64, Duration),
    /// The seeker looks at it.
    pub is_sought: bool,
    /// It has ended meanwhile.
    pub is_gone: bool,
    /// What it is going to map.
    pub expected: Vec<Arc<Module>>,
    /// `None` as long as its allocators are not known.
    pub sampled: Option<Sampled>,
    /// Why it is not, as far as is known.
    pub problem: Option<anyhow::Error>,
}

/// What is sampled of it, and how.
pub struct Sampled {
    /// Its allocators.
    pub allocators: Arc<Allocators>,
    /// All probes in them.
    pub wanted: Arc<[Wanted]>,
    /// The same, set and taken away within the budget.
    pub probes: ProbeSet,
    /// When its probes were set, once that is over.
    pub scale: Option<Scale>,
    /// What it costs while its probes are set: a share of one core.
    pub load: f64,
}

impl Sampled {
    /// When its probes were set, up to now.
    fn scale(&self, now_ns: u64) -> Scale {
        let present = || {
            let mut windows = self.probes.windows(GROUP).to_vec();
            // It is looked at every few milliseconds, which for a process that lives as long is much.
            if let Some(last) = windows.last_mut().filter(|_| self.probes.set_since(GROUP).is_some()) {
                last.to_ns = last.to_ns.max(now_ns);
            }
            Scale::new(&windows, now_ns)
        };
        self.scale.clone().unwrap_or_else(present)
    }

    /// How it was sampled, up to now.
    pub fn heap(&self, now_ns: u64) -> Heap {
        Heap { allocators: self.allocators.clone(), scale: self.scale(now_ns) }
    }

    /// Takes its probes away, for good: they were set up to `now_ns`. What it returns tells when they are gone.
    pub fn stop(&mut self, now_ns: u64) -> Option<Receiver<Instant>> {
        self.scale = Some(self.scale(now_ns));
        self.probes.remove(GROUP)
    }
}

impl Followed {
    /// One that descends from `root`, by its number. What the number had cost before is not its.
    pub fn new(root: u32, number: u32, paid: (u64, Duration)) -> Self {
        let (is_sought, is_gone, expected, sampled, problem) = (false, false, Vec::new(), None, None);
        Self { root, number, paid, is_sought, is_gone, expected, sampled, problem }
    }

    /// Keeps its budget.
    pub fn look(&mut self, sampler: &mut Sampler, sample_bytes: u64, hit_cost: Duration) -> Result<()> {
        let Some(sampled) = &mut self.sampled else { return Ok(()) };
        let (hits, sampling) = sampler.heaps().cost(self.number)?;
        match sampled.probes.look_at(sampler, hits, sampling)? {
            Change::Nothing => {}
            Change::Gone => sampler.heaps().forget_pending(),
            // What is seen for a part of the time is sampled the more often, so that there are as many samples.
            Change::Set => {
                let share = sampled.scale(monotonic_ns()).share();
                let least = sample_bytes.div_ceil(MOST_OFTEN);
                let mean = ((sample_bytes as f64 * share) as u64).clamp(least, sample_bytes);
                sampler.heaps().sample(self.number, mean)?;
            }
        }
        let attached = sampled.probes.attached(GROUP);
        if attached > LEARNING {
            let (hits, sampling) = (hits.saturating_sub(self.paid.0), sampling.saturating_sub(self.paid.1));
            sampled.load = (hit_cost.mul_f64(hits as f64) + sampling).as_secs_f64() / attached.as_secs_f64();
        }
        Ok(())
    }

    /// Takes over what the seeker has found and set. True if it sees the process by another way than before.
    pub fn adopt(&mut self, sampler: &mut Sampler, pid: u32, set: Set, cost: (f64, Duration)) -> Result<bool> {
        let Set { allocators, is_other_tier, wanted, probes, set_ns } = set;
        if is_other_tier && let Some(mut before) = self.sampled.take() {
            drop(before.probes.remove(GROUP));
            self.paid = sampler.heaps().cost(self.number)?;
        }
        let probes = match probes {
            Some(probes) => probes,
            None => sampler.probe(pid, &wanted)?,
        };
        let is_new = self.sampled.is_none();
        let sampled = self.sampled.get_or_insert_with(|| Sampled {
            allocators: allocators.clone(),
            wanted: Arc::default(),
            probes: ProbeSet::new(pid, cost.0, cost.1),
            scale: None,
            load: f64::INFINITY,
        });
        sampled.allocators = allocators;
        if is_new || !wanted.is_empty() {
            sampled.wanted = sampled.wanted.iter().chain(&wanted).cloned().collect();
            sampled.probes.adopt(GROUP, wanted, probes, set_ns, self.paid);
            sampled.probes.keep_windows();
        }
        Ok(is_other_tier)
    }
}
