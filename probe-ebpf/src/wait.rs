//! Waits: how long threads are off their CPU, with the stacks they left it with. Waits with the same stacks are added up
//! here, so that user space hears of each stack once a second, however often the thread waits.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::abi::{Counter, Sum, WAITS_EVERY_NS, WaitingThread, Waker, generation, target_flags};

use crate::goroutine;
use crate::maps::{WAITING, count, generation, setting, target};
use crate::memo::{self, Here};
use crate::place;
use crate::stack;
use crate::sums;
use crate::task::{Struct, current, field, now, number, saved_registers};
use crate::walk::{Owner, Scratch};

/// Interrupts are off in both programs, so that they never meet on one CPU.
#[map]
static WAIT_STACK: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A thread that has not waited yet: too large for the stack of a program.
#[map]
static NEVER_WAITED: Array<WaitingThread> = Array::with_max_entries(1, 0);

/// `task_struct.__state` of a thread that leaves its CPU for ever (include/linux/sched.h).
const TASK_DEAD: u32 = 0x80;
/// Of one that nothing may interrupt.
const TASK_UNINTERRUPTIBLE: u32 = 2;

/// Threads that were looked up and are not followed, by the lower bits of their number: most switches are theirs.
#[map]
static UNFOLLOWED: Array<u64> = Array::with_max_entries(MAX_UNFOLLOWED, 0);

/// A power of two.
const MAX_UNFOLLOWED: u32 = 1 << 16;
/// What [`UNFOLLOWED`] says beside the thread and the generation: it is not followed into waits that may be interrupted,
/// or into none.
const SOME: u64 = 1;
const NONE: u64 = 2;

const WAITS: u64 = SOME | NONE;

/// The generation's lower bits are enough: it is a number of changes by user space.
#[inline(always)]
fn unfollowed(tid: u32, targets: u64, waits: u64) -> u64 {
    u64::from(tid) << 32 | (targets << 2 & 0xffff_fffc) | waits
}

/// How it is not followed; 0 if that is not known, or over.
#[inline(always)]
fn is_unfollowed(tid: u32, targets: u64) -> u64 {
    let Some(&known) = UNFOLLOWED.get(tid & (MAX_UNFOLLOWED - 1)) else { return 0 };
    if known & !WAITS == unfollowed(tid, targets, 0) { known & WAITS } else { 0 }
}

#[inline(always)]
fn set_unfollowed(tid: u32, value: u64) {
    if let Some(known) = UNFOLLOWED.get_ptr_mut(tid & (MAX_UNFOLLOWED - 1)) {
        // SAFETY: one word; whoever has the same lower bits is looked up once more.
        unsafe { *known = value };
    }
}

/// A thread leaves the CPU, and another one gets it.
#[inline(always)]
pub fn switch(context: &BtfTracePointContext, is_preempted: bool, [previous, next]: [Struct; 2], state: u32) {
    let tid = |task| number(task, setting!(offsets.task_pid));
    // The idle thread has none.
    let (previous_tid, next_tid) = (tid(previous), tid(next));
    let targets = generation(generation::TARGETS);
    let is_followed = next_tid != 0 && is_unfollowed(next_tid, targets) == 0;
    let time_ns = if is_followed { end(next_tid, next) } else { None };
    if previous_tid != 0 {
        // What is preempted on its way to sleep can still run.
        begin(context, previous, previous_tid, if is_preempted { 0 } else { state }, targets, time_ns);
    }
}

/// The current thread begins to wait.
#[inline(always)]
fn begin(context: &BtfTracePointContext, task: Struct, tid: u32, state: u32, targets: u64, time_ns: Option<u64>) {
    if state & TASK_DEAD != 0 {
        return forget(tid);
    }
    let Some(thread) = thread(task, tid, state, targets) else { return };
    // Where every process is a target, threads of the kernel that wait for work are no news.
    let Some((start, regs)) = saved_registers(task.cast_mut().cast()) else { return };
    let time_ns = time_ns.unwrap_or_else(now);
    thread.is_woken = 0;
    thread.since_ns = time_ns;
    if setting!(each_wait) != 0 {
        thread.goroutine = goroutine::current(thread.tgid);
    }
    let Some(here) = memo::here(context, start, regs, state) else { return thread.since_ns = 0 };
    if let Some(place) = place::find(thread, tid, &here) {
        thread.place = place;
        return;
    }
    take(context, &here, state, Owner { tgid: thread.tgid, epoch: thread.epoch, time_ns });
    thread.place = place::keep(thread, tid, &here);
}

/// Takes both stacks to the desk, with what is to be remembered of them.
#[inline(always)]
fn take(context: &BtfTracePointContext, here: &Here, state: u32, owner: Owner) {
    let Some(scratch) = WAIT_STACK.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's desk.
    let place = unsafe { &mut (*here.desk).place };
    place.sum = Sum { last_ns: 0, total_ns: 0, count: 0, state };
    let mut frame_count = 0;
    if setting!(kernel_stacks) != 0 {
        (place.kernel_stack, frame_count) = stack::kernel(scratch, context.as_ptr(), owner.time_ns);
    }
    here.learn_kernel(scratch, frame_count);
    if setting!(user_stacks) != 0 {
        place.user_stack = stack::user(scratch, &here.start, owner);
    }
    here.learn_user(scratch);
}

