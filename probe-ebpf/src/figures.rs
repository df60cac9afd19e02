//! What is made of the calls of timed functions and of spans: each figure is a handler of its own for their beginnings and
//! ends, and is made where it is wanted.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use probe_ebpf::abi::{CallEvent, Counter, Judgement, StackId, WaitEvent, Waker, feature, kind};
use probe_ebpf::calls::{BUCKETS, Call, Figures, bucket, call_flags};
use probe_ebpf::unwind::Registers;

use crate::atomic::{add, add_half};
use crate::call::Hit;
use crate::maps::{EVENTS, count, setting, target, wakeup};
use crate::stack::{self, Claimed};
use crate::walk::{Owner, Start};

/// By function; user space makes it as large as there are functions.
#[map]
static FIGURES: PerCpuArray<Figures> = PerCpuArray::with_max_entries(1, 0);

#[map]
static CALL_STACK: PerCpuArray<Claimed> = PerCpuArray::with_max_entries(1, 0);

/// `task_struct.__state` of a thread that sleeps (include/linux/sched.h).
const TASK_INTERRUPTIBLE: u32 = 1;

/// A call or a span that has ended.
pub struct Ended<'a> {
    pub since_ns: u64,
    pub took_ns: u64,
    /// Whose it was; 0 for a thread's.
    pub goroutine: u64,
    /// Where it ended, for a call.
    pub regs: Option<&'a pt_regs>,
}

#[inline(always)]
pub fn of(function: u32) -> Option<&'static Figures> {
    // SAFETY: never taken away. Another thread may be in the middle of the same on this CPU, so that sums are atomic.
    unsafe { FIGURES.get_ptr(function)?.as_ref() }
}

/// Extremes are written seldom; that two writers meet costs one of them.
#[inline(always)]
fn set(place: &u64, value: u64) {
    // SAFETY: in a map, which may change at any time.
    unsafe { (&raw const *place).cast_mut().write_volatile(value) }
}

/// A call or span has begun.
#[inline(always)]
pub fn entered(hit: &Hit) {
    add(&hit.figures.entered, 1);
}

/// Something has happened that has no end.
#[inline(always)]
pub fn counted(hit: &Hit) {
    add(&hit.figures.entered, 1);
    add(&hit.figures.calls, 1);
}

/// A call or span that cannot be followed.
#[inline(always)]
pub fn missed(hit: &Hit) {
    add(&hit.figures.missed, 1);
}

/// A call has ended unseen: it was left by a jump or an exception, or returned to where no probe was.
#[inline(always)]
pub fn unseen(call: &Call) {
    let Some(figures) = of(call.function) else { return };
    if call.flags & call_flags::NEW_SITE != 0 {
        add(&figures.missed, 1);
    } else {
        add(&figures.left, 1);
    }
}

/// A span has begun again before it has ended.
#[inline(always)]
pub fn replaced(hit: &Hit) {
    add(&hit.figures.left, 1);
}

/// A call or span has ended.
#[inline(always)]
pub fn ended(hit: &Hit, ended: &Ended<'_>) {
    took(hit.figures, hit.judgement, ended.took_ns);
    let Some(regs) = ended.regs else { return };
    if hit.wants(feature::ERRORS) {
        add(&hit.figures.errors, u64::from(hit.judgement.is_error(regs.rax)));
    }
    if hit.wants(feature::SLOW) && ended.took_ns > hit.judgement.threshold_ns {
        slow(hit, ended, regs);
    }
}

/// A call has ended because its thread has.
#[inline(always)]
pub fn thread_ended(call: &Call, judgement: &Judgement, time_ns: u64) {
    let Some(figures) = of(call.function) else { return };
    took(figures, judgement, time_ns.saturating_sub(call.since_ns));
    add(&figures.thread_ended, 1);
}

/// One call more, and the time that it took.
#[inline(always)]
fn took(figures: &Figures, judgement: &Judgement, took_ns: u64) {
    sums(figures, took_ns);
    if judgement.features & feature::HISTOGRAM != 0 {
        histogram(figures, took_ns);
    }
    if judgement.features & feature::ATTAINMENT != 0 {
        add(&figures.within, u64::from(took_ns <= judgement.threshold_ns));
    }
}

#[inline(always)]
fn sums(figures: &Figures, took_ns: u64) {
    add(&figures.calls, 1);
    add(&figures.total_ns, took_ns);
    if took_ns > figures.max_ns {
        set(&figures.max_ns, took_ns);
    }
    if figures.min_ns == 0 || took_ns < figures.min_ns {
        set(&figures.min_ns, took_ns.max(1));
    }
}

#[inline(always)]
fn histogram(figures: &Figures, took_ns: u64) {
    // The verifier of Linux 6.1 sees a bound only in a mask, which the compiler must not leave out.
    let at = core::hint::black_box(bucket(took_ns)) & (BUCKETS.next_power_of_two() - 1);
    if at < BUCKETS {
        add_half(&figures.histogram[at], 1);
    }
}

/// Reports a call over its threshold, with its stack; one in which a goroutine was parked as the wait that it was.
#[inline(always)]
fn slow(hit: &Hit, ended: &Ended<'_>, regs: &pt_regs) {
    let user_stack = user_stack(hit, regs);
    let comm = bpf_get_current_comm().unwrap_or_default();
    let Hit { function, tgid, tid, time_ns, .. } = *hit;
    let Ended { since_ns, took_ns, goroutine, .. } = *ended;
    if hit.wants(feature::PARK) {
        let Some(mut entry) = EVENTS.reserve::<WaitEvent>(0) else { return count(Counter::WaitsLost) };
        entry.write(WaitEvent {
            kind: kind::WAIT,
            state: TASK_INTERRUPTIBLE,
            time_ns,
            tgid,
            tid,
            count: 1,
            total_ns: took_ns,
            goroutine,
            user_stack,
            kernel_stack: StackId::NONE,
            waker: Waker::NONE,
            comm,
        });
        entry.submit(wakeup());
    } else {
        let Some(mut entry) = EVENTS.reserve::<CallEvent>(0) else { return count(Counter::CallsLost) };
        entry.write(CallEvent {
            kind: kind::CALL,
            function,
            time_ns,
            since_ns,
            tgid,
            tid,
            goroutine,
            user_stack,
            comm,
        });
        entry.submit(wakeup());
    }
}

#[inline(always)]
fn user_stack(hit: &Hit, regs: &pt_regs) -> StackId {
    if setting!(user_stacks) == 0 {
        return StackId::NONE;
    }
    let registers = Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp };
    let epoch = target(hit.tgid).map_or(0, |target| target.epoch);
    let owner = Owner { tgid: hit.tgid, epoch, time_ns: hit.time_ns };
    let start = Start { registers, cs: regs.cs, return_address: 0 };
    stack::user_claimed(CALL_STACK.get_ptr_mut(0), &start, owner).unwrap_or_else(|| {
        count(Counter::StacksLost);
        StackId::NONE
    })
}
