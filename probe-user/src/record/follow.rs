//! `Follows`: processes whose allocations are followed until they are freed, each from when somebody asks for it to when
//! nobody does any more; beside [`super::heap`], which samples those of a whole recording.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{getpriority_process, setpriority_process};

use super::collector::Collector;
use super::recorder::Recorder;
use super::recording::{Events, Heap, Kind, Recording};
use crate::heap::{Allocators, Found, Scale, chance};
use crate::kernel::{MAX_HEAPS, RawAllocation, Sampler};
use crate::probes::{self, Change, ProbeSet};
use crate::target::{folder, monotonic_ns};

/// Processes that are followed at once: each has probes that may cost the budget, and shares the table of what is in use.
pub const MAX_FOLLOWED: usize = 4;

/// One sample for so many bytes, on average, to begin with: a leak of 1 MB a second is some hundred samples in ten seconds.
const FIRST_MEAN: u64 = 32 * 1024;
/// Where samples are many they become fewer, down to one for so many bytes: then a table full of them is 128 GiB.
const LAST_MEAN: u64 = 512 * 1024;
/// The part of the budget that taking stacks may cost; the rest is for hits.
const SAMPLING: f64 = 0.25;
/// Where probes are set for a part of the time, sample points get nearer to each other by at most this factor.
const MOST_OFTEN: u64 = 16;
/// How often it is looked what samples cost, and whether the table has room.
const ADAPT: Duration = Duration::from_secs(1);
/// The probes of a process are one group, of this name.
const GROUP: u32 = 0;

/// What a process allocated since it has been followed, and what of it is in use.
#[derive(Debug)]
pub struct InUse {
    /// Both, without names.
    pub recording: Recording,
    /// Since when it has been followed, `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// The share of that time in which the probes were set, from 0 to 1.
    pub attached_share: f64,
    /// One sample for so many bytes, on average, while they were.
    pub sample_bytes: u64,
}

/// See the head of this file.
#[derive(Default)]
pub struct Follows {
    followed: BTreeMap<u32, Followed>,
    /// Numbers go round, so that probes on their way out do not meet those of their successor.
    next_number: u32,
    /// What a hit of a probe costs here, once it was measured.
    hit_cost: Option<Duration>,
    /// The priority of this thread while none is followed.
    priority: Option<i32>,
    adapted: Option<Instant>,
    /// Samples that found the table full, until now.
    refused: u64,
}

struct Followed {
    number: u32,
    allocators: Arc<Allocators>,
    /// `None` once they could not be looked after any more.
    probes: Option<ProbeSet>,
    budget: f64,
    since_ns: u64,
    /// When the probes were set, once that is over.
    scale: Scale,
    /// What the number had cost before.
    before: (u64, Duration),
    /// One sample for so many bytes, while the probes are set all the time, and as it is now.
    mean: u64,
    mean_now: u64,
    /// What samples had cost when that was looked at.
    sampling: Duration,
}

impl Followed {
    fn scale(&self, now_ns: u64) -> Scale {
        let present = |set: &ProbeSet| {
            let mut windows = set.windows(GROUP).to_vec();
            // It is looked at every few milliseconds.
            if let Some(last) = windows.last_mut().filter(|_| set.set_since(GROUP).is_some()) {
                last.to_ns = last.to_ns.max(now_ns);
            }
            Scale::new(&windows, now_ns)
        };
        self.probes.as_ref().map_or_else(|| self.scale.clone(), present)
    }

    /// Keeps the budget.
    fn look(&mut self, sampler: &mut Sampler) -> Result<()> {
        let (hits, sampling) = sampler.heaps().cost(self.number)?;
        let (hits, sampling) = (hits - self.before.0, sampling.saturating_sub(self.before.1));
        let Some(probes) = &mut self.probes else { return Ok(()) };
        match probes.look_at(sampler, hits, sampling)? {
            Change::Nothing => Ok(()),
            Change::Gone => {
                sampler.heaps().forget_pending();
                Ok(())
            }
            Change::Set => self.sample(sampler),
        }
    }

