//! `Baselines`: what processes do when all is well, to compare a breach with. Of each the latest calm stretches are kept; the
//! baseline is that which suits a breach best, and among equals the typical one: an hourly job that was at work in one of them,
//! or a quiet minute, is not.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::recording::{Recording, Sample, Wait};
use super::reference::Reference;

/// Stretches of a process that are kept: with one in a minute, as many minutes.
const STRETCHES: usize = 9;

/// A calm stretch of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Its start and its end, nanoseconds of the monotonic clock.
    pub from_ns: u64,
    /// See there.
    pub to_ns: u64,
    /// Processors at work for the process, on average.
    pub load: f64,
}

impl From<&Recording> for Stretch {
    fn from(recording: &Recording) -> Self {
        let Recording { from_ns, to_ns, samples, .. } = recording;
        let at_work: u64 = samples.iter().map(|sample| sample.period_ns).sum();
        let load = at_work as f64 / to_ns.saturating_sub(*from_ns).max(1) as f64;
        Self { from_ns: *from_ns, to_ns: *to_ns, load }
    }
}

/// The calm stretches of processes.
#[derive(Debug)]
pub struct Baselines {
    of: BTreeMap<u32, VecDeque<Arc<Recording>>>,
    /// How many stretches hold a stack, by its address: most are the same in all.
    held: HashMap<usize, u32>,
    /// Bound on `bytes`.
    memory: usize,
    bytes: usize,
}

impl Baselines {
    /// None yet. What is kept takes at most `memory` bytes.
    pub fn new(memory: usize) -> Self {
        Self { of: BTreeMap::new(), held: HashMap::new(), memory, bytes: 0 }
    }