/// The current thread's entry, made if it is new; `None` if it is not followed, or not into this state.
#[inline(always)]
fn thread(task: Struct, tid: u32, state: u32, targets: u64) -> Option<&'static mut WaitingThread> {
    let unfollowed_into = if state & TASK_UNINTERRUPTIBLE == 0 { WAITS } else { NONE };
    if is_unfollowed(tid, targets) & unfollowed_into != 0 {
        return None;
    }
    let known = WAITING.get_ptr_mut(&tid);
    if let Some(thread) = known {
        // SAFETY: nobody else uses the entry of a thread that is on this CPU.
        let thread = unsafe { &mut *thread };
        if thread.targets_generation == targets {
            return Some(thread);
        }
    }
    let tgid = number(task, setting!(offsets.task_tgid));
    const NOBODY: u32 = target_flags::SPAWNER | target_flags::AWAITS_EXEC | target_flags::NO_WAITS;
    let Some(target) = target(tgid).filter(|target| target.flags & NOBODY == 0) else {
        set_unfollowed(tid, unfollowed(tid, targets, NONE));
        return None;
    };
    let only_blocked = target.flags & target_flags::BLOCKED_WAITS != 0;
    if only_blocked && state & TASK_UNINTERRUPTIBLE == 0 {
        set_unfollowed(tid, unfollowed(tid, targets, SOME));
        return None;
    }
    if only_blocked {
        // It is to be seen when it comes back.
        set_unfollowed(tid, 0);
    }
    if known.is_none() {
        saved_registers(task.cast_mut().cast())?;
        let _ = WAITING.insert(&tid, NEVER_WAITED.get(0)?, BPF_NOEXIST.into());
    }
    let Some(thread) = WAITING.get_ptr_mut(&tid) else {
        count(Counter::WaitersFull);
        return None;
    };
    // SAFETY: as above.
    let thread = unsafe { &mut *thread };
    if known.is_none() {
        thread.comm = bpf_get_current_comm().unwrap_or_default();
        thread.handed_over_ns = now();
    }
    thread.tgid = tgid;
    thread.epoch = target.epoch;
    // Which states are meant is looked up each time.
    thread.targets_generation = if only_blocked { 0 } else { targets };
    Some(thread)
}

/// A thread has waited. Returns the time if that was looked at.
#[inline(always)]
fn end(tid: u32, task: Struct) -> Option<u64> {
    let thread = WAITING.get_ptr_mut(&tid)?;
    // SAFETY: the thread is about to run on this CPU: nobody else uses its entry.
    let thread = unsafe { &mut *thread };
    if thread.since_ns == 0 {
        return None;
    }
    let time_ns = now();
    let waited_ns = time_ns.wrapping_sub(thread.since_ns);
    thread.since_ns = 0;
    if waited_ns < setting!(min_wait_ns) || waited_ns > setting!(max_wait_ns) {
        return Some(time_ns);
    }
    let whose: *const WaitingThread = thread;
    if let Some(place) = place::get(thread, tid) {
        let sum = if thread.is_woken != 0 { sums::by_waker(thread, tid, place) } else { Some(&mut place.sum) };
        match sum {
            Some(sum) => {
                sum.last_ns = time_ns;
                sum.total_ns += waited_ns;
                sum.count += 1;
            }
            None => count(Counter::WaitersFull),
        }
        if setting!(each_wait) != 0 {
            sums::hand_over_place(tid, whose, place);
        }
    }
    if time_ns.wrapping_sub(thread.handed_over_ns) >= WAITS_EVERY_NS {
        thread.comm = field(task, setting!(offsets.task_comm)).unwrap_or_default();
        thread.handed_over_ns = time_ns;
        sums::hand_over(tid, thread);
    }
    Some(time_ns)
}

/// A thread is about to be woken by the current one.
#[inline(always)]
pub fn waking(context: &BtfTracePointContext, task: Struct) {
    let tid = number(task, setting!(offsets.task_pid));
    let Some(thread) = WAITING.get_ptr_mut(&tid) else { return };
    // SAFETY: the kernel holds the thread's wake-up lock, and the thread does not run.
    let thread = unsafe { &mut *thread };
    if thread.since_ns == 0 {
        return;
    }
    let Some(scratch) = WAIT_STACK.get_ptr_mut(0) else { return };
    let (tgid, tid) = current();
    let time_ns = now();
    let epoch = target(tgid).map_or(0, |target| target.epoch);
    let mut waker = Waker { tgid, tid, ..Waker::default() };
    waker.comm = bpf_get_current_comm().unwrap_or_default();
    if setting!(kernel_stacks) != 0 {
        waker.kernel_stack = stack::kernel(scratch, context.as_ptr(), time_ns).0;
    }
    if setting!(user_stacks) != 0 && tgid != 0 {
        waker.user_stack = stack::user_from_kernel(scratch, Owner { tgid, epoch, time_ns });
    }
    thread.waker = waker;
    thread.is_woken = 1;
}

/// There is no thread of this id any more, or it is another one: what it has waited is handed over.
#[inline(never)]
pub extern "C" fn forget(tid: u32) {
    set_unfollowed(tid, 0);
    let Some(thread) = WAITING.get_ptr_mut(&tid) else { return };
    // SAFETY: it was the current thread's id until now.
    let thread = unsafe { &mut *thread };
    sums::hand_over(tid, thread);
    place::forget(thread, tid);
    if thread.has_wakers != 0 {
        sums::forget_wakers(tid);
    }
    let _ = WAITING.remove(&tid);
}
