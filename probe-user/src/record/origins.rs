//! `Origins`: who opened the descriptors that processes hold and who started their threads, of those processes of which that is
//! asked for. What was closed is found out when somebody wants to know.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Result;

use super::collector::Collector;
use super::recorder::Recorder;
use super::recording::{Kind, Recording, Sample};
use super::stacks::Slot;
use crate::kernel::{self, How, RawOrigin};
use crate::target::monotonic_ns;

/// What is kept of a process at most, and of all: some 60 bytes each. The oldest gives way.
const MAX_OF_PROCESS: usize = 16 * 1024;
const MAX_OF_ALL: usize = 64 * 1024;
/// Above so many stacks of a process no new ones are kept.
const MAX_STACKS: usize = 4096;

/// What a process has made and holds still, as far as was seen.
#[derive(Debug, Default)]
pub struct Makings {
    /// What there is of each of the recording's samples, in their order.
    pub made: Vec<Made>,
    /// Who made it: the value of a sample is how many it stands for.
    pub recording: Recording,
}

/// A descriptor that was opened, or a thread that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// How.
    pub how: How,
    /// The descriptor, or the id of the thread.
    pub number: u32,
    /// When, `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// How many like this one it stands for.
    pub weight: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Origins {
    processes: HashMap<u32, Of>,
    count: usize,
}

/// By whether it is a thread, and number.
type Key = (bool, u32);

#[derive(Debug, Default)]
struct Of {
    made: BTreeMap<Key, Origin>,
    /// How many of `made` refer to each.
    stacks: HashMap<Slot, u32>,
    threads: HashMap<u32, u32>,
}

#[derive(Debug)]
struct Origin {
    made: Made,
    tid: u32,
    user: Option<Slot>,
}

impl Of {
    fn add(&mut self, key: Key, origin: Origin) {
        *self.threads.entry(origin.tid).or_default() += 1;
        if let Some(slot) = origin.user {
            *self.stacks.entry(slot).or_default() += 1;
        }
        self.made.insert(key, origin);
    }

    /// Makes room: a sixteenth at once, so that it is not looked for the oldest each time. Says how many have gone.
    fn drop_oldest(&mut self) -> usize {
        let mut times: Vec<u64> = self.made.values().map(|origin| origin.made.time_ns).collect();
        let part = times.len() / 16;
        if times.is_empty() {
            return 0;
        }
        let (_, until_ns, _) = times.select_nth_unstable(part);
        let old = self.made.iter().filter(|(_, origin)| origin.made.time_ns <= *until_ns).map(|(key, _)| *key);
        let old: Vec<Key> = old.collect();
        old.into_iter().filter(|key| self.take(*key)).count()
    }

    fn take(&mut self, key: Key) -> bool {
        let Some(Origin { tid, user, .. }) = self.made.remove(&key) else { return false };
        release(&mut self.threads, tid);
        if let Some(slot) = user {
            release(&mut self.stacks, slot);
        }
        true
    }
}

fn release(counts: &mut HashMap<u32, u32>, key: u32) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Origins {
    /// Something was made; what had its number is gone.
    pub fn add(&mut self, raw: &RawOrigin, user: Option<Slot>) {
        let RawOrigin { time_ns, how, pid, tid, number, weight, .. } = *raw;
        let key = (how.is_thread(), number);
        if self.processes.get_mut(&pid).is_some_and(|of| of.take(key)) {
            self.count -= 1;
        }
        if self.count >= MAX_OF_ALL
            && let Some(most) = self.processes.values_mut().max_by_key(|of| of.made.len())
        {
            self.count -= most.drop_oldest();
        }
        let of = self.processes.entry(pid).or_default();
        if of.made.len() >= MAX_OF_PROCESS {
            self.count -= of.drop_oldest();
        }
        let has_room = |slot: &Slot| of.stacks.len() < MAX_STACKS || of.stacks.contains_key(slot);
        let user = user.filter(has_room);
        of.add(key, Origin { made: Made { how, number, time_ns, weight }, tid, user });
        self.count += 1;
    }

    /// A process is gone, or nobody asks any more.
    pub fn forget(&mut self, pid: u32) {
        self.count -= self.processes.remove(&pid).map_or(0, |of| of.made.len());
    }

    /// All stacks that are referred to.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.processes.values().flat_map(|of| of.stacks.keys().copied())
    }

    /// True for a process of which something is known.
    pub fn has_process(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// True for a thread that has made something.
    pub fn has_thread(&self, (pid, tid): (u32, u32)) -> bool {
        self.processes.get(&pid).is_some_and(|of| of.threads.contains_key(&tid))
    }

    /// What a process has made that is still what it was.
    fn of(&self, pid: u32, is_there: impl Fn(&Made) -> bool) -> Vec<(Made, Sample)> {
        let made = self.processes.get(&pid).into_iter().flat_map(|of| of.made.values());
        let there = made.filter(|origin| is_there(&origin.made));
        let known = there.map(|&Origin { made, tid, user }| {
            let period_ns = made.weight.into();
            (made, Sample { time_ns: made.time_ns, pid, tid, user, kernel: None, period_ns })
        });
        known.collect()
    }
}

