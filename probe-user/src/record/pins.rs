//! `Pins`: what allocations that are in use and [`Origins`] refer to, kept for longer than the windows in which they were made:
//! their stacks and the names of their threads. Bounded; what does not fit leaves with its window, and is then told as lost.

use std::collections::{HashMap, HashSet};

use super::origins::Origins;
use super::stacks::Slot;
use crate::kernel::StackId;

/// Distinct stacks that are kept for a process: of 50 frames each, some 10 MB.
const MAX_STACKS: usize = 8 * 1024;
/// Threads whose names are kept for a process.
const MAX_THREADS: usize = 4096;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Pins {
    /// Who made what processes hold.
    pub origins: Origins,
    processes: HashMap<u32, Pinned>,
}

#[derive(Debug, Default)]
struct Pinned {
    stacks: HashMap<StackId, Slot>,
    threads: HashSet<u32>,
}

impl Pins {
    /// From now on what the allocations of a process refer to is kept.
    pub fn begin(&mut self, pid: u32) {
        self.processes.insert(pid, Pinned::default());
    }

    /// It is kept no longer.
    pub fn end(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// An allocation was sampled.
    pub fn add(&mut self, pid: u32, tid: u32, (id, slot): (StackId, Option<Slot>)) {
        let Some(pinned) = self.processes.get_mut(&pid) else { return };
        if let Some(slot) = slot
            && (pinned.stacks.len() < MAX_STACKS || pinned.stacks.contains_key(&id))
        {
            // The same identity may mean another stack by now: the latest is the one that most refer to.
            pinned.stacks.insert(id, slot);
        }
        if pinned.threads.len() < MAX_THREADS {
            pinned.threads.insert(tid);
        }
    }

    /// Where the stack of an allocation of a process is, if it is kept.
    pub fn slot(&self, pid: u32, id: StackId) -> Option<Slot> {
        self.processes.get(&pid)?.stacks.get(&id).copied()
    }

    /// All stacks that are kept.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.processes.values().flat_map(|pinned| pinned.stacks.values().copied()).chain(self.origins.slots())
    }

    /// True for a process of which something is kept.
    pub fn has_process(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid) || self.origins.has_process(pid)
    }

    /// True for a thread whose name is kept.
    pub fn has_thread(&self, (pid, tid): (u32, u32)) -> bool {
        self.processes.get(&pid).is_some_and(|pinned| pinned.threads.contains(&tid))
            || self.origins.has_thread((pid, tid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_followed_is_kept_within_bounds_until_the_end() {
        let mut pins = Pins::default();
        let id = |lo: u64| StackId { lo, hi: 1 };
        pins.add(7, 8, (id(1), Some(1)));
        assert!(!pins.has_process(7) && pins.slots().next().is_none(), "nobody follows it");
        pins.begin(7);
        for number in 0..2 * MAX_STACKS as u32 {
            pins.add(7, number, (id(number.into()), Some(number)));
        }
        pins.add(7, 1, (id(2), Some(900_000)));
        assert_eq!((pins.slots().count(), pins.slot(7, id(2))), (MAX_STACKS, Some(900_000)));
        assert!(pins.has_thread((7, 1)) && !pins.has_thread((7, 2 * MAX_THREADS as u32)));
        assert_eq!((pins.slot(7, id(2 * MAX_STACKS as u64)), pins.slot(8, id(2))), (None, None));
        pins.end(7);
        assert!(!pins.has_process(7) && pins.slots().next().is_none());
    }
}
