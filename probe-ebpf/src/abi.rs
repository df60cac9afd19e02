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
/// Threads and goroutines that can be in timed calls at once.
pub const MAX_CALLERS: u32 = 16 * 1024;
/// Places that timed functions return to, of which the kernel remembers to have told.
pub const MAX_SITES: u32 = 4096;
/// New places that wait for user space, which looks every few milliseconds.
pub const MAX_NEW_SITES: u32 = 256;
/// Spans that are going on at once.
pub const MAX_SPANS: u32 = 64 * 1024;
/// Threads whose waits are added up at once.
pub const MAX_WAITING_THREADS: u32 = 16 * 1024;
/// Places where one thread waits that are kept with it, a power of two: most threads have few.
pub const PLACES_PER_THREAD: usize = 4;
/// Further places of a thread are in sets of this many, a power of two.
pub const PLACES_PER_SET: usize = 8;
/// Sets that a thread may have, a power of two, at most 32.
pub const SETS_PER_THREAD: usize = 16;
/// Sets of all threads.
pub const MAX_SETS: u32 = 8 * 1024;
/// Stacks of one thread, with those of its wakers, whose waits are added up at once, a power of two.
pub const WAKERS_PER_THREAD: usize = 8;
/// Longest user stack that is remembered, in frames, a power of two.
pub const MEMO_FRAMES: usize = 128;
/// Longest kernel stack that is remembered, in frames, a power of two.
pub const MEMO_KERNEL_FRAMES: usize = 32;
/// What a thread has waited is handed over at least this often, in nanoseconds, whenever it returns from a wait.
pub const WAITS_EVERY_NS: u64 = 1_000_000_000;
/// The smallest page, in bytes.
pub const PAGE_BYTES: u64 = 4096;
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
    /// A [`super::WaitEvent`].
    pub const WAIT: u32 = 6;
    /// A [`super::CallEvent`].
    pub const CALL: u32 = 7;
    /// A [`super::MemoryEvent`].
    pub const MEMORY: u32 = 10;
    /// A [`crate::heap::AllocationEvent`].
    pub const ALLOCATION: u32 = 16;
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

/// A thread waited, off a CPU, once or several times with the same stacks.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WaitEvent {
    /// [`kind::WAIT`].
    pub kind: u32,
    /// `task_struct.__state` while it waited (include/linux/sched.h); 0: it could run, but another thread did.
    pub state: u32,
    /// When the last wait ended, `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Waits that are added up here.
    pub count: u64,
    /// Their time together, in nanoseconds.
    pub total_ns: u64,
    /// The stacks it waited with.
    pub user_stack: StackId,
    /// As above.
    pub kernel_stack: StackId,
    /// The thread that woke it, where wakers are asked for; 0 if nobody did.
    pub waker: Waker,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Who ended a wait, and from where.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waker {
    /// Its process.
    pub tgid: u32,
    /// The thread; 0 for none.
    pub tid: u32,
    /// Its stacks.
    pub user_stack: StackId,
    /// As above.
    pub kernel_stack: StackId,
    /// Its name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// A process's memory has changed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemoryEvent {
    /// [`kind::MEMORY`].
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
}

/// Waits of one thread with the same stacks and the same waker, added up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// The stacks it waited with.
    pub user_stack: StackId,
    /// As above.
    pub kernel_stack: StackId,
    /// Who woke it.
    pub waker: Waker,
    /// Their sum.
    pub sum: Sum,
}

/// Waits, added up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// When the last of them ended, `CLOCK_MONOTONIC` in nanoseconds.
    pub last_ns: u64,
    /// Their time together, in nanoseconds.
    pub total_ns: u64,
    /// How many have not been handed over.
    pub count: u32,
    /// As in [`WaitEvent::state`].
    pub state: u32,
}

/// What has to be the same for a thread's stacks to be the same, without unwinding them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memo {
    /// Of all stacks; 0 if nothing is remembered.
    pub generation: u64,
    /// Registers with which the thread entered the kernel.
    pub pc: u64,
    /// As above.
    pub sp: u64,
    /// As above.
    pub fp: u64,
    /// Return address of the kernel stack's first frame.
    pub kernel_root: u64,
    /// Of the return addresses of the user stack.
    pub user_hash: u64,
    /// Of those of the kernel stack but the first frame's.
    pub kernel_hash: u64,
    /// Where the first return address is on the user stack, in bytes from the stack pointer.
    pub user_start: u32,
    /// Bytes from there with all return addresses; 0 if there are none.
    pub user_span: u32,
    /// As `user_start`, from the lower end of the kernel's stack.
    pub kernel_start: u32,
    /// Bytes from there with all return addresses but the first frame's; 0 if kernel stacks are not asked for.
    pub kernel_span: u32,
    /// Where they are, in bytes from `user_start`.
    pub user_slots: [u16; MEMO_FRAMES],
    /// Where they are, in bytes from `kernel_start`.
    pub kernel_slots: [u16; MEMO_KERNEL_FRAMES],
}