    /// Takes in what was seen of all processes in a stretch of time that was calm for these.
    pub fn add(&mut self, recording: &Recording, calm: &BTreeSet<u32>) {
        let mut parts: BTreeMap<u32, Recording> = calm.iter().map(|&pid| (pid, part(recording, pid))).collect();
        let is_of = |pid: u32| calm.contains(&pid);
        for sample in recording.samples.iter().filter(|sample| is_of(sample.pid)) {
            parts.entry(sample.pid).or_default().samples.push(*sample);
        }
        for wait in recording.waits.iter().filter(|wait| is_of(wait.pid)) {
            parts.entry(wait.pid).or_default().waits.push(*wait);
        }
        for (pid, mut part) in parts {
            let (samples, waits) = (part.samples.iter().map(Reference::from), part.waits.iter().map(Reference::from));
            let slots: BTreeSet<_> = samples.chain(waits).flat_map(|reference| reference.slots()).collect();
            let stack = |slot| Some((slot, recording.stacks.get(&slot)?.clone()));
            part.stacks = slots.into_iter().filter_map(stack).collect();
            part.samples.shrink_to_fit();
            part.waits.shrink_to_fit();
            self.hold(&part);
            let stretches = self.of.entry(pid).or_default();
            stretches.push_back(Arc::new(part));
            if stretches.len() > STRETCHES {
                let oldest = stretches.pop_front();
                self.release(oldest);
            }
        }
        while self.bytes > self.memory {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.of.iter().min_by_key(|(_, stretches)| stretches.front().map(|stretch| stretch.from_ns));
        let Some(pid) = oldest.map(|(&pid, _)| pid) else { return };
        let stretches = self.of.entry(pid).or_default();
        let oldest = stretches.pop_front();
        if stretches.is_empty() {
            self.of.remove(&pid);
        }
        self.release(oldest);
    }

    fn hold(&mut self, stretch: &Recording) {
        self.bytes += bytes(stretch);
        for stack in stretch.stacks.values() {
            let holders = self.held.entry(Arc::as_ptr(stack) as usize).or_default();
            self.bytes += if *holders == 0 { stack.bytes() } else { 0 };
            *holders += 1;
        }
    }

    fn release(&mut self, stretches: impl IntoIterator<Item = Arc<Recording>>) {
        for stretch in stretches {
            self.bytes -= bytes(&stretch);
            for stack in stretch.stacks.values() {
                let address = Arc::as_ptr(stack) as usize;
                let Some(holders) = self.held.get_mut(&address) else { continue };
                *holders -= 1;
                if *holders == 0 {
                    self.held.remove(&address);
                    self.bytes -= stack.bytes();
                }
            }
        }
    }

    /// How many stretches of a process are kept.
    pub fn count(&self, pid: u32) -> usize {
        self.of.get(&pid).map_or(0, VecDeque::len)
    }

    /// The stretch of a process that suits best; among equals the typical one, the median by samples: of an even number the
    /// busier one of the two in the middle.
    pub fn best(&self, pid: u32, suits: impl Fn(&Stretch) -> f64) -> Option<Arc<Recording>> {
        let stretches = self.of.get(&pid)?;
        let suits: Vec<f64> = stretches.iter().map(|stretch| suits(&Stretch::from(&**stretch))).collect();
        let most = suits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let best = stretches.iter().zip(suits).filter(|(_, suits)| *suits >= most);
        let mut best: Vec<&Arc<Recording>> = best.map(|(stretch, _)| stretch).collect();
        best.sort_by_key(|stretch| stretch.samples.len());
        best.get(best.len() / 2).copied().cloned()
    }

    /// Forgets a process that is gone.
    pub fn forget(&mut self, pid: u32) {
        let gone = self.of.remove(&pid).unwrap_or_default();
        self.release(gone);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The part of a recording that is a process's, without its samples and stacks.
fn part(recording: &Recording, pid: u32) -> Recording {
    let Recording { from_ns, to_ns, kind, clock, frequency, .. } = *recording;
    let threads = recording.threads.iter().filter(|((process, _), _)| *process == pid);
    Recording {
        from_ns,
        to_ns,
        kind,
        clock,
        frequency,
        threads: threads.map(|(&id, thread)| (id, thread.clone())).collect(),
        processes: recording.processes.get(&pid).map(|process| (pid, process.clone())).into_iter().collect(),
        ..Recording::default()
    }
}

fn bytes(recording: &Recording) -> usize {
    size_of::<Recording>()
        + recording.samples.len() * size_of::<Sample>()
        + recording.waits.len() * size_of::<Wait>()
        // An entry of a hash table each.
        + recording.stacks.len() * 32
        + recording.threads.len() * 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::End;
    use crate::record::{Frame, Space, Stack};

    fn minute(number: u64, samples: &[(u32, usize)]) -> Recording {
        let sample = |pid| Sample { time_ns: number * 60, pid, tid: pid, user: Some(0), kernel: None, period_ns: 1 };
        let samples = samples.iter().flat_map(|&(pid, count)| std::iter::repeat_n(sample(pid), count)).collect();
        let frames = vec![Frame { module: None, offset: 1 }; 100].into();
        let stack = Arc::new(Stack { space: Space::User, frames, end: End::Root, guessed: false, derived: false });
        let (from_ns, to_ns) = (number * 60, number * 60 + 60);
        Recording { from_ns, to_ns, samples, stacks: [(0, stack)].into(), ..Recording::default() }
    }

    #[test]
    fn the_typical_minute_is_neither_the_busiest_nor_the_quietest() {
        let mut baselines = Baselines::new(1 << 20);
        let calm = BTreeSet::from([7]);
        for (number, count) in (0..).zip([10, 900, 12, 0, 11]) {
            baselines.add(&minute(number, &[(7, count), (8, 5)]), &calm);
        }
        let typical = baselines.best(7, |_| 0.0).expect("known");
        assert_eq!((typical.samples.len(), typical.from_ns, baselines.count(7)), (11, 4 * 60, 5));
        assert!(typical.samples.iter().all(|sample| sample.pid == 7));
        let busiest = baselines.best(7, |stretch| stretch.load).expect("known");
        assert_eq!(busiest.samples.len(), 900, "unless it suits best");
        assert!(baselines.best(8, |_| 0.0).is_none() && baselines.count(8) == 0, "that one was not calm");
        baselines.forget(7);
        assert!(baselines.best(7, |_| 0.0).is_none() && baselines.bytes() == 0);
    }

    #[test]
    fn a_stack_that_several_hold_is_counted_once() {
        let mut baselines = Baselines::new(1 << 20);
        let both = minute(1, &[(7, 1), (8, 1)]);
        baselines.add(&both, &BTreeSet::from([7]));
        let one = baselines.bytes();
        baselines.add(&both, &BTreeSet::from([8]));
        assert!(one > 1700 && baselines.bytes() < 2 * one - 1500, "{one} {}", baselines.bytes());
        baselines.forget(7);
        assert_eq!(baselines.bytes(), one);
    }

    #[test]
    fn only_the_latest_are_kept_and_no_more_than_fit() {
        let mut baselines = Baselines::new(1 << 20);
        for number in 0..40 {
            baselines.add(&minute(number, &[(7, 10), (8, 10)]), &BTreeSet::from([7, 8]));
        }
        let oldest = |baselines: &Baselines, pid| baselines.of[&pid].front().map(|minute| minute.from_ns / 60);
        assert_eq!((oldest(&baselines, 7), baselines.of[&7].len()), (Some(31), STRETCHES));
        let mut small = Baselines::new(baselines.bytes() / 2);
        for number in 0..40 {
            small.add(&minute(number, &[(7, 10), (8, 10)]), &BTreeSet::from([7, 8]));
        }
        assert!(small.bytes() <= baselines.bytes() / 2 && small.of[&8].len() >= 4, "{small:?}");
    }
}
