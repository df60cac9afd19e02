//! Every struct, key and limit that crosses the kernel boundary, and their only definition.
//!
//! All structs are `repr(C)` and made of integers and arrays of integers. Padding is explicit and zeroed: each size is
//! asserted equal to the sum of its fields, so no byte of kernel memory travels by accident.

/// Longest user stack, in frames.
pub const MAX_FRAMES: usize = 1024;
/// Longest kernel stack, in frames: the default of the `kernel.perf_event_max_stack` sysctl, which caps `bpf_get_stack`.
pub const MAX_KERNEL_FRAMES: usize = 127;
/// Longest path in an [`ExecEvent`], with the terminating zero; longer ones are cut.
pub const MAX_PATH: usize = 256;
/// Length of a thread's name (`TASK_COMM_LEN`), with the terminating zero.
pub const COMM_LEN: usize = 16;
/// Processes that can be targets at once.
pub const MAX_TARGETS: u32 = 16 * 1024;
/// Distinct stacks that the kernel remembers to have sent. An evicted one travels again, which is harmless.
pub const MAX_SEEN_STACKS: u32 = 32 * 1024;
/// Executables whose unwind tables are in the kernel at once, a power of two.
pub const MAX_TABLES: u32 = 4096;
/// Executable mappings in a [`MappingBlock`]; most processes have fewer.
pub const MAPPINGS_PER_BLOCK: usize = 32;
/// Blocks of one process: 1,024 mappings. What lies behind them is unwound by frame pointers.
pub const MAX_MAPPING_BLOCKS: u32 = 32;
/// Blocks of all processes.
pub const MAX_BLOCKS: u32 = 4096;
/// [`MappedRange::table`] of code without unwind table.
pub const NO_TABLE: u32 = u32::MAX;
/// Size of the ring buffer in bytes: at 8 KiB for the deepest stack it holds 512 of them between two reads.
pub const RING_BYTES: u32 = 4 * 1024 * 1024;

/// What an event in the ring buffer is: the first `u32` of each.
pub mod kind {
    /// A [`super::SampleEvent`].
    pub const SAMPLE: u32 = 1;
    /// A [`super::StackEvent`] followed by its frames.
    pub const STACK: u32 = 2;
    /// A [`super::ExecEvent`].
    pub const EXEC: u32 = 3;
    /// A [`super::ForkEvent`].
    pub const FORK: u32 = 4;
    /// An [`super::ExitEvent`].
    pub const EXIT: u32 = 5;
}

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
    /// [`kind::SAMPLE`].
    pub kind: u32,
    /// CPU it ran on.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// What the sample stands for: 1 (sample) for CPU.
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
    /// [`kind::STACK`].
    pub kind: u32,
    /// How many addresses follow, at most [`MAX_FRAMES`].
    pub frame_count: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds, that of the sample.
    pub time_ns: u64,
    /// Identity.
    pub id: StackId,
    /// Process that the addresses belong to; 0 for a kernel stack.
    pub tgid: u32,
    /// The process's [`Target::epoch`] when the stack was taken.
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
}

/// A process replaced its program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExecEvent {
    /// [`kind::EXEC`].
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
    /// [`kind::FORK`].
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
    /// [`kind::EXIT`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
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
}

/// Where a process's blocks of mappings are found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MappingKey {
    /// Process.
    pub tgid: u32,
    /// Blocks count from 0, in the order of addresses.
    pub block: u32,
}

/// An executable mapping.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedRange {
    /// First address; `i64::MAX` in an unused entry, so that a block is always sorted and signs of differences tell.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// An address in memory less this is the address that the executable's table speaks of, which counts from the first
    /// page that has code.
    pub bias: u64,
    /// Its unwind table, or [`NO_TABLE`]: the index in the lower bits, below [`MAX_TABLES`]; above them a number that
    /// changes when another table takes the place, so that rows of the former one are not taken for its own.
    pub table: u32,
    /// Pages in that table.
    pub pages: u32,
}