impl Memo {
    /// Nothing is remembered.
    pub const NONE: Self = Self {
        generation: 0,
        pc: 0,
        sp: 0,
        fp: 0,
        kernel_root: 0,
        user_hash: 0,
        kernel_hash: 0,
        user_start: 0,
        user_span: 0,
        kernel_start: 0,
        kernel_span: 0,
        user_slots: [0; MEMO_FRAMES],
        kernel_slots: [0; MEMO_KERNEL_FRAMES],
    };
}

/// Where a thread waits: its stacks, how they are recognised, and its waits there that nobody is known to have ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// User stack.
    pub user_stack: StackId,
    /// Kernel stack.
    pub kernel_stack: StackId,
    /// Waits there.
    pub sum: Sum,
    /// Of both stacks.
    pub memo: Memo,
}

impl Place {
    /// An unused one.
    pub const NONE: Self = Self {
        user_stack: StackId::NONE,
        kernel_stack: StackId::NONE,
        sum: Sum { last_ns: 0, total_ns: 0, count: 0, state: 0 },
        memo: Memo::NONE,
    };
}

/// Key: tid. A thread that has waited.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WaitingThread {
    /// When it left the CPU, `CLOCK_MONOTONIC` in nanoseconds; 0 while it is on one.
    pub since_ns: u64,
    /// When its sums were last handed over.
    pub handed_over_ns: u64,
    /// [`generation::TARGETS`] when the process was found to be a target.
    pub targets_generation: u64,
    /// Its process.
    pub tgid: u32,
    /// The process's [`Target::epoch`].
    pub epoch: u32,
    /// Where it waits, or has waited last: below [`PLACES_PER_THREAD`] in `places`, from there on in its sets.
    pub place: u32,
    /// A bit for each of its sets.
    pub sets: u32,
    /// 1 if somebody is known to end the present wait.
    pub is_woken: u32,
    /// 1 if it has sums by wakers.
    pub has_wakers: u32,
    /// Who ends the present wait.
    pub waker: Waker,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
    /// Where it waits.
    pub places: [Place; PLACES_PER_THREAD],
}

/// Where a thread's further places are found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetKey {
    /// Thread.
    pub tid: u32,
    /// Below [`SETS_PER_THREAD`].
    pub set: u32,
}

/// Places of a thread beyond those that are kept with it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PlaceSet {
    /// The places.
    pub places: [Place; PLACES_PER_SET],
}

/// Key: tid. What a thread has waited, by who woke it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WokenThread {
    /// Waits that have not been handed over.
    pub waits: [Wait; WAKERS_PER_THREAD],
}

/// Numbers that go up when something that was looked up may have changed: index into the generations.
pub mod generation {
    /// Stacks that were taken may mean something else, or have been forgotten by user space.
    pub const STACKS: u32 = 0;
    /// A process may have become a target, or none, by user space.
    pub const TARGETS: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

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
    /// [`stack_flags`] of the user stack.
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

/// Key: number of the function. How its calls are judged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// A call that takes longer is not within the threshold, in nanoseconds.
    pub threshold_ns: u64,
    /// What a returned value is compared with.
    pub operand: i64,
    /// [`error_test`]: when a returned value is an error.
    pub error_test: u32,
    /// How many low bits of the returned value count: 8, 16, 32 or 64.
    pub bits: u32,
    /// Bits of [`feature`]: which figures are wanted of it, and what is special about it.
    pub features: u32,
    /// Zero.
    pub padding: u32,
}

