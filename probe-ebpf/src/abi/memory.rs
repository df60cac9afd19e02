//! Changes of a process's memory.

use super::{COMM_LEN, StackId, assert_packed};

/// The smallest page, in bytes.
pub const PAGE_BYTES: u64 = 4096;

/// A process's memory has changed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemoryEvent {
    /// [`super::kind::MEMORY`].
    pub kind: u32,
    /// [`memory_change`].
    pub change: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// First address of what has changed.
    pub start: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// Where it was, and how long, if it was moved.
    pub old_start: u64,
    /// As above.
    pub old_bytes: u64,
    /// How many changes like this one it stands for.
    pub count: u64,
    /// User stack; zero where none was taken.
    pub user_stack: StackId,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Values of [`MemoryEvent::change`].
pub mod memory_change {
    /// A page fault took a page. It stands for as many as were not looked at.
    pub const RESIDENT: u32 = 1;
    /// Address space was mapped.
    pub const MAPPED: u32 = 2;
    /// Address space was unmapped, with what was resident in it.
    pub const UNMAPPED: u32 = 3;
    /// What was resident is no more, and the address space remains.
    pub const RELEASED: u32 = 4;
    /// A mapping has another place or size.
    pub const MOVED: u32 = 5;
    /// The process has another program, and nothing of the memory that it had.
    pub const REPLACED: u32 = 6;
    /// A call has made the whole range resident, without page faults: whatever of it was not.
    pub const POPULATED: u32 = 7;
    /// The same with all that is mapped, and if `start` is not 0 with what will be.
    pub const LOCKED: u32 = 8;
}

assert_packed! {
    MemoryEvent { kind, change, time_ns, tgid, tid, start, bytes, old_start, old_bytes, count, user_stack, comm }
}
