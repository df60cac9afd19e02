//! Who opened a descriptor, who started a thread.

use super::{COMM_LEN, StackId, assert_packed};

/// Descriptors and threads of which it is known when they were made, as long as nobody has made another of the same number.
pub const MAX_MADE: u32 = 32 * 1024;

/// A process opened a descriptor, or started a thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OriginEvent {
    /// [`super::kind::ORIGIN`].
    pub kind: u32,
    /// How: [`made_by`].
    pub how: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread that did it.
    pub tid: u32,
    /// The descriptor, or the id of the new thread.
    pub number: u32,
    /// How many like this one it stands for.
    pub weight: u32,
    /// User stack; zero where none was taken.
    pub user_stack: StackId,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Values of [`OriginEvent::how`]: by which kind of call.
pub mod made_by {
    /// A thread was started.
    pub const THREAD: u32 = 0;
    /// `open` and its kind.
    pub const OPEN: u32 = 1;
    /// `socket`, `socketpair`.
    pub const SOCKET: u32 = 2;
    /// `accept`, `accept4`.
    pub const ACCEPT: u32 = 3;
    /// `pipe`, `pipe2`.
    pub const PIPE: u32 = 4;
    /// What has no file: `eventfd`, `epoll_create`, `timerfd_create`, `inotify_init`, `memfd_create` and so on.
    pub const ANONYMOUS: u32 = 5;
    /// `dup` and its kind, and what is not known: of whatever there is.
    pub const COPY: u32 = 6;
    /// How many there are.
    pub const COUNT: u32 = 7;
}

/// Where it is kept when a descriptor or a thread of a process was made: threads have ids of their own.
pub const fn made_key(tgid: u32, how: u32, number: u32) -> u64 {
    let number = number & (u32::MAX >> 1);
    let number = if how == made_by::THREAD { number | 1 << 31 } else { number };
    (tgid as u64) << 32 | number as u64
}

assert_packed! {
    OriginEvent { kind, how, time_ns, tgid, tid, number, weight, user_stack, comm }
}