/// Values of [`Judgement::features`].
pub mod feature {
    /// It is Go's: calls belong to goroutines.
    pub const GO: u32 = 1;
    /// Its end is seen where it returns to: user space has to know the places.
    pub const SITES: u32 = 2;
    /// The distribution of times.
    pub const HISTOGRAM: u32 = 4;
    /// Calls within the threshold.
    pub const ATTAINMENT: u32 = 8;
    /// Returned values that are errors.
    pub const ERRORS: u32 = 16;
    /// Calls over the threshold are reported, with their stacks.
    pub const SLOW: u32 = 32;
    /// Hits are counted, and nothing else: a tracepoint, or an instruction in the middle of a function.
    pub const COUNT: u32 = 64;
}

/// A place that a timed function returns to, and that has no probe yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// Process.
    pub tgid: u32,
    /// Number of the function.
    pub function: u32,
    /// The return address.
    pub address: u64,
}

/// A call took longer than its threshold.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CallEvent {
    /// [`kind::CALL`].
    pub kind: u32,
    /// Number of the function.
    pub function: u32,
    /// When it ended, `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// When it began.
    pub since_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread in which it ended.
    pub tid: u32,
    /// The user stack at its end, which below the function is that at its beginning.
    pub user_stack: StackId,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Values of [`Judgement::error_test`].
pub mod error_test {
    /// Nothing is an error.
    pub const NEVER: u32 = 0;
    /// A value below the operand, both signed.
    pub const LESS: u32 = 1;
    /// A value above the operand, both signed.
    pub const GREATER: u32 = 2;
    /// The operand itself.
    pub const EQUAL: u32 = 3;
    /// Any value but the operand.
    pub const NOT_EQUAL: u32 = 4;
}

