//! Waits: how long threads are off their CPU, with the stacks they left it with. Waits with the same stacks are added up
//! here, so that user space hears of each stack once a second, however often the thread waits.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::abi::{
    COMM_LEN, Counter, MEMOS_PER_THREAD, Memo, StackId, WAITS_EVERY_NS, WAITS_PER_THREAD, Wait, WaitEvent,
    WaitingThread, Waker, kind, target_flags,
};

use crate::maps::{EVENTS, WAITING, add, count, setting, target, wakeup};
use crate::memo::{self, Here};
use crate::stack;
use crate::task::{Struct, current, current_task, field, now, saved_registers};
use crate::walk::{Owner, Scratch};

/// Interrupts are off in both programs, so that they never meet on one CPU.
#[map]
static WAIT_STACK: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A thread that has not waited yet: too large for the stack of a program.
#[map]
static NEVER_WAITED: Array<WaitingThread> = Array::with_max_entries(1, 0);

/// `task_struct.__state` of a thread that leaves its CPU for ever (include/linux/sched.h).
const TASK_DEAD: u32 = 0x80;
/// A thread leaves the CPU, and another one gets it.
#[inline(always)]
pub fn switch(context: &BtfTracePointContext, is_preempted: bool, next: Struct, state: u32) {
    let time_ns = now();
    let next_tid = next.wrapping_add(setting!(offsets.task_pid) as usize).cast::<u32>();
    // SAFETY: the verifier knows that it is a task, and what is at this offset.
    let next_tid = unsafe { core::ptr::read_volatile(next_tid) };
    if next_tid != 0 {
        end(next_tid, next, time_ns);
    }
    // What is preempted on its way to sleep can still run.
    begin(context, if is_preempted { 0 } else { state }, time_ns);
}

/// The current thread begins to wait.
#[inline(always)]
fn begin(context: &BtfTracePointContext, state: u32, time_ns: u64) {
    let (tgid, tid) = current();
    if tgid == 0 {
        return; // the idle thread
    }
    if state & TASK_DEAD != 0 {
        return forget(tid);
    }
    let Some(target) = target(tgid) else { return };
    if target.flags & (target_flags::SPAWNER | target_flags::AWAITS_EXEC) != 0 {
        return;
    }
    // Where every process is a target, threads of the kernel that wait for work are no news.
    let Some((start, regs)) = saved_registers(current_task()) else { return };
    let Some(thread) = thread(tid) else {
        count(Counter::WaitersFull);
        return;
    };
    thread.tgid = tgid;
    thread.state = state;
    // Word by word: to clear all of it at once is a loop over bytes.
    thread.waker.tid = 0;
    thread.waker.user_stack = StackId::NONE;
    thread.waker.kernel_stack = StackId::NONE;
    thread.since_ns = time_ns;
    let Some(here) = memo::here(context, start, regs) else { return };
    let [first, second] = here.places(state);
    let place = if here.is(&thread.memos[first]) {
        first
    } else if here.is(&thread.memos[second]) {
        second
    } else {
        // By chance, so that two that are used by turns have soon one each.
        let place = if time_ns & 1 == 0 { first } else { second };
        // The compiler makes an exclusive or of this, of which the verifier of Linux 6.1 does not know the bounds.
        let place = core::hint::black_box(place) & (MEMOS_PER_THREAD - 1);
        take(context, &mut thread.memos[place], &here, Owner { tgid, epoch: target.epoch, time_ns });
        place
    };
    let memo = &thread.memos[place];
    thread.user_stack = memo.user_stack;
    thread.kernel_stack = memo.kernel_stack;
}

/// Takes both stacks, and remembers them if that is possible.
#[inline(always)]
fn take(context: &BtfTracePointContext, memo: &mut Memo, here: &Here, owner: Owner) {
    let Some(scratch) = WAIT_STACK.get_ptr_mut(0) else { return };
    let mut frame_count = 0;
    if setting!(kernel_stacks) != 0 {
        (memo.kernel_stack, frame_count) = stack::kernel(scratch, context.as_ptr(), owner.time_ns);
    }
    here.learn_kernel(memo, scratch, frame_count);
    if setting!(user_stacks) != 0 {
        memo.user_stack = stack::user(scratch, &here.start, owner);
    }
    here.learn_user(memo, scratch);
}

