//! Dumps: every thread of a process at one moment.

use super::{COMM_LEN, StackId, assert_packed};

/// A thread in a dump: `kernel_frames`, then `user_frames` addresses (`u64`, leaf first) follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadRecord {
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// `task_struct.__state`, with [`thread_flags`] beside it.
    pub state: u32,
    /// [`thread_flags`].
    pub flags: u32,
    /// CPU time it has used, in nanoseconds.
    pub runtime_ns: u64,
    /// CPU time it had used when it last came onto a CPU, in nanoseconds.
    pub runtime_at_arrival_ns: u64,
    /// When it last came onto a CPU, by the scheduler's clock in nanoseconds.
    pub arrival_ns: u64,
    /// Since when it waits for a CPU by the scheduler's clock in nanoseconds; 0 if it does not.
    pub queued_ns: u64,
    /// `arrival_ns` of the thread that reads the dump: the present by the scheduler's clock, if it slept just before.
    pub reader_arrival_ns: u64,
    /// Identity of the user stack.
    pub user_stack: StackId,
    /// Identity of the kernel stack.
    pub kernel_stack: StackId,
    /// Addresses of the user stack.
    pub user_frames: u32,
    /// Addresses of the kernel stack.
    pub kernel_frames: u32,
    /// [`crate::unwind::End`] of the user stack as a number.
    pub user_end: u32,
    /// [`super::stack_flags`] of the user stack.
    pub stack_flags: u32,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Bits of [`ThreadRecord::flags`].
pub mod thread_flags {
    /// It is on a CPU: its registers are not in memory, and no stacks follow.
    pub const ON_CPU: u32 = 1;
    /// It has exited.
    pub const EXITED: u32 = 2;
}

/// What a dump shall have.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpRequest {
    /// The process; 0 for all targets.
    pub tgid: u32,
    /// 1: with stacks.
    pub stacks: u32,
}

assert_packed! {
    ThreadRecord {
        tgid, tid, state, flags, runtime_ns, runtime_at_arrival_ns, arrival_ns, queued_ns, reader_arrival_ns, user_stack,
        kernel_stack, user_frames, kernel_frames, user_end, stack_flags, comm,
    }
    DumpRequest { tgid, stacks }
}