impl Judgement {
    /// True if a function that returns this in its register has failed.
    #[inline(always)]
    pub fn is_error(&self, returned: u64) -> bool {
        let unused = (64 - self.bits) & 63;
        let value = (returned << unused) as i64 >> unused;
        match self.error_test {
            error_test::LESS => value < self.operand,
            error_test::GREATER => value > self.operand,
            error_test::EQUAL => value == self.operand,
            error_test::NOT_EQUAL => value != self.operand,
            _ => false,
        }
    }
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
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// 1: every process is a target.
    pub all: u32,
    /// 1: exec, fork and exit of every process are reported, not only of targets.
    pub all_lifecycle: u32,
    /// 1: user stacks are taken.
    pub user_stacks: u32,
    /// 1: kernel stacks are taken.
    pub kernel_stacks: u32,
    /// Waits below this are left out, in nanoseconds.
    pub min_wait_ns: u64,
    /// Waits above this are left out, in nanoseconds.
    pub max_wait_ns: u64,
    /// 1: each wait is handed over by itself.
    pub each_wait: u64,
    /// Time between two page faults that are looked at on a CPU, on average and at least, in nanoseconds; 0: memory is not followed.
    pub fault_gap_ns: u64,
    /// 1: sampled allocations are followed until they are freed.
    pub follow_live: u32,
    /// Zero.
    pub padding: u32,
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
    /// `task_struct.__state`
    pub task_state: u32,
    /// `task_struct.exit_state`
    pub task_exit_state: u32,
    /// `task_struct.on_cpu`
    pub task_on_cpu: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.se.sum_exec_runtime`
    pub task_runtime: u32,
    /// `task_struct.se.prev_sum_exec_runtime`
    pub task_runtime_at_arrival: u32,
    /// `task_struct.sched_info.last_arrival`; [`Offsets::MISSING`] in kernels without
    pub task_arrival: u32,
    /// `task_struct.sched_info.last_queued`; [`Offsets::MISSING`] in kernels without
    pub task_queued: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `linux_binprm.filename`
    pub binprm_filename: u32,
}

impl Offsets {
    /// In place of the offset of a field that this kernel lacks.
    pub const MISSING: u32 = u32::MAX;
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
    /// Stacks of 32-bit code, of which only the leaf is taken.
    Compat = 5,
    /// Waits whose sum found the ring buffer full when its place was needed.
    WaitsLost = 6,
    /// Waits of threads that did not fit into the table of waiting threads.
    WaitersFull = 7,
    /// Slow calls that found the ring buffer full.
    CallsLost = 8,
    /// Page faults that took memory and were looked at.
    Faults = 9,
    /// Changes of memory that found the ring buffer full.
    MemoryLost = 10,
    /// Changes of mappings beyond the budget of a CPU.
    MappingsSkipped = 11,
    /// Sampled allocations that found the ring buffer full.
    AllocationsLost = 12,
    /// Sampled allocations that could not be followed: their table was full.
    LiveFull = 13,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: u32 = 14;
    /// All of them with the name under which a loss is reported; `None` for what is no loss.
    pub const ALL: [(Self, Option<&'static str>); Self::COUNT as usize] = [
        (Self::Samples, None),
        (Self::SamplesLost, Some("samples lost: ring buffer full or busy")),
        (Self::StacksLost, Some("stacks lost: ring buffer full or busy")),
        (Self::ProcessEventsLost, Some("process events lost: ring buffer full or busy")),
        (Self::TargetsFull, Some("processes not followed: table of targets full")),
        (Self::Compat, Some("32-bit code: leaf only")),
        (Self::WaitsLost, Some("waits lost: ring buffer full or busy")),
        (Self::CallsLost, Some("slow calls lost: ring buffer full or busy")),
        (Self::AllocationsLost, Some("sampled allocations lost: ring buffer full or busy")),
        (Self::LiveFull, Some("sampled allocations not followed: table full")),
        (Self::WaitersFull, Some("waits lost: table of waiting threads full")),
        (Self::Faults, None),
        (Self::MemoryLost, Some("changes of memory lost: ring buffer full or busy")),
        (Self::MappingsSkipped, Some("changes of mappings lost: too many at once")),
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
    WaitEvent { kind, state, time_ns, tgid, tid, count, total_ns, user_stack, kernel_stack, waker, comm }
    MemoryEvent { kind, change, time_ns, tgid, tid, start, bytes, old_start, old_bytes, count, user_stack, comm }
    Wait { user_stack, kernel_stack, waker, sum }
    Sum { last_ns, total_ns, count, state }
    WaitingThread {
        since_ns, handed_over_ns, targets_generation, tgid, epoch, place, sets, is_woken, has_wakers, waker, comm, places,
    }
    Memo {
        generation, pc, sp, fp, kernel_root, user_hash, kernel_hash, user_start, user_span, kernel_start, kernel_span,
        user_slots, kernel_slots,
    }
    Place { user_stack, kernel_stack, sum, memo }
    SetKey { tid, set }
    PlaceSet { places }
    WokenThread { waits }
    Waker { tgid, tid, user_stack, kernel_stack, comm }
    ThreadRecord {
        tgid, tid, state, flags, runtime_ns, runtime_at_arrival_ns, arrival_ns, queued_ns, reader_arrival_ns, user_stack,
        kernel_stack, user_frames, kernel_frames, user_end, stack_flags, comm,
    }
    Judgement { threshold_ns, operand, error_test, bits, features, padding }
    Site { tgid, function, address }
    CallEvent { kind, function, time_ns, since_ns, tgid, tid, user_stack, comm }
    DumpRequest { tgid, stacks }
    ExecEvent { kind, tgid, time_ns, path }
    ForkEvent { kind, parent, child, padding, time_ns }
    ExitEvent { kind, tgid, time_ns }
    Target { epoch, flags }
    MappingKey { tgid, block }
    MappedRange { start, end, bias, table, pages }
    MappingBlock { next_start, ranges }
    Settings {
        all, all_lifecycle, user_stacks, kernel_stacks, min_wait_ns, max_wait_ns, each_wait, fault_gap_ns, follow_live, padding,
        offsets,
    }
    Offsets {
        task_flags, task_pid, task_tgid, task_signal, task_state, task_exit_state, task_on_cpu, task_comm, task_runtime,
        task_runtime_at_arrival, task_arrival, task_queued, signal_live, binprm_filename,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_judged_by_the_returned_value() {
        let judge = |error_test, operand, bits| Judgement { error_test, operand, bits, ..Judgement::default() };
        let minus_one = u64::from(u32::MAX);
        assert!(judge(error_test::LESS, 0, 32).is_error(minus_one), "an int of -1");
        assert!(!judge(error_test::LESS, 0, 64).is_error(minus_one), "a long is something else");
        assert!(judge(error_test::EQUAL, 0, 64).is_error(0) && !judge(error_test::EQUAL, 0, 64).is_error(9));
        assert!(
            judge(error_test::NOT_EQUAL, 0, 32).is_error(5) && !judge(error_test::NOT_EQUAL, 0, 32).is_error(7 << 32)
        );
        assert!(judge(error_test::GREATER, 3, 8).is_error(4) && !judge(error_test::GREATER, 3, 8).is_error(0xff));
        assert!(!Judgement::default().is_error(u64::MAX));
    }
}
