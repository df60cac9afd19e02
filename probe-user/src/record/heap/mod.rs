//! `Heaps`: the processes whose allocations are sampled, and the probes in their allocators.

mod budget;
mod collector;
mod followed;
mod numbers;
mod seeker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::followed::Followed;
use self::numbers::Numbers;
use self::seeker::{Answer, Request, Seeker, Way};
use super::recorder::Recorder;
use super::recording::{Heap, Recording};
use crate::heap::Allocators;
use crate::kernel::{Event, HeapOptions, MAX_HEAPS, RawAllocation, Refused, Sampler};
use crate::probes;
use crate::problem::{Exit, Problem};
use crate::target::{Module, descendants, monotonic_ns};

/// How often it is looked what the probes cost: at most this long more than the budget is spent.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How often budgets are shared out anew, and what processes had that are gone is forgotten.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);

/// Whose allocations are sampled, and how.
#[derive(Clone, Debug, Default)]
pub struct HeapTargets {
    /// Watched processes.
    pub pids: Vec<u32>,
    /// What the probes of each of them may cost, with its children: a share of one core.
    pub budget: f64,
    /// Sample each in the cheapest way that it has, instead of by the functions of its allocators.
    pub cheapest: bool,
    /// Follow their children as well, those that are there and those that come, and the libraries that any of them loads.
    pub children: bool,
}

/// See the head of this file.
#[derive(Default)]
pub struct Heaps {
    followed: HashMap<u32, Followed>,
    /// Processes that have ended.
    ended: HashMap<u32, Heap>,
    numbers: Numbers,
    seeker: Option<Seeker>,
    /// What has happened since the last look.
    events: Vec<Happened>,
    /// Processes in which there may be new allocators.
    changed: BTreeSet<u32>,
    options: HeapOptions,
    budget: f64,
    children: bool,
    hit_cost: Duration,
    /// When sampling was ended; 0 before.
    stopped_ns: u64,
    /// What was in use when they were last sampled.
    live: Option<Vec<RawAllocation>>,
    /// Since when what a process had allocated is no more.
    forgotten_ns: BTreeMap<u32, u64>,
    shared: Option<Instant>,
    /// Processes that ended, or were there until the end, without having been sampled.
    unsampled: u64,
    /// And those that run other code than their files have.
    refused: u64,
    /// And those that were too many.
    too_many: u64,
}

/// What happens to a process.
#[derive(Clone, Copy, Debug)]
enum Happened {
    Exec { pid: u32, time_ns: u64 },
    Fork { parent: u32, child: u32 },
    Map { pid: u32 },
    Exit { pid: u32 },
}

impl Heaps {
    /// True if none is sampled.
    pub fn is_empty(&self) -> bool {
        self.seeker.is_none()
    }

    /// Looks for the allocators of watched processes from now on, and samples them as they are found.
    pub fn start(&mut self, sampler: &mut Sampler, targets: &HeapTargets, options: HeapOptions) -> Result<()> {
        let HeapTargets { pids, budget, cheapest, children } = targets;
        *self = Heaps { options, budget: *budget, children: *children, ..Self::default() };
        self.hit_cost = probes::measure_hit(sampler, 0)?;
        tracing::debug!(hit_cost = ?self.hit_cost, "a hit of a probe");
        // Where probes can only be set one by one is known by now.
        let way = Way { cheapest: *cheapest, live: options.live };
        self.seeker = Some(Seeker::start(sampler.prober(), way)?);
        for &pid in pids {
            let is_followed = self.follow(sampler, pid, pid)?;
            ensure!(is_followed, "the allocations of {MAX_HEAPS} processes at most can be sampled at once");
        }
        for &pid in pids.iter().filter(|_| *children) {
            for child in descendants(pid) {
                self.follow(sampler, child, pid)?;
            }
        }
        Ok(())
    }

    /// Follows a process that is going to map these files: their probes are set when it does.
    pub fn expect(&mut self, sampler: &mut Sampler, pid: u32, files: Vec<Arc<Module>>) -> Result<()> {
        self.follow(sampler, pid, pid)?;
        if let Some(followed) = self.followed.get_mut(&pid) {
            followed.expected = files;
        }
        Ok(())
    }

    /// False if there are too many.
    fn follow(&mut self, sampler: &mut Sampler, pid: u32, root: u32) -> Result<bool> {
        if self.followed.contains_key(&pid) {
            return Ok(true);
        }
        let Some(number) = self.numbers.take() else {
            self.too_many += 1;
            return Ok(false);
        };
        sampler.heaps().sample(number, self.options.sample_bytes)?;
        let paid = sampler.heaps().cost(number)?;
        self.followed.insert(pid, Followed::new(root, number, paid));
        self.changed.insert(pid);
        Ok(true)
    }

