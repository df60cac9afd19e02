//! Processes come and go: keeps the table of targets, and tells user space.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use probe_ebpf::abi::{
    Counter, ExecEvent, ExitEvent, ForkEvent, MAX_DELAY_NS, MAX_PATH, SetAsideEvent, Target, kind, target_flags,
};
use probe_ebpf::allowance::{Allowance, Limit};

use crate::allocation;
use crate::call;
use crate::goroutine;
use crate::lender;
use crate::maps::{EVENTS, TARGETS, count, setting, target};
use crate::memory;
use crate::newcomers;
use crate::task::{Struct, current, current_tgid, field, now};
use crate::wait;

/// For how long the reader was not woken lately, see [`urgent`].
#[map]
static WAKEUPS: Array<Allowance> = Array::with_max_entries(1, 0);

/// How to submit an event of a process: the reader is woken at once, because what it must read may be gone in a moment; but in
/// a flood it reads once in [`MAX_DELAY_NS`].
#[inline(always)]
pub fn urgent() -> u64 {
    const BPF_RB_NO_WAKEUP: u64 = 1;
    const BPF_RB_FORCE_WAKEUP: u64 = 2;
    const LIMIT: Limit = Limit { at_once: 20, every_ns: MAX_DELAY_NS };
    let now_ns = now();
    // SAFETY: in a map. Where another CPU changes it meanwhile, the reader is woken once more or once less, and reads in time.
    match WAKEUPS.get_ptr_mut(0).and_then(|allowance| unsafe { allowance.as_mut() }) {
        Some(allowance) if !allowance.has_left(LIMIT, now_ns) => BPF_RB_NO_WAKEUP,
        Some(allowance) => {
            allowance.take(LIMIT, now_ns);
            BPF_RB_FORCE_WAKEUP
        }
        None => BPF_RB_FORCE_WAKEUP,
    }
}

fn store(tgid: u32, target: Target) {
    // Where every process is a target, one that does not fit is followed nevertheless.
    if TARGETS.insert(tgid, target, BPF_ANY.into()).is_err() && setting!(all) == 0 {
        count(Counter::TargetsFull);
    }
}

#[inline(always)]
pub fn exec(task: Struct, old_tid: u32, binprm: Struct) {
    let tgid = current_tgid();
    // Whichever thread executes takes the process's id as its own, and its stacks are those of another program.
    if old_tid != tgid {
        wait::forget(old_tid);
        call::forget(tgid, old_tid);
    }
    call::forget(tgid, tgid);
    wait::forget(tgid);
    lender::forget(tgid);
    let Some(target) = target(tgid) else {
        newcomers::executes(tgid, task);
        return;
    };
    if !newcomers::may_execute(tgid) {
        set_aside(tgid, task);
        return;
    }
    let flags = target.flags & !target_flags::AWAITS_EXEC;
    store(tgid, Target { epoch: target.epoch.wrapping_add(1), flags });
    if setting!(fault_gap_ns) != 0 {
        memory::forget(tgid);
    }
    let Some(mut entry) = EVENTS.reserve::<ExecEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    let event = entry.as_mut_ptr();
    let filename = field::<*const u8>(binprm, setting!(offsets.binprm_filename));
    // SAFETY: reserved for this event; every field is written.
    unsafe {
        (*event).kind = kind::EXEC;
        (*event).tgid = tgid;
        (*event).time_ns = now();
        (*event).path = [0; MAX_PATH];
        if let Some(path) = filename {
            let _ = bpf_probe_read_kernel_str_bytes(path, &mut (*event).path);
        }
    }
    entry.submit(urgent());
}

/// A target replaces its program all the time: to follow each would cost more than it tells.
#[inline(always)]
fn set_aside(tgid: u32, task: Struct) {
    let Some(mut entry) = EVENTS.reserve::<SetAsideEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    entry.write(SetAsideEvent { kind: kind::SET_ASIDE, tgid, time_ns: now() });
    entry.submit(urgent());
    let _ = TARGETS.remove(tgid);
    newcomers::is_set_aside(tgid, task);
}

#[inline(always)]
pub fn fork(parent: Struct, child: Struct) {
    let (Some(parent), Some(pid), Some(tgid)) = (
        field::<u32>(parent, setting!(offsets.task_tgid)),
        field::<u32>(child, setting!(offsets.task_pid)),
        field::<u32>(child, setting!(offsets.task_tgid)),
    ) else {
        return;
    };
    if pid != tgid {
        return; // a thread
    }
    let target = target(parent);
    // Depends on the time, so that a process id that is used again does not meet the stacks of its former owner.
    let epoch = (now() >> 10) as u32;
    let mut follow = false;
    if let Some(target) = target {
        if target.flags & target_flags::SPAWNER != 0 {
            store(tgid, Target { epoch, flags: target_flags::AWAITS_EXEC | target_flags::INHERIT });
            follow = true;
        } else if target.flags & target_flags::INHERIT != 0 {
            store(tgid, Target { epoch, ..target });
            lender::lends(parent, target.epoch, tgid);
            follow = true;
        }
    }
    if !follow {
        // A child of a stranger is a stranger until it runs another program.
        if target.is_some() {
            newcomers::is_made(tgid, parent);
        }
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<ForkEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    entry.write(ForkEvent { kind: kind::FORK, parent, child: tgid, padding: 0, time_ns: now() });
    entry.submit(urgent());
}

#[inline(always)]
pub fn exit(task: Struct) {
    let (tgid, tid) = current();
    call::forget(tgid, tid);
    allocation::forget(tid);
    let is_target = target(tgid).is_some();
    if !is_target && setting!(newcomers) == 0 {
        return;
    }
    // `signal->live` counts the threads that have not begun to exit (kernel/exit.c, do_exit).
    let live = field::<Struct>(task, setting!(offsets.task_signal))
        .and_then(|signal| field::<u32>(signal, setting!(offsets.signal_live)));
    if live != Some(0) {
        return;
    }
    if !is_target {
        newcomers::leaves(tgid);
        return;
    }
    let _ = TARGETS.remove(tgid);
    lender::forget(tgid);
    goroutine::forget(tgid);
    let Some(mut entry) = EVENTS.reserve::<ExitEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    entry.write(ExitEvent { kind: kind::EXIT, tgid, time_ns: now() });
    entry.submit(urgent());
}