impl Recorder {
    /// What a process has made and, as far as the kernel knows, not made anew since.
    fn makings(&self, pid: u32, kernel: &kernel::Origins, now_ns: u64) -> Makings {
        let is_there = |made: &Made| kernel.is_latest(pid, made.how, made.number, made.time_ns);
        let (made, samples): (Vec<Made>, Vec<Sample>) = self.pins.origins.of(pid, is_there).into_iter().unzip();
        let from_ns = made.iter().map(|made| made.time_ns).min().unwrap_or(now_ns);
        let mut recording = Recording { kind: Kind::Makings, from_ns, to_ns: now_ns, ..Recording::default() };
        self.add_names(&mut recording, &samples);
        Makings { made, recording: Recording { samples, ..recording } }
    }
}

impl Collector {
    /// Asks of a watched process who starts its threads and who opens its descriptors, from now on, or no longer.
    pub fn ask_origins(&self, pid: u32, threads: bool, descriptors: bool) -> Result<()> {
        self.ask(move |state| {
            // The stacks that are on their way belong to the samples before.
            state.read(Duration::ZERO)?;
            if !threads && !descriptors {
                state.recorder.pins.origins.forget(pid);
            }
            state.sampler.set_origins(pid, threads, descriptors)
        })?
    }

    /// What a process has made since that is asked for, and holds still, as far as was seen. It lives.
    pub fn makings(&self, pid: u32) -> Result<Makings> {
        self.ask(move |state| {
            state.read(Duration::ZERO)?;
            Ok(state.recorder.makings(pid, state.sampler.origins(), monotonic_ns()))
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::StackId;

    fn raw(pid: u32, how: How, number: u32, time_ns: u64) -> RawOrigin {
        RawOrigin { time_ns, how, pid, tid: 8, number, weight: 1, user_stack: StackId::NONE, comm: [0; 16] }
    }

    #[test]
    fn the_latest_of_a_number_is_what_there_is() {
        let mut origins = Origins::default();
        origins.add(&raw(7, How::Open, 3, 1), Some(1));
        origins.add(&raw(7, How::Socket, 3, 2), Some(2));
        origins.add(&raw(7, How::Thread, 3, 3), Some(2));
        let made: Vec<How> = origins.of(7, |_| true).into_iter().map(|(made, _)| made.how).collect();
        assert_eq!((made, origins.count), (vec![How::Socket, How::Thread], 2));
        assert_eq!(origins.slots().collect::<Vec<_>>(), [2]);
        assert!(origins.of(7, |made| made.time_ns == 1).is_empty());
        assert!(origins.has_thread((7, 8)) && !origins.has_thread((7, 9)));
        origins.forget(7);
        assert!(!origins.has_process(7) && origins.count == 0 && origins.slots().next().is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut origins = Origins::default();
        for pid in 1..=5 {
            for number in 0..2 * MAX_OF_PROCESS as u32 {
                origins.add(&raw(pid, How::Open, number, number.into()), Some(number));
            }
        }
        assert!((MAX_OF_ALL * 7 / 8..=MAX_OF_ALL).contains(&origins.count));
        assert_eq!(origins.count, origins.processes.values().map(|of| of.made.len()).sum::<usize>());
        assert!(origins.processes[&1].made.len() < MAX_OF_PROCESS, "whoever has most gives way to others");
        let of = &origins.processes[&5];
        assert!(of.made.len() <= MAX_OF_PROCESS && of.stacks.len() <= MAX_STACKS);
        assert!(of.made.contains_key(&(false, 2 * MAX_OF_PROCESS as u32 - 1)), "the oldest gave way");
    }
}