    /// True as soon as these processes are sampled. Fails if one of them cannot be.
    pub fn are_sampled(&mut self, pids: &[u32]) -> Result<bool> {
        let mut are_sampled = true;
        for pid in pids {
            let followed = self.followed.get_mut(pid).with_context(|| format!("pid {pid} has ended"))?;
            match (&followed.sampled, followed.problem.take()) {
                (None, Some(problem)) => return Err(with_hint(problem)),
                (sampled, _) => are_sampled &= sampled.is_some(),
            }
        }
        Ok(are_sampled)
    }

    /// The allocators of these processes, as far as they are known.
    pub fn allocators(&self, pids: &[u32]) -> Vec<Arc<Allocators>> {
        let sampled = pids.iter().filter_map(|pid| self.followed.get(pid)?.sampled.as_ref());
        sampled.map(|sampled| sampled.allocators.clone()).collect()
    }

    /// Notes an event.
    pub fn note(&mut self, event: &Event) {
        if self.is_empty() {
            return;
        }
        self.events.extend(match *event {
            Event::Exec { pid, time_ns, .. } => Some(Happened::Exec { pid, time_ns }),
            Event::Fork { parent, child } => Some(Happened::Fork { parent, child }),
            // Those of every process are told.
            Event::Map { pid, .. } if self.followed.contains_key(&pid) => Some(Happened::Map { pid }),
            Event::Exit { pid } => Some(Happened::Exit { pid }),
            _ => None,
        });
    }

    /// Does what is to be done about the events that were noted.
    pub fn catch_up(&mut self, sampler: &mut Sampler, recorder: &Recorder) -> Result<()> {
        for event in std::mem::take(&mut self.events) {
            match event {
                Happened::Exec { pid, time_ns } if self.followed.contains_key(&pid) => {
                    self.forgotten_ns.insert(pid, time_ns);
                    self.changed.extend(self.children.then_some(pid));
                }
                Happened::Map { pid } => self.changed.extend(self.children.then_some(pid)),
                Happened::Fork { parent, child } if self.children => {
                    if let Some(root) = self.followed.get(&parent).map(|followed| followed.root) {
                        self.follow(sampler, child, root)?;
                    }
                }
                Happened::Exit { pid } => self.end(pid),
                Happened::Exec { .. } | Happened::Fork { .. } => {}
            }
        }
        self.seek(recorder);
        Ok(())
    }

    /// Has those processes looked at in which there may be new allocators.
    fn seek(&mut self, recorder: &Recorder) {
        let Some(seeker) = &self.seeker else { return };
        let followed = &mut self.followed;
        self.changed.retain(|pid| {
            let Some(followed) = followed.get_mut(pid) else { return false };
            if followed.is_sought {
                return true;
            }
            let mut files = recorder.processes.files(*pid);
            files.extend(followed.expected.iter().cloned());
            let known = followed.sampled.as_ref().map(|sampled| (sampled.allocators.clone(), sampled.wanted.clone()));
            followed.is_sought = seeker.ask(Request { pid: *pid, number: followed.number, files, known });
            !followed.is_sought
        });
    }

    /// A process has ended.
    fn end(&mut self, pid: u32) {
        let Some(followed) = self.followed.get_mut(&pid) else { return };
        // What those that were named have not freed until their end is what somebody may want to know.
        if followed.root != pid {
            self.forgotten_ns.insert(pid, monotonic_ns());
        }
        followed.is_gone = true;
        if !followed.is_sought {
            self.release(pid, monotonic_ns());
        }
    }

    fn release(&mut self, pid: u32, now_ns: u64) {
        self.changed.remove(&pid);
        let Some(followed) = self.followed.remove(&pid) else { return };
        let Some(mut sampled) = followed.sampled else {
            match followed.problem {
                Some(problem) if problem.downcast_ref::<Refused>().is_some_and(|refused| !refused.is_gone) => {
                    self.refused += 1;
                }
                _ => self.unsampled += 1,
            }
            return self.numbers.give_back(followed.number, None);
        };
        self.ended.insert(pid, sampled.heap(now_ns));
        self.numbers.give_back(followed.number, sampled.stop(now_ns));
    }

