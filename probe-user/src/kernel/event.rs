//! What the kernel tells of, by numbers: nothing is named yet, and stacks are identities.

use std::ffi::OsString;

use probe_ebpf::abi::{COMM_LEN, StackId, Sum, Wait, Waker};
use probe_ebpf::unwind::End;

use super::origins::RawOrigin;
use crate::target::{Mapping, ThreadState};
use crate::text::{sanitize, until_zero};

/// What the kernel reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A target's thread was on a CPU.
    Sample(RawSample),
    /// A target's thread waited.
    Wait(RawWait),
    /// A call of a timed function was slow.
    Call(RawCall),
    /// A target's memory has changed.
    Memory(RawMemory),
    /// A target opened a descriptor or started a thread.
    Origin(RawOrigin),
    /// A target's thread of this name allocated memory, and was sampled.
    Allocation(RawAllocation, [u8; COMM_LEN]),
    /// A sampled allocation is in use no more.
    AllocationEnd(RawAllocationEnd),
    /// The frames of a stack, once.
    Stack(RawStack),
    /// A process replaced its program.
    Exec {
        /// Process.
        pid: u32,
        /// When, `CLOCK_MONOTONIC`, nanoseconds.
        time_ns: u64,
        /// The path given to `execve`.
        path: OsString,
    },
    /// A process was created.
    Fork {
        /// Process that forked.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// A process ended.
    Exit {
        /// Process.
        pid: u32,
    },
    /// A process is no target any more, because it replaced its program too often. It is a newcomer again.
    SetAside {
        /// Process.
        pid: u32,
    },
    /// A process has come that may have to be watched, see [`super::Options::newcomers`].
    Newcomer(super::Newcomer),
    /// A process is replacing its program: from here on its mappings are those of the new one. [`Event::Exec`] follows
    /// when they have been made.
    NewImage {
        /// Process.
        pid: u32,
    },
    /// A process mapped executable memory.
    Map {
        /// Process.
        pid: u32,
        /// `CLOCK_MONOTONIC`, nanoseconds.
        time_ns: u64,
        /// What it mapped.
        mapping: Mapping,
    },
}

/// A sample as the kernel took it: stacks by identity, nothing named.
#[derive(Clone, Debug, PartialEq)]
pub struct RawSample {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// CPU.
    pub cpu: u32,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The goroutine that it ran, where that is known; else 0.
    pub goroutine: u64,
    /// What the sample stands for: time on the CPU, in nanoseconds.
    pub value: u64,
    /// User stack.
    pub user_stack: StackId,
    /// Kernel stack.
    pub kernel_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// A change of a process's memory as the kernel told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RawMemory {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What has changed.
    pub change: MemoryChange,
    /// First address of it.
    pub start: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// How many changes like this one it stands for.
    pub count: u64,
    /// User stack.
    pub user_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// How a process's memory changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryChange {
    /// A page fault took a page.
    Resident,
    /// Address space was mapped.
    Mapped,
    /// Address space was unmapped.
    Unmapped,
    /// What was resident in some address space is no more.
    Released,
    /// All of it is gone: the process has another program.
    Replaced,
    /// A call has made all of it resident, without page faults.
    Populated,
    /// A call has made all that is mapped resident.
    Locked {
        /// And so will be what is mapped later.
        with_future: bool,
    },
    /// A mapping has another place or size.
    Moved {
        /// Its first address before.
        old_start: u64,
        /// Its length before, in bytes.
        old_bytes: u64,
    },
}

/// A sampled allocation, as the kernel took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAllocation {
    /// When it was made, `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// The thread that made it.
    pub tid: u32,
    /// Bytes.
    pub size: u64,
    /// There was one sample point for so many bytes, on average; 0 for one that the allocator has published.
    pub mean: u64,
    /// How many bytes a published one stands for; 0 for others.
    pub weight: u64,
    /// User stack: its first frame is the function of the allocator.
    pub user_stack: StackId,
}

/// The end of a sampled allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAllocationEnd {
    /// What has ended.
    pub allocation: RawAllocation,
    /// When that was seen, `CLOCK_MONOTONIC`, nanoseconds.
    pub ended_ns: u64,
    /// Nobody saw it freed: its address was handed out again.
    pub is_reused: bool,
}

/// Waits of a thread with the same stacks, as the kernel added them up.
#[derive(Clone, Debug, PartialEq)]
pub struct RawWait {
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
    /// The goroutine that the thread had meanwhile, or that waited itself; 0 if none is known.
    pub goroutine: u64,
    /// User stack.
    pub user_stack: StackId,
    /// Kernel stack.
    pub kernel_stack: StackId,
    /// Who woke it, where that is asked for and known.
    pub waker: Option<RawWaker>,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// A call of a timed function that took longer than its threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct RawCall {
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
    /// User stack at its end.
    pub user_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// Who ended a wait.
#[derive(Clone, Debug, PartialEq)]
pub struct RawWaker {
    /// Process; 0 when the CPU was idle: an interrupt did it.
    pub pid: u32,
    /// Its user stack.
    pub user_stack: StackId,
    /// Its kernel stack.
    pub kernel_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// A stack as the kernel took it: addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct RawStack {
    /// Identity.
    pub id: StackId,
    /// When it was taken, `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process that the addresses belong to; `None` for a kernel stack.
    pub pid: Option<u32>,
    /// Why it ends.
    pub end: End,
    /// Code without unwind information was crossed by its frame pointer.
    pub guessed: bool,
    /// Code without unwind information was crossed by rows that were derived from its instructions.
    pub derived: bool,
    /// Addresses, leaf first.
    pub frames: Vec<u64>,
}

impl RawWait {
    /// From what crosses the kernel boundary.
    pub(super) fn new(tid: u32, pid: u32, wait: &Wait, comm: [u8; COMM_LEN]) -> Self {
        let Wait { user_stack, kernel_stack, waker, sum: Sum { last_ns, total_ns, count, state } } = *wait;
        let Waker { tgid, tid: waker_tid, user_stack: waker_user, kernel_stack: waker_kernel, comm: waker_comm } =
            waker;
        // An idle CPU has a stack, though no thread.
        let is_known = waker_tid != 0 || waker_kernel != StackId::NONE;
        Self {
            time_ns: last_ns,
            pid,
            tid,
            state: ThreadState::waiting(state),
            count: count.into(),
            total_ns,
            goroutine: 0,
            user_stack,
            kernel_stack,
            waker: is_known.then_some(RawWaker {
                pid: tgid,
                user_stack: waker_user,
                kernel_stack: waker_kernel,
                comm: waker_comm,
            }),
            comm,
        }
    }
}

/// A thread's name as text: what is before the zero, sanitized.
pub fn thread_name(comm: &[u8]) -> String {
    sanitize(&String::from_utf8_lossy(until_zero(comm)))
}
