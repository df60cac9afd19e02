//! Processes that come and go, and those that are sampled.

use super::assert_packed;

/// Longest path in an [`ExecEvent`], with the terminating zero; longer ones are cut.
pub const MAX_PATH: usize = 256;
/// Processes that can be targets at once.
pub const MAX_TARGETS: u32 = 16 * 1024;
/// Newcomers that can be kept at once. Those that do not fit are found when all processes are looked at.
pub const MAX_NEWCOMERS: u32 = 16 * 1024;

/// Where processes come and go all the time, events about that are read once in this time, in nanoseconds.
pub const MAX_DELAY_NS: u64 = 10_000_000;

/// A process replaced its program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExecEvent {
    /// [`super::kind::EXEC`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// The path given to `execve`, zero-terminated.
    pub path: [u8; MAX_PATH],
}

/// A process was created (not a thread).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForkEvent {
    /// [`super::kind::FORK`].
    pub kind: u32,
    /// Process that forked.
    pub parent: u32,
    /// The new process.
    pub child: u32,
    /// Zero.
    pub padding: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
}

/// The last thread of a process exited.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExitEvent {
    /// [`super::kind::EXIT`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
}

/// A process is no target any more, because it replaced its program too often: it is a [`Newcomer`] again.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SetAsideEvent {
    /// [`super::kind::SET_ASIDE`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
}

/// A process that may become a target: it has replaced its program, or is the child of a target. In a flood user space is not
/// told of all of them, see [`Newcomer`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NewcomerEvent {
    /// [`super::kind::NEWCOMER`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// Process that made it; 0 where that is not known.
    pub parent: u32,
    /// How many of the same parent were not told of since the last that was.
    pub passed_over: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
}

/// Key: tgid. A process that may become a target and was not told of: it is kept until user space looks at those that have stayed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Newcomer {
    /// Process that made it; 0 where that is not known.
    pub parent: u32,
    /// Zero.
    pub padding: u32,
    /// When that was, `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
}

/// Key: tgid. A process that is sampled.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Changes at every exec, and only the kernel changes it. It is part of a stack's identity: the same address means
    /// something else in another program.
    pub epoch: u32,
    /// [`target_flags`].
    pub flags: u32,
}

/// Bits of [`Target::flags`].
pub mod target_flags {
    /// Children become targets as well.
    pub const INHERIT: u32 = 1;
    /// Not sampled itself, but its children become targets when they exec (`probe record -- CMD`).
    pub const SPAWNER: u32 = 2;
    /// Not sampled before its next exec.
    pub const AWAITS_EXEC: u32 = 4;
    /// Sampled by the faster of the two samplers, and not by the other.
    pub const FAST: u32 = 8;
    /// Nobody asks where its threads wait.
    pub const NO_WAITS: u32 = 16;
    /// Asked is only for waits that nothing may interrupt: for storage mostly.
    pub const BLOCKED_WAITS: u32 = 32;
    /// Asked is who starts its threads.
    pub const THREADS: u32 = 64;
    /// Asked is who opens its descriptors.
    pub const DESCRIPTORS: u32 = 128;
}

assert_packed! {
    ExecEvent { kind, tgid, time_ns, path }
    ForkEvent { kind, parent, child, padding, time_ns }
    ExitEvent { kind, tgid, time_ns }
    SetAsideEvent { kind, tgid, time_ns }
    NewcomerEvent { kind, tgid, parent, passed_over, time_ns }
    Newcomer { parent, padding, time_ns }
    Target { epoch, flags }
}