    /// Takes over what the seeker has done.
    fn take_answers(&mut self, sampler: &mut Sampler) -> Result<()> {
        while let Some(Answer { pid, result }) = self.seeker.as_ref().and_then(Seeker::answer) {
            let Some(followed) = self.followed.get_mut(&pid) else { continue };
            followed.is_sought = false;
            match result.and_then(|set| followed.adopt(sampler, pid, set, (self.budget, self.hit_cost))) {
                Ok(is_other_tier) if is_other_tier => _ = self.forgotten_ns.insert(pid, monotonic_ns()),
                Ok(_) => self.shared = None,
                Err(problem) => {
                    tracing::debug!(pid, problem = format!("{problem:#}"), "allocations are not sampled");
                    followed.problem = Some(problem);
                }
            }
            if followed.is_gone {
                self.release(pid, monotonic_ns());
            }
        }
        Ok(())
    }

    /// Keeps the budgets.
    pub fn look(&mut self, sampler: &mut Sampler) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.take_answers(sampler)?;
        let (sample_bytes, hit_cost) = (self.options.sample_bytes, self.hit_cost);
        for (pid, followed) in &mut self.followed {
            if let Err(error) = followed.look(sampler, sample_bytes, hit_cost)
                && let Some(sampled) = &mut followed.sampled
            {
                // It is gone, or the kernel says no: it does not get better by asking again.
                tracing::warn!(pid, error = format!("{error:#}"), "allocations are no longer sampled");
                drop(sampled.stop(monotonic_ns()));
            }
        }
        if self.shared.is_none_or(|shared| shared.elapsed() >= SHARE_INTERVAL) {
            self.shared = Some(Instant::now());
            self.share();
            self.forget(sampler);
        }
        Ok(())
    }

    /// Shares the budget of each process that was named with those that descend from it.
    fn share(&mut self) {
        let mut loads = HashMap::<u32, Vec<f64>>::new();
        for followed in self.followed.values() {
            loads.entry(followed.root).or_default().extend(followed.sampled.as_ref().map(|sampled| sampled.load));
        }
        for followed in self.followed.values_mut() {
            let loads = loads.get(&followed.root).into_iter().flatten().copied();
            if let Some(sampled) = &mut followed.sampled {
                sampled.probes.set_budget(budget::share(self.budget, loads));
            }
        }
    }

    /// Forgets what processes had allocated that have another program now, or are gone.
    fn forget(&mut self, sampler: &mut Sampler) {
        if !self.forgotten_ns.is_empty() {
            sampler.heaps().forget_live(&std::mem::take(&mut self.forgotten_ns));
        }
    }

    /// Ends sampling. What is in use now is what there is to report. Says when that was.
    pub fn stop(&mut self, sampler: &mut Sampler, live: bool) -> Result<u64> {
        self.look(sampler)?;
        self.forget(sampler);
        self.live = live.then(|| sampler.heaps().live());
        self.stopped_ns = monotonic_ns();
        self.seeker = None;
        for pid in self.followed.keys().copied().collect::<Vec<_>>() {
            self.release(pid, self.stopped_ns);
        }
        Ok(self.stopped_ns)
    }

    /// What was missed, by reason.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let short = "processes whose allocations were not sampled: they ended at once, or have no known allocator";
        let many = "processes whose allocations were not sampled: too many at once";
        let patched = "processes whose allocations were not sampled: their allocator is patched in memory";
        [(short, self.unsampled), (patched, self.refused), (many, self.too_many)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
    }

    /// Adds to a recording how allocations were sampled, and which of them are in use.
    pub fn report(&self, recorder: &mut Recorder, recording: &mut Recording) {
        let now_ns = if self.stopped_ns > 0 { self.stopped_ns } else { monotonic_ns() };
        let sampled = self.followed.iter().filter_map(|(pid, followed)| Some((*pid, followed.sampled.as_ref()?)));
        recording.heap.sample_bytes = self.options.sample_bytes;
        recording.heap.heaps = self.ended.iter().map(|(pid, heap)| (*pid, heap.clone())).collect();
        recording.heap.heaps.extend(sampled.map(|(pid, sampled)| (pid, sampled.heap(now_ns))));
        if let Some(live) = &self.live {
            recorder.add_live(recording, live);
        }
    }
}

fn with_hint(problem: anyhow::Error) -> anyhow::Error {
    match problem.downcast::<Refused>() {
        Ok(refused) => {
            let hint = "its allocations cannot be sampled; -e page-fault shows where its memory is first touched";
            Problem::new(Exit::Failure, refused.reason, hint).into()
        }
        Err(other) => other,
    }
}
