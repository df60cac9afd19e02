//! Samples and stacks: what was seen of a thread on a CPU, and the frames that it refers to.

use super::{COMM_LEN, assert_packed};

/// Longest user stack, in frames.
pub const MAX_FRAMES: usize = 1024;
/// Set in the address of a frame of user code that a signal interrupted: the instruction itself, not a return address. No
/// user address is that high.
pub const EXACT_FRAME: u64 = 1 << 63;
/// Longest kernel stack, in frames: the default of the `kernel.perf_event_max_stack` sysctl, which caps `bpf_get_stack`.
pub const MAX_KERNEL_FRAMES: usize = 127;
/// Distinct stacks that the kernel remembers to have sent. An evicted one travels again, which is harmless.
pub const MAX_SEEN_STACKS: u32 = 32 * 1024;

/// Identity of a stack: a 128-bit hash of its frames and of whose they are. All zero means "no stack".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId {
    /// Lower half.
    pub lo: u64,
    /// Upper half.
    pub hi: u64,
}

impl StackId {
    /// No stack.
    pub const NONE: Self = Self { lo: 0, hi: 0 };
}

/// A thread was seen on a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SampleEvent {
    /// [`super::kind::SAMPLE`].
    pub kind: u32,
    /// CPU it ran on.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// The goroutine that it runs, address of its `runtime.g`; 0 where goroutines are not asked for.
    pub goroutine: u64,
    /// What the sample stands for: time on the CPU, in nanoseconds.
    pub value: u64,
    /// User stack; zero for a kernel thread or where it was not asked for.
    pub user_stack: StackId,
    /// Kernel stack; zero when the thread was in user mode.
    pub kernel_stack: StackId,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// The frames of a stack; `frame_count` addresses (`u64`, leaf first) follow this header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StackEvent {
    /// [`super::kind::STACK`].
    pub kind: u32,
    /// How many addresses follow, at most [`MAX_FRAMES`].
    pub frame_count: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds, that of the sample.
    pub time_ns: u64,
    /// Identity.
    pub id: StackId,
    /// Process that the addresses belong to; 0 for a kernel stack.
    pub tgid: u32,
    /// The process's [`super::Target::epoch`] when the stack was taken.
    pub epoch: u32,
    /// [`crate::unwind::End`] as a number.
    pub end: u32,
    /// [`stack_flags`].
    pub flags: u32,
}

/// Bits of [`StackEvent::flags`].
pub mod stack_flags {
    /// Code without unwind information was crossed by its frame pointer: a guess.
    pub const GUESSED: u32 = 1;
    /// Code without unwind information was crossed by rows that were derived from its instructions.
    pub const DERIVED: u32 = 2;
}

assert_packed! {
    StackId { lo, hi }
    SampleEvent { kind, cpu, time_ns, tgid, tid, goroutine, value, user_stack, kernel_stack, comm }
    StackEvent { kind, frame_count, time_ns, id, tgid, epoch, end, flags }
}
