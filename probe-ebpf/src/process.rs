//! Processes come and go: keeps the table of targets, and tells user space.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes,
};
use probe_ebpf::abi::{Counter, ExecEvent, ExitEvent, ForkEvent, MAX_PATH, Settings, Target, kind, target_flags};

use crate::maps::{EVENTS, TARGETS, count, settings, target};

/// Wake the reader at once: what it must read of a process may be gone in a moment.
const BPF_RB_FORCE_WAKEUP: u64 = 2;

pub type Struct = *const u8;

/// Reads a field of a kernel struct.
#[inline(always)]
fn field<T>(base: Struct, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()).ok() }
}

fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

fn store(tgid: u32, target: Target, settings: &Settings) {
    // Where every process is a target, one that does not fit is followed nevertheless.
    if TARGETS.insert(tgid, target, BPF_ANY.into()).is_err() && settings.all == 0 {
        count(Counter::TargetsFull);
    }
}

#[inline(always)]
pub fn exec(binprm: Struct) {
    let settings = settings();
    let tgid = current_tgid();
    let target = target(tgid, &settings);
    if let Some(target) = target {
        let flags = target.flags & !target_flags::AWAITS_EXEC;
        store(tgid, Target { epoch: target.epoch.wrapping_add(1), flags }, &settings);
    }
    if target.is_none() && settings.all_lifecycle == 0 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<ExecEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved for this event; every field is written.
    unsafe {
        (*event).kind = kind::EXEC;
        (*event).tgid = tgid;
        (*event).time_ns = now();
        (*event).path = [0; MAX_PATH];
        if let Some(path) = field::<*const u8>(binprm, settings.offsets.binprm_filename) {
            let _ = bpf_probe_read_kernel_str_bytes(path, &mut (*event).path);
        }
    }
    entry.submit(BPF_RB_FORCE_WAKEUP);
}

#[inline(always)]
pub fn fork(parent: Struct, child: Struct) {
    let settings = settings();
    let offsets = &settings.offsets;
    let (Some(parent), Some(pid), Some(tgid)) = (
        field::<u32>(parent, offsets.task_tgid),
        field::<u32>(child, offsets.task_pid),
        field::<u32>(child, offsets.task_tgid),
    ) else {
        return;
    };
    if pid != tgid {
        return; // a thread
    }
    let target = target(parent, &settings);
    // Depends on the time, so that a process id that is used again does not meet the stacks of its former owner.
    let epoch = (now() >> 10) as u32;
    let mut follow = false;
    if let Some(target) = target {
        if target.flags & target_flags::SPAWNER != 0 {
            store(tgid, Target { epoch, flags: target_flags::AWAITS_EXEC | target_flags::INHERIT }, &settings);
            follow = true;
        } else if target.flags & target_flags::INHERIT != 0 {
            store(tgid, Target { epoch, ..target }, &settings);
            follow = true;
        }
    }
    if !follow && settings.all_lifecycle == 0 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<ForkEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    entry.write(ForkEvent { kind: kind::FORK, parent, child: tgid, padding: 0, time_ns: now() });
    entry.submit(BPF_RB_FORCE_WAKEUP);
}

#[inline(always)]
pub fn exit(task: Struct) {
    let settings = settings();
    let tgid = current_tgid();
    let is_target = target(tgid, &settings).is_some();
    if !is_target && settings.all_lifecycle == 0 {
        return;
    }
    // `signal->live` counts the threads that have not begun to exit (kernel/exit.c, do_exit).
    let live = field::<Struct>(task, settings.offsets.task_signal)
        .and_then(|signal| field::<u32>(signal, settings.offsets.signal_live));
    if live != Some(0) {
        return;
    }
    let _ = TARGETS.remove(tgid);
    let Some(mut entry) = EVENTS.reserve::<ExitEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    entry.write(ExitEvent { kind: kind::EXIT, tgid, time_ns: now() });
    entry.submit(BPF_RB_FORCE_WAKEUP);
}