    /// What is seen for a part of the time is sampled the more often, so that there are as many samples.
    fn sample(&mut self, sampler: &mut Sampler) -> Result<()> {
        let share = self.scale(monotonic_ns()).share();
        self.mean_now = ((self.mean as f64 * share) as u64).clamp(self.mean / MOST_OFTEN, self.mean);
        sampler.heaps().sample(self.number, self.mean_now)
    }

    /// Takes fewer samples where they cost more than their part of the budget.
    fn adapt(&mut self, sampler: &mut Sampler, elapsed: Duration) -> Result<()> {
        let (_, sampling) = sampler.heaps().cost(self.number)?;
        let spent = sampling.saturating_sub(std::mem::replace(&mut self.sampling, sampling));
        if spent.as_secs_f64() > SAMPLING * self.budget * elapsed.as_secs_f64() && self.mean < LAST_MEAN {
            self.mean *= 2;
            self.sample(sampler)?;
        }
        Ok(())
    }
}

impl Follows {
    /// True if none is followed.
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// Keeps the budgets. What cannot be followed any longer, because it is gone, keeps what was seen.
    pub fn look(&mut self, sampler: &mut Sampler) {
        for (pid, followed) in &mut self.followed {
            if let Err(error) = followed.look(sampler) {
                tracing::debug!(pid, error = format!("{error:#}"), "its allocations are no longer followed");
                followed.end();
            }
        }
        let elapsed = self.adapted.map(|since| since.elapsed()).filter(|elapsed| *elapsed >= ADAPT);
        if let Some(elapsed) = elapsed {
            self.adapted = Some(Instant::now());
            if let Err(error) = self.adapt(sampler, elapsed) {
                tracing::error!(error = format!("{error:#}"), "followed allocations cannot be looked after");
            }
        }
    }

    fn adapt(&mut self, sampler: &mut Sampler, elapsed: Duration) -> Result<()> {
        for followed in self.followed.values_mut() {
            followed.adapt(sampler, elapsed)?;
        }
        let refused = sampler.heaps_refused()?;
        if refused > std::mem::replace(&mut self.refused, refused) {
            self.thin(sampler)?;
        }
        Ok(())
    }

    /// The table is full: about every other sample leaves it, by the chance that it would not have been taken had there been
    /// one sample point in twice as many bytes.
    fn thin(&mut self, sampler: &mut Sampler) -> Result<()> {
        tracing::info!("the table of allocations in use is full: from now on there are half as many samples");
        let mut random = monotonic_ns() | 1;
        for (&pid, followed) in &mut self.followed {
            followed.mean = (followed.mean * 2).min(1 << 31);
            followed.sample(sampler)?;
            sampler.heaps().thin(pid, |size, mean| {
                let new = (mean * 2).min(1 << 31);
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let even = (random >> 11) as f64 / (1u64 << 53) as f64;
                (even < chance(size, new) / chance(size, mean)).then_some(new)
            });
        }
        Ok(())
    }

    /// Follows a watched process from now on, at a cost of at most `budget`, a share of one core.
    fn start(
        &mut self,
        (sampler, recorder): (&mut Sampler, &mut Recorder),
        pid: u32,
        allocators: Allocators,
        budget: f64,
    ) -> Result<()> {
        ensure!(!self.followed.contains_key(&pid), "the allocations of pid {pid} are followed already");
        ensure!(self.followed.len() < MAX_FOLLOWED, "the allocations of {MAX_FOLLOWED} processes are followed already");
        self.priority = self.priority.or_else(|| getpriority_process(None).ok());
        let hit_cost = match self.hit_cost {
            Some(cost) => cost,
            None => *self.hit_cost.insert(probes::measure_hit(sampler, 0)?),
        };
        let number = self.next_number;
        self.next_number = (number + 1) % MAX_HEAPS;
        let wanted = allocators.probes(number, true);
        tracing::debug!(pid, probes = wanted.len(), ?hit_cost, "following allocations");
        sampler.heaps().forget_live(&[(pid, u64::MAX)].into());
        let before = sampler.heaps().cost(number)?;
        sampler.heaps().sample(number, FIRST_MEAN)?;
        let mut probes = ProbeSet::set(sampler, pid, vec![wanted], budget, hit_cost)?;
        probes.keep_windows();
        recorder.pins.begin(pid);
        let followed = Followed {
            number,
            allocators: Arc::new(allocators),
            probes: Some(probes),
            budget,
            since_ns: monotonic_ns(),
            scale: Scale::default(),
            before,
            mean: FIRST_MEAN,
            mean_now: FIRST_MEAN,
            sampling: before.1,
        };
        self.followed.insert(pid, followed);
        self.adapted.get_or_insert_with(Instant::now);
        self.refused = sampler.heaps_refused()?;
        Ok(())
    }