impl MappedRange {
    /// An unused entry.
    pub const UNUSED: Self = Self { start: i64::MAX as u64, end: i64::MAX as u64, bias: 0, table: NO_TABLE, pages: 0 };
}

/// Some mappings of a process, sorted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MappingBlock {
    /// Start of the first mapping in the next block; `u64::MAX` in the last one.
    pub next_start: u64,
    /// The mappings.
    pub ranges: [MappedRange; MAPPINGS_PER_BLOCK],
}

/// Settings of the programs, fixed when they are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// 1: every process is a target.
    pub all: u32,
    /// 1: exec, fork and exit of every process are reported, not only of targets.
    pub all_lifecycle: u32,
    /// 1: user stacks are taken.
    pub user_stacks: u32,
    /// 1: kernel stacks are taken.
    pub kernel_stacks: u32,
    /// Offsets of the kernel's fields.
    pub offsets: Offsets,
}

/// Byte offsets of the fields that the programs read, looked up in the running kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Offsets {
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `linux_binprm.filename`
    pub binprm_filename: u32,
}

/// Index into the per-CPU counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Samples taken of targets.
    Samples = 0,
    /// Samples that found the ring buffer full, or in an NMI its lock taken.
    SamplesLost = 1,
    /// Stacks that found the ring buffer full; they travel at their next sample.
    StacksLost = 2,
    /// Process events (exec, fork, exit) that found the ring buffer full.
    ProcessEventsLost = 3,
    /// New processes that did not fit into the table of targets.
    TargetsFull = 4,
    /// Samples in kernel mode whose saved user registers could not be read.
    NoUserRegisters = 5,
    /// Samples of 32-bit code, of which only the leaf is taken.
    Compat = 6,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: u32 = 7;
    /// All of them with the name under which a loss is reported; `None` for what is no loss.
    pub const ALL: [(Self, Option<&'static str>); Self::COUNT as usize] = [
        (Self::Samples, None),
        (Self::SamplesLost, Some("samples lost: ring buffer full or busy")),
        (Self::StacksLost, Some("stacks lost: ring buffer full or busy")),
        (Self::ProcessEventsLost, Some("process events lost: ring buffer full or busy")),
        (Self::TargetsFull, Some("processes not followed: table of targets full")),
        (Self::NoUserRegisters, Some("user registers unreadable")),
        (Self::Compat, Some("32-bit code: leaf only")),
    ];
}

/// Proves at compile time that a struct has no implicit padding.
macro_rules! assert_packed {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        $(const _: () = {
            // Destructured in full, so that a new field breaks the build until it is listed here.
            const fn sum(value: &$type) -> usize {
                let $type { $($field),* } = value;
                0 $(+ size_of_val($field))*
            }
            // SAFETY: every type here is made of integers, for which all-zero is a value.
            #[expect(unsafe_code, reason = "zeroed integers, at compile time only")]
            let value: $type = unsafe { core::mem::zeroed() };
            assert!(sum(&value) == size_of::<$type>(), "implicit padding");
            assert!(size_of::<$type>() % 8 == 0, "not a multiple of 8 bytes");
        };)*
    };
}
pub(crate) use assert_packed;

assert_packed! {
    StackId { lo, hi }
    SampleEvent { kind, cpu, time_ns, tgid, tid, value, user_stack, kernel_stack, comm }
    StackEvent { kind, frame_count, time_ns, id, tgid, epoch, end, flags }
    ExecEvent { kind, tgid, time_ns, path }
    ForkEvent { kind, parent, child, padding, time_ns }
    ExitEvent { kind, tgid, time_ns }
    Target { epoch, flags }
    MappingKey { tgid, block }
    MappedRange { start, end, bias, table, pages }
    MappingBlock { next_start, ranges }
    Settings { all, all_lifecycle, user_stacks, kernel_stacks, offsets }
    Offsets { task_flags, task_pid, task_tgid, task_signal, signal_live, binprm_filename }
}