/// The current thread's entry, made if it is new.
#[inline(always)]
fn thread(tid: u32) -> Option<&'static mut WaitingThread> {
    if let Some(thread) = WAITING.get_ptr_mut(&tid) {
        // SAFETY: nobody else uses the entry of a thread that is on this CPU.
        return Some(unsafe { &mut *thread });
    }
    let _ = WAITING.insert(&tid, NEVER_WAITED.get(0)?, BPF_NOEXIST.into());
    // SAFETY: as above.
    let thread = unsafe { &mut *WAITING.get_ptr_mut(&tid)? };
    thread.comm = bpf_get_current_comm().unwrap_or_default();
    Some(thread)
}

/// A thread has waited.
#[inline(always)]
fn end(tid: u32, task: Struct, time_ns: u64) {
    let Some(thread) = WAITING.get_ptr_mut(&tid) else { return };
    // SAFETY: the thread is about to run on this CPU: nobody else uses its entry.
    let thread = unsafe { &mut *thread };
    let waited_ns = time_ns.wrapping_sub(thread.since_ns);
    if thread.since_ns == 0 {
        return;
    }
    thread.since_ns = 0;
    if waited_ns < setting!(min_wait_ns) || waited_ns > setting!(max_wait_ns) {
        return;
    }
    let at =
        (thread.user_stack.lo ^ thread.kernel_stack.hi ^ thread.waker.user_stack.lo ^ thread.waker.kernel_stack.hi)
            >> 32;
    let place = at as usize & (WAITS_PER_THREAD - 1);
    let is_same = {
        let wait = &thread.waits[place];
        wait.user_stack == thread.user_stack
            && wait.kernel_stack == thread.kernel_stack
            && wait.state == thread.state
            && wait.waker.tid == thread.waker.tid
            && wait.waker.user_stack == thread.waker.user_stack
            && wait.waker.kernel_stack == thread.waker.kernel_stack
    };
    if !is_same {
        if thread.waits[place].count != 0 {
            hand_over(tid, thread.tgid, &thread.comm, &thread.waits[place]);
        }
        thread.waits[place] = Wait {
            user_stack: thread.user_stack,
            kernel_stack: thread.kernel_stack,
            waker: thread.waker,
            first_ns: time_ns,
            last_ns: 0,
            total_ns: 0,
            count: 0,
            state: thread.state,
        };
    }
    let wait = &mut thread.waits[place];
    if wait.count == 0 {
        wait.first_ns = time_ns;
    }
    wait.last_ns = time_ns;
    wait.total_ns += waited_ns;
    wait.count += 1;
    if time_ns - wait.first_ns >= WAITS_EVERY_NS {
        thread.comm = field(task, setting!(offsets.task_comm)).unwrap_or_default();
        let wait = &mut thread.waits[place];
        hand_over(tid, thread.tgid, &thread.comm, wait);
        wait.count = 0;
        wait.total_ns = 0;
    }
}

/// A thread is about to be woken by the current one.
#[inline(always)]
pub fn waking(context: &BtfTracePointContext, task: Struct) {
    let Some(tid) = field::<u32>(task, setting!(offsets.task_pid)) else { return };
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
}

/// There is no thread of this id any more: what it has waited is handed over.
#[inline(always)]
pub fn forget(tid: u32) {
    let Some(thread) = WAITING.get_ptr_mut(&tid) else { return };
    // SAFETY: it was the current thread's id until now.
    let thread = unsafe { &mut *thread };
    for wait in &thread.waits {
        if wait.count != 0 {
            hand_over(tid, thread.tgid, &thread.comm, wait);
        }
    }
    let _ = WAITING.remove(&tid);
}

#[inline(always)]
fn hand_over(tid: u32, tgid: u32, comm: &[u8; COMM_LEN], wait: &Wait) {
    let Some(mut entry) = EVENTS.reserve::<WaitEvent>(0) else {
        add(Counter::WaitsLost, wait.count.into());
        return;
    };
    entry.write(WaitEvent {
        kind: kind::WAIT,
        state: wait.state,
        time_ns: wait.last_ns,
        tgid,
        tid,
        count: wait.count.into(),
        total_ns: wait.total_ns,
        user_stack: wait.user_stack,
        kernel_stack: wait.kernel_stack,
        waker: wait.waker,
        comm: *comm,
    });
    entry.submit(wakeup());
}