    /// Follows a process no longer. That it is not followed is no error.
    fn stop(&mut self, sampler: &mut Sampler, recorder: &mut Recorder, pid: u32) -> Result<()> {
        let Some(mut followed) = self.followed.remove(&pid) else { return Ok(()) };
        followed.end();
        recorder.pins.end(pid);
        sampler.heaps().forget_live(&[(pid, u64::MAX)].into());
        if self.followed.is_empty() {
            // Windows have to end in time, for which probes have made this thread come before others.
            let _ = self.priority.take().map(|priority| setpriority_process(None, priority));
            self.adapted = None;
        }
        sampler.heaps().sample(followed.number, 0)
    }

    /// What a process allocated since it has been followed, and what of it is in use now.
    fn in_use(&mut self, sampler: &mut Sampler, recorder: &mut Recorder, pid: u32) -> Result<InUse> {
        let followed = self.followed.get(&pid).with_context(|| format!("pid {pid} is not followed"))?;
        let (since_ns, now_ns) = (followed.since_ns, monotonic_ns());
        let scale = followed.scale(now_ns);
        let attached_share = scale.share();
        let kind = Kind::Events(Events { malloc: true, ..Events::default() });
        let mut recording = Recording { kind, from_ns: since_ns, to_ns: now_ns, ..Recording::default() };
        recorder.add_allocations(&mut recording, &[pid]);
        recording.losses = recorder.losses(&[pid], since_ns, now_ns);
        recording.losses.retain(|reason, _| reason.starts_with("sampled allocations"));
        recording.heap.sample_bytes = followed.mean_now;
        recording.heap.heaps = [(pid, Heap { allocators: followed.allocators.clone(), scale })].into();
        let mut live = sampler.heaps().live();
        live.retain(|RawAllocation { pid: of, time_ns, .. }| *of == pid && *time_ns >= since_ns);
        recorder.add_live(&mut recording, &live);
        Ok(InUse { recording, since_ns, attached_share, sample_bytes: followed.mean_now })
    }
}

impl Followed {
    /// Takes the probes away, without waiting for the kernel. What was seen stays.
    fn end(&mut self) {
        self.scale = self.scale(monotonic_ns());
        if let Some(probes) = self.probes.take() {
            drop(probes.end());
        }
    }
}

impl Collector {
    /// Follows the allocations of a watched process from now on until they are freed, at a cost of at most `budget` (a share of
    /// one core). Looking for allocators takes as long as its files are large, setting probes some milliseconds each.
    pub fn follow(&self, pid: u32, budget: f64) -> Result<()> {
        let files = self.ask(move |state| state.recorder.processes.files(pid))?;
        ensure!(!files.is_empty(), "pid {pid} is not watched");
        // Here, not where the events of all processes wait.
        let roots = [folder(pid).join("root"), PathBuf::from("/")];
        let found: Vec<Found> = files.iter().map(|file| Found::look(file, roots.clone())).collect();
        let allocators = Allocators::of(&found, pid, true)?;
        self.ask(move |state| {
            let scene = (&mut state.sampler, &mut state.recorder);
            state.follows.start(scene, pid, allocators, budget)
        })?
    }

    /// Follows them no longer, and forgets them. A process that is not followed is no error.
    pub fn unfollow(&self, pid: u32) -> Result<()> {
        self.ask(move |state| state.follows.stop(&mut state.sampler, &mut state.recorder, pid))?
    }

    /// What a process allocated since [`Self::follow`], as far as windows reach back, and all of it that is in use. The process
    /// may be gone.
    pub fn in_use(&self, pid: u32) -> Result<InUse> {
        self.ask(move |state| {
            // What is still in the buffer belongs to the past, too.
            state.read(Duration::ZERO)?;
            state.tell_losses(monotonic_ns())?;
            state.follows.in_use(&mut state.sampler, &mut state.recorder, pid)
        })?
    }
}
