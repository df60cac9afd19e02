//! Waits: how long threads were off their CPUs, and what the kernel remembers of the places where they wait.

use super::{COMM_LEN, StackId, assert_packed};

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

/// A thread waited, off a CPU, once or several times with the same stacks.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WaitEvent {
    /// [`super::kind::WAIT`].
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
    /// The goroutine that it had meanwhile, or that waited itself; 0 for none, or where waits are added up.
    pub goroutine: u64,
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

impl Waker {
    /// Nobody.
    pub const NONE: Self =
        Self { tgid: 0, tid: 0, user_stack: StackId::NONE, kernel_stack: StackId::NONE, comm: [0; COMM_LEN] };
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
    /// [`super::generation::TARGETS`] when the process was found to be a target.
    pub targets_generation: u64,
    /// As in [`WaitEvent::goroutine`].
    pub goroutine: u64,
    /// Its process.
    pub tgid: u32,
    /// The process's [`super::Target::epoch`].
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

assert_packed! {
    WaitEvent { kind, state, time_ns, tgid, tid, count, total_ns, goroutine, user_stack, kernel_stack, waker, comm }
    Wait { user_stack, kernel_stack, waker, sum }
    Sum { last_ns, total_ns, count, state }
    WaitingThread {
        since_ns, handed_over_ns, targets_generation, goroutine, tgid, epoch, place, sets, is_woken, has_wakers, waker, comm,
        places,
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
}
