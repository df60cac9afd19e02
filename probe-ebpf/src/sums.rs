//! What threads have waited, added up, on its way to user space; and the sums by who ended the waits, which only threads
//! have whose wakers are asked for.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use probe_ebpf::abi::{
    Counter, Place, SETS_PER_THREAD, SetKey, StackId, Sum, WAKERS_PER_THREAD, Wait, WaitEvent, WaitingThread, Waker,
    WokenThread, kind,
};

use crate::maps::{EVENTS, PLACES, WOKEN, add, wakeup};

/// A thread that nobody has woken yet: too large for the stack of a program.
#[map]
static NEVER_WOKEN: Array<WokenThread> = Array::with_max_entries(1, 0);

/// What `bpf_loop` hands to its callback: it has to be on the stack.
#[repr(C)]
struct Context {
    thread: *const WaitingThread,
    tid: u32,
    padding: u32,
}

/// Hands over all that a thread has waited.
#[inline(never)]
pub extern "C" fn hand_over(tid: u32, thread: *mut WaitingThread) {
    // SAFETY: the caller's, which waits.
    let thread = unsafe { &mut *thread };
    let mut context = Context { thread, tid, padding: 0 };
    for place in &mut thread.places {
        if place.sum.count != 0 {
            hand_over_place(tid, context.thread, place);
        }
    }
    if thread.sets != 0 {
        // SAFETY: the callback's signature is the helper's; the context outlives the call.
        unsafe { bpf_loop(SETS_PER_THREAD as u32, hand_over_set as *mut c_void, (&raw mut context).cast(), 0) };
    }
    if thread.has_wakers == 0 {
        return;
    }
    let Some(woken) = WOKEN.get_ptr_mut(tid) else { return };
    // SAFETY: as the thread's own entry.
    for wait in unsafe { &mut (*woken).waits } {
        if wait.sum.count != 0 {
            hand_over_wait(tid, thread, wait);
        }
    }
}

/// `bpf_loop`'s callback for one set.
#[inline(never)]
extern "C" fn hand_over_set(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the context of `hand_over`, which waits for the loop.
    let (thread, tid) = unsafe { ((*context).thread, (*context).tid) };
    // SAFETY: as above.
    if unsafe { (*thread).sets } >> (index & 31) & 1 == 0 {
        return 0;
    }
    let Some(set) = PLACES.get_ptr_mut(SetKey { tid, set: index }) else { return 0 };
    // SAFETY: only the thread's programs use it, one at a time.
    for place in unsafe { &mut (*set).places } {
        if place.sum.count != 0 {
            hand_over_place(tid, thread, place);
        }
    }
    0
}

/// Hands over the waits at a place.
#[inline(never)]
pub extern "C" fn hand_over_place(tid: u32, thread: *const WaitingThread, place: *mut Place) {
    // SAFETY: the caller's, which waits.
    let (thread, place) = unsafe { (&*thread, &mut *place) };
    submit(tid, thread, [place.user_stack, place.kernel_stack], &Waker::default(), &mut place.sum);
}

/// Hands over the waits that one thread has ended.
#[inline(never)]
extern "C" fn hand_over_wait(tid: u32, thread: *const WaitingThread, wait: *mut Wait) {
    // SAFETY: the caller's, which waits.
    let (thread, wait) = unsafe { (&*thread, &mut *wait) };
    submit(tid, thread, [wait.user_stack, wait.kernel_stack], &wait.waker, &mut wait.sum);
}

#[inline(always)]
fn submit(tid: u32, thread: &WaitingThread, stacks: [StackId; 2], waker: &Waker, sum: &mut Sum) {
    let Sum { last_ns, total_ns, count, state } = *sum;
    sum.count = 0;
    sum.total_ns = 0;
    let Some(mut entry) = EVENTS.reserve::<WaitEvent>(0) else {
        add(Counter::WaitsLost, count.into());
        return;
    };
    let [user_stack, kernel_stack] = stacks;
    entry.write(WaitEvent {
        kind: kind::WAIT,
        state,
        time_ns: last_ns,
        tgid: thread.tgid,
        tid,
        count: count.into(),
        total_ns,
        goroutine: thread.goroutine,
        user_stack,
        kernel_stack,
        waker: *waker,
        comm: thread.comm,
    });
    entry.submit(wakeup());
}

/// The sum of a thread's waits at this place that its present waker has ended; `None` if there is no room for it.
#[inline(always)]
pub fn by_waker(thread: &mut WaitingThread, tid: u32, place: &Place) -> Option<&'static mut Sum> {
    if thread.has_wakers == 0 {
        let _ = WOKEN.insert(tid, NEVER_WOKEN.get(0)?, BPF_NOEXIST.into());
        thread.has_wakers = 1;
    }
    // SAFETY: as the thread's own entry.
    let woken = unsafe { &mut *WOKEN.get_ptr_mut(tid)? };
    let Waker { user_stack, kernel_stack, .. } = thread.waker;
    let hash = (place.user_stack.lo ^ place.kernel_stack.hi ^ user_stack.lo ^ kernel_stack.hi) >> 32;
    let wait = &mut woken.waits[hash as usize & (WAKERS_PER_THREAD - 1)];
    let is_same = wait.user_stack == place.user_stack
        && wait.kernel_stack == place.kernel_stack
        && wait.sum.state == place.sum.state
        && wait.waker.tid == thread.waker.tid
        && wait.waker.user_stack == user_stack
        && wait.waker.kernel_stack == kernel_stack;
    if !is_same {
        if wait.sum.count != 0 {
            hand_over_wait(tid, thread, wait);
        }
        wait.user_stack = place.user_stack;
        wait.kernel_stack = place.kernel_stack;
        wait.waker = thread.waker;
        wait.sum.state = place.sum.state;
    }
    Some(&mut wait.sum)
}

/// Removes a thread's sums by wakers.
#[inline(always)]
pub fn forget_wakers(tid: u32) {
    let _ = WOKEN.remove(tid);
}
