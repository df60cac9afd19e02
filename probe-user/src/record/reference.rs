//! `Reference`: what an event in a window refers to, so that it is kept and named, whatever kind of event it is.

use super::growth::{Change, Growth};
use super::recording::{Allocation, Ended, Sample, SlowCall, Wait, Waker};
use super::stacks::Slot;

/// Who did something when, and on which stacks.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process and thread.
    pub thread: (u32, u32),
    /// Own stacks, then those of who ended a wait.
    stacks: [Option<Slot>; 4],
}

impl Reference {
    /// The stacks.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        self.stacks.into_iter().flatten()
    }
}

impl From<&Sample> for Reference {
    fn from(&Sample { time_ns, pid, tid, user, kernel, .. }: &Sample) -> Self {
        Self { time_ns, thread: (pid, tid), stacks: [user, kernel, None, None] }
    }
}

impl From<&Wait> for Reference {
    fn from(&Wait { time_ns, pid, tid, user, kernel, waker, .. }: &Wait) -> Self {
        let [waker, waker_kernel] = waker.map(|Waker { user, kernel, .. }| [user, kernel]).unwrap_or_default();
        Self { time_ns, thread: (pid, tid), stacks: [user, kernel, waker, waker_kernel] }
    }
}

impl From<&SlowCall> for Reference {
    fn from(&SlowCall { time_ns, pid, tid, stack, .. }: &SlowCall) -> Self {
        Self { time_ns, thread: (pid, tid), stacks: [stack, None, None, None] }
    }
}

impl From<&Change> for Reference {
    fn from(&Change { time_ns, pid, tid, user, .. }: &Change) -> Self {
        Self { time_ns, thread: (pid, tid), stacks: [user, None, None, None] }
    }
}

impl From<&Growth> for Reference {
    fn from(&Growth { time_ns, pid, tid, user, .. }: &Growth) -> Self {
        Self { time_ns, thread: (pid, tid), stacks: [user, None, None, None] }
    }
}

impl From<&Ended> for Reference {
    fn from(Ended { allocation, ended_ns, .. }: &Ended) -> Self {
        Self { time_ns: *ended_ns, ..Self::from(allocation) }
    }
}

impl From<&Allocation> for Reference {
    fn from(&Allocation { time_ns, pid, tid, user, .. }: &Allocation) -> Self {
        Self { time_ns, thread: (pid, tid), stacks: [user, None, None, None] }
    }
}
