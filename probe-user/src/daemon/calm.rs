//! When is all well? Once in a while, the processes of which no rule was broken or pending lately.

use std::collections::{BTreeMap, BTreeSet};

/// See the head of this file. Times are nanoseconds of the monotonic clock.
#[derive(Debug)]
pub(super) struct Calm {
    /// How long a stretch is.
    stretch_ns: u64,
    /// When something of a process was last not normal, or nothing was known of it.
    disturbed_ns: BTreeMap<u32, u64>,
    asked_ns: u64,
}

impl Calm {
    /// Of no process yet.
    pub(super) fn new(stretch_ns: u64, now_ns: u64) -> Self {
        Self { stretch_ns, disturbed_ns: BTreeMap::new(), asked_ns: now_ns }
    }

    /// A process is watched from now on, or something of it is not normal.
    pub(super) fn disturb(&mut self, pid: u32, now_ns: u64) {
        self.disturbed_ns.insert(pid, now_ns);
    }

    /// A process is gone.
    pub(super) fn forget(&mut self, pid: u32) {
        self.disturbed_ns.remove(&pid);
    }

    /// At the end of a stretch: its start, and the processes that were calm in all of it.
    pub(super) fn stretch(&mut self, now_ns: u64) -> Option<(u64, BTreeSet<u32>)> {
        if now_ns.saturating_sub(self.asked_ns) < self.stretch_ns {
            return None;
        }
        self.asked_ns = now_ns;
        let from_ns = now_ns - self.stretch_ns;
        let calm = self.disturbed_ns.iter().filter(|(_, since_ns)| **since_ns <= from_ns);
        let calm: BTreeSet<u32> = calm.map(|(&pid, _)| pid).collect();
        (!calm.is_empty()).then_some((from_ns, calm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_disturbed_lately_is_not_calm() {
        let mut calm = Calm::new(60, 1000);
        for (pid, now_ns) in [(1, 1000), (2, 1000), (3, 1010), (2, 1030)] {
            calm.disturb(pid, now_ns);
        }
        assert_eq!(calm.stretch(1059), None, "too early");
        assert_eq!(calm.stretch(1061), Some((1001, BTreeSet::from([1]))));
        assert_eq!(calm.stretch(1100), None, "one stretch after the other");
        calm.forget(1);
        assert_eq!(calm.stretch(1121), Some((1061, BTreeSet::from([2, 3]))));
    }
}
