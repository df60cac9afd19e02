//! `Recording`: a stretch of the flight recorder, with all that is needed to name it later, also without its processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::growth::Growth;
use super::stacks::{Slot, Stack};
use crate::heap::{Allocators, Scale};
use crate::kernel::RawAllocation;
use crate::target::ThreadState;

/// A sample in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// User stack, if there is one.
    pub user: Option<Slot>,
    /// Kernel stack, if there is one.
    pub kernel: Option<Slot>,
    /// The time that it stands for, in nanoseconds.
    pub period_ns: u64,
}

/// Waits of a thread off its CPU, added up, in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When the last of them ended, `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What it did meanwhile.
    pub state: ThreadState,
    /// How many.
    pub count: u64,
    /// Their time together, in nanoseconds.
    pub total_ns: u64,
    /// User stack, if there is one.
    pub user: Option<Slot>,
    /// Kernel stack, if there is one.
    pub kernel: Option<Slot>,
    /// Who ended them, where that was asked for.
    pub waker: Option<Waker>,
}

/// A call of a timed function that took longer than its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCall {
    /// Number of the function.
    pub function: u32,
    /// When it began, `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// When it ended.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The goroutine whose call it was; 0 for a thread's.
    pub goroutine: u64,
    /// The stack that called it, with the function itself where its return was seen there.
    pub stack: Option<Slot>,
}

/// A sampled allocation, in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Bytes.
    pub size: u64,
    /// There was one sample point for so many bytes, on average; 0 for one that the allocator has published.
    pub mean: u64,
    /// How many bytes a published one stands for; 0 for others.
    pub weight: u64,
    /// User stack, if there is one.
    pub user: Option<Slot>,
}

/// A sampled allocation that is in use no more, in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What has ended.
    pub allocation: Allocation,
    /// When that was seen, `CLOCK_MONOTONIC`, nanoseconds.
    pub ended_ns: u64,
    /// Nobody saw it freed: its address was handed out again.
    pub is_reused: bool,
}

/// How the allocations of a process were sampled.
#[derive(Clone, Debug)]
pub struct Heap {
    /// Its allocators.
    pub allocators: Arc<Allocators>,
    /// When the probes were set.
    pub scale: Scale,
}

/// How allocations were sampled, and what is in use.
#[derive(Clone, Debug, Default)]
pub struct HeapRecord {
    /// One sample point for so many bytes, on average.
    pub sample_bytes: u64,
    /// By process id.
    pub heaps: HashMap<u32, Heap>,
    /// Sampled allocations that nobody has seen end; `None` where that is not followed.
    pub live: Option<Vec<Allocation>>,
    /// Of these, only what is at least so old is asked for, in nanoseconds.
    pub older_ns: u64,
    /// Those that ended in the time of the recording.
    pub ended: Vec<Ended>,
}

/// Who ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waker {
    /// The thread's name, zero-terminated.
    pub comm: [u8; 16],
    /// Its user stack, if there is one.
    pub user: Option<Slot>,
    /// Its kernel stack, if there is one.
    pub kernel: Option<Slot>,
}

impl Allocation {
    /// One whose stack is at `user`.
    pub(super) fn new(raw: &RawAllocation, user: Option<Slot>) -> Self {
        let RawAllocation { time_ns, pid, tid, size, mean, weight, user_stack: _ } = *raw;
        Self { time_ns, pid, tid, size, mean, weight, user }
    }
}

impl Wait {
    /// The part of it between two times; of several added up, which are of the second before, all or nothing.
    pub fn within(&self, from_ns: u64, to_ns: u64) -> Option<Self> {
        if self.count != 1 {
            return (from_ns..to_ns).contains(&self.time_ns).then_some(*self);
        }
        let since_ns = self.time_ns.saturating_sub(self.total_ns).max(from_ns);
        let time_ns = self.time_ns.min(to_ns);
        (since_ns < time_ns).then(|| Self { time_ns, total_ns: time_ns - since_ns, ..*self })
    }
}

/// Names of a thread and of its process, as they were last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// The thread's name.
    pub name: String,
}

/// A process in a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedProcess {
    /// Service name if one was given, else the command name.
    pub name: String,
    /// Path of the executable.
    pub exe: String,
    /// Command line.
    pub cmdline: String,
}

/// What a recording is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Events over a time.
    Events(Events),
    /// Every thread at one moment.
    Dump,
    /// Slow calls of timed functions, as the time they took.
    Calls,
    /// What was opened or started and is there still, as samples.
    Makings,
}

impl Default for Kind {
    fn default() -> Self {
        Self::Events(Events::default())
    }
}

/// What can be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// On which code CPU time is spent.
    pub cpu: bool,
    /// Where threads wait.
    pub off_cpu: bool,
    /// Where memory grows, by page faults.
    pub page_fault: bool,
    /// Where memory is allocated.
    pub malloc: bool,
}

/// Samples with what they refer to.
#[derive(Debug, Default)]
pub struct Recording {
    /// What was recorded.
    pub kind: Kind,
    /// What made the samples; empty without samples.
    pub clock: &'static str,
    /// Samples per second and CPU; 0 without samples.
    pub frequency: u64,
    /// Begin, `CLOCK_MONOTONIC` nanoseconds.
    pub from_ns: u64,
    /// End, `CLOCK_MONOTONIC` nanoseconds.
    pub to_ns: u64,
    /// In the order of their arrival.
    pub samples: Vec<Sample>,
    /// Waits, in the order of their arrival.
    pub waits: Vec<Wait>,
    /// Slow calls, in the order of their arrival.
    pub calls: Vec<SlowCall>,
    /// Goroutines of samples and waits that had one: by the thread and the time.
    pub goroutines: HashMap<(u32, u64), u64>,
    /// Time of calls in which nobody saw what was done, with the stack of the call; see [`Recording::inside_calls`].
    pub unseen: Vec<Wait>,
    /// Where memory has grown, in the order of time.
    pub growth: Vec<Growth>,
    /// Sampled allocations, in the order of their arrival.
    pub allocations: Vec<Allocation>,
    /// How they were sampled.
    pub heap: HeapRecord,
    /// The stacks of `samples`, `waits`, `calls`, `growth` and allocations. A missing one was lost on its way.
    pub stacks: HashMap<Slot, Arc<Stack>>,
    /// By process and thread id.
    pub threads: HashMap<(u32, u32), Thread>,
    /// By process id.
    pub processes: HashMap<u32, RecordedProcess>,
    /// What is missing: reason → count.
    pub losses: BTreeMap<String, u64>,
}
