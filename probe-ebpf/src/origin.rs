//! Origins: who opens the descriptors of a process and starts its threads, of those processes of which that is asked for. It is
//! remembered when a descriptor was opened until another one of its number is, so that user space can tell whether what it has
//! seen is what there is.
//!
//! Descriptors are seen where they become the process's (`fd_install`), which costs nobody else anything. Kernels that let no
//! functions be traced have nothing but the end of all system calls, which slows down those of every process.
//!
//! Stacks are taken of some only, by chance, of each kind of call apart: a program that opens files without end hides nobody
//! who leaks sockets.

use aya_ebpf::bindings::{BPF_ANY, pt_regs};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_probe_read_user};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use probe_ebpf::abi::{
    Counter, MAX_MADE, Offsets, OriginEvent, StackId, Target, kind, made_by, made_key, target_flags,
};

use crate::chance::Chance;
use crate::maps::{EVENTS, count, setting, target, wakeup};
use crate::memory::{ERRORS, USER_CS};
use crate::stack;
use crate::task::{Struct, current, current_task, field, now, saved_registers};
use crate::walk::{Owner, Scratch};

/// By [`made_key`]: when it was made, as far as it was chosen. What has not been asked for the longest time gives way.
#[map]
static MADE: LruHashMap<u64, u64> = LruHashMap::with_max_entries(MAX_MADE, 0);

/// System calls do not interrupt each other.
#[map]
static ORIGIN_STACK: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// By [`made_by`].
#[map]
static ORIGIN_CHANCES: PerCpuArray<Chance> = PerCpuArray::with_max_entries(made_by::COUNT, 0);

/// Time between two that are chosen on a CPU, of each kind, on average: a stack costs some microseconds. The second is of
/// processes that are looked at closely.
const GAP_NS: u64 = 20_000_000;
const FAST_GAP_NS: u64 = 2_000_000;

/// System calls of 64-bit programs (arch/x86/entry/syscalls/syscall_64.tbl).
mod syscall {
    pub const OPEN: u64 = 2;
    pub const CLOSE: u64 = 3;
    pub const PIPE: u64 = 22;
    pub const DUP: u64 = 32;
    pub const DUP2: u64 = 33;
    pub const SOCKET: u64 = 41;
    pub const ACCEPT: u64 = 43;
    pub const SOCKETPAIR: u64 = 53;
    pub const FCNTL: u64 = 72;
    pub const CREAT: u64 = 85;
    pub const EPOLL_CREATE: u64 = 213;
    pub const MQ_OPEN: u64 = 240;
    pub const INOTIFY_INIT: u64 = 253;
    pub const OPENAT: u64 = 257;
    pub const SIGNALFD: u64 = 282;
    pub const TIMERFD_CREATE: u64 = 283;
    pub const EVENTFD: u64 = 284;
    pub const ACCEPT4: u64 = 288;
    pub const SIGNALFD4: u64 = 289;
    pub const EVENTFD2: u64 = 290;
    pub const EPOLL_CREATE1: u64 = 291;
    pub const DUP3: u64 = 292;
    pub const PIPE2: u64 = 293;
    pub const INOTIFY_INIT1: u64 = 294;
    pub const PERF_EVENT_OPEN: u64 = 298;
    pub const FANOTIFY_INIT: u64 = 300;
    pub const OPEN_BY_HANDLE_AT: u64 = 304;
    pub const MEMFD_CREATE: u64 = 319;
    pub const USERFAULTFD: u64 = 323;
    pub const IO_URING_SETUP: u64 = 425;
    pub const OPEN_TREE: u64 = 428;
    pub const PIDFD_OPEN: u64 = 434;
    pub const OPENAT2: u64 = 437;
    pub const PIDFD_GETFD: u64 = 438;
    pub const MEMFD_SECRET: u64 = 447;
}

/// `F_DUPFD` (include/uapi/asm-generic/fcntl.h) and `F_DUPFD_CLOEXEC` (include/uapi/linux/fcntl.h).
const F_DUPFD: u64 = 0;
const F_DUPFD_CLOEXEC: u64 = 1030;

/// By which kind of call a descriptor is opened; none of [`made_by`] for a call that opens none.
#[inline(always)]
fn how(number: u64) -> u32 {
    use syscall as s;
    match number {
        s::OPEN | s::OPENAT | s::OPENAT2 | s::CREAT | s::OPEN_BY_HANDLE_AT | s::OPEN_TREE => made_by::OPEN,
        s::SOCKET | s::SOCKETPAIR => made_by::SOCKET,
        s::ACCEPT | s::ACCEPT4 => made_by::ACCEPT,
        s::PIPE | s::PIPE2 => made_by::PIPE,
        s::EVENTFD | s::EVENTFD2 | s::EPOLL_CREATE | s::EPOLL_CREATE1 | s::TIMERFD_CREATE | s::SIGNALFD => {
            made_by::ANONYMOUS
        }
        s::SIGNALFD4 | s::INOTIFY_INIT | s::INOTIFY_INIT1 | s::FANOTIFY_INIT | s::MEMFD_CREATE => made_by::ANONYMOUS,
        s::MEMFD_SECRET | s::PERF_EVENT_OPEN | s::USERFAULTFD | s::IO_URING_SETUP | s::PIDFD_OPEN => made_by::ANONYMOUS,
        s::MQ_OPEN => made_by::ANONYMOUS,
        s::DUP | s::DUP2 | s::DUP3 | s::FCNTL | s::PIDFD_GETFD => made_by::COPY,
        _ => made_by::COUNT,
    }
}

/// A descriptor becomes one of the current process (fs/file.c).
#[inline(always)]
pub fn installs(number: u32) {
    let (tgid, tid) = current();
    let Some(target) = target(tgid).filter(|target| target.flags & target_flags::DESCRIPTORS != 0) else { return };
    let how = match saved_registers(current_task()) {
        // 32-bit programs have other numbers.
        Some((start, regs)) if start.cs == USER_CS => {
            // SAFETY: the verifier knows that they are a task's registers.
            how(unsafe { core::ptr::read_volatile(&raw const (*regs).orig_rax) })
        }
        _ => made_by::COUNT,
    };
    // One that another process has sent, or of `io_uring`, is as a copy is: of whatever there is.
    let how = if how == made_by::COUNT { made_by::COPY } else { how };
    made(target, (tgid, tid), how, [number, NONE]);
}

/// `dup2` and `dup3` are called: what has their second argument as its number gives way, and nothing is installed.
#[inline(always)]
pub fn replaces(regs: *const pt_regs) {
    let (tgid, _) = current();
    if target(tgid).is_some_and(|target| target.flags & target_flags::DESCRIPTORS != 0) {
        // SAFETY: the verifier knows that they are the registers of a system call.
        let number = unsafe { core::ptr::read_volatile(&raw const (*regs).rsi) };
        forget(made_key(tgid, made_by::COPY, number as u32));
    }
}

/// A system call returns: nearly always another one than those that are meant, so that this comes first.
#[inline(always)]
pub fn returns(regs: *const pt_regs, result: u64) {
    // SAFETY: the verifier knows that they are the registers of a system call.
    let read = |register: *const u64| unsafe { core::ptr::read_volatile(register) };
    // SAFETY: as above.
    let number = read(unsafe { &raw const (*regs).orig_rax });
    let (how, is_close) = (how(number), number == syscall::CLOSE);
    if how == made_by::COUNT && !is_close {
        return;
    }
    let (tgid, tid) = current();
    let Some(target) = target(tgid).filter(|target| target.flags & target_flags::DESCRIPTORS != 0) else { return };
    // SAFETY: as above. 32-bit programs have other numbers.
    if read(unsafe { &raw const (*regs).cs }) != USER_CS {
        return;
    }
    // SAFETY: as above.
    let (first, second) = unsafe { (read(&raw const (*regs).rdi), read(&raw const (*regs).rsi)) };
    if is_close {
        // Whatever it returns: after an error in writing back it is closed as well.
        return forget(made_key(tgid, made_by::OPEN, first as u32));
    }
    if result > ERRORS.wrapping_neg() {
        return;
    }
    let mut numbers = [result as u32, NONE];
    match number {
        syscall::FCNTL if second != F_DUPFD && second != F_DUPFD_CLOEXEC => return,
        // One that is there has other signals now.
        syscall::SIGNALFD | syscall::SIGNALFD4 if first as i32 != -1 => return,
        syscall::PIPE | syscall::PIPE2 | syscall::SOCKETPAIR => {
            // SAFETY: as above.
            let pair = if how == made_by::PIPE { first } else { read(unsafe { &raw const (*regs).r10 }) };
            // SAFETY: the helper checks the address.
            let Ok(pair) = (unsafe { bpf_probe_read_user(pair as *const u64) }) else { return };
            numbers = [pair as u32, (pair >> 32) as u32];
        }
        _ => {}
    }
    made(target, (tgid, tid), how, numbers);
}

/// In place of a second number.
const NONE: u32 = u32::MAX;

/// A thread is started by the current one.
#[inline(always)]
pub fn starts(child: Struct) {
    let (tgid, tid) = current();
    let Some(target) = target(tgid).filter(|target| target.flags & target_flags::THREADS != 0) else { return };
    let child = |offset| if offset == Offsets::MISSING { None } else { field::<u32>(child, offset) };
    let (Some(new), Some(process)) = (child(setting!(offsets.task_pid)), child(setting!(offsets.task_tgid))) else {
        return;
    };
    if process == tgid {
        made(target, (tgid, tid), made_by::THREAD, [new, NONE]);
    }
}

#[inline(always)]
fn made(target: Target, (tgid, tid): (u32, u32), how: u32, numbers: [u32; 2]) {
    // SAFETY: this CPU's own.
    let Some(chance) = (unsafe { ORIGIN_CHANCES.get_ptr_mut(how).and_then(|chance| chance.as_mut()) }) else { return };
    let is_fast = target.flags & target_flags::FAST != 0;
    let weight = chance.weigh(if is_fast { FAST_GAP_NS } else { GAP_NS });
    let keys = numbers.map(|number| made_key(tgid, how, number));
    if weight == 0 {
        forget(keys[0]);
        if numbers[1] != NONE {
            forget(keys[1]);
        }
        return;
    }
    let time_ns = now();
    let mut user_stack = StackId::NONE;
    if setting!(user_stacks) != 0 {
        let Some(scratch) = ORIGIN_STACK.get_ptr_mut(0) else { return };
        user_stack = stack::user_from_kernel(scratch, Owner { tgid, epoch: target.epoch, time_ns });
    }
    let event = OriginEvent {
        kind: kind::ORIGIN,
        how,
        time_ns,
        tgid,
        tid,
        number: numbers[0],
        weight,
        user_stack,
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    send(event, keys[0]);
    if numbers[1] != NONE {
        send(OriginEvent { number: numbers[1], ..event }, keys[1]);
    }
}

#[inline(always)]
fn send(event: OriginEvent, key: u64) {
    let Some(mut entry) = EVENTS.reserve::<OriginEvent>(0) else {
        count(Counter::OriginsLost);
        return forget(key);
    };
    entry.write(event);
    entry.submit(wakeup());
    let _ = MADE.insert(key, event.time_ns, BPF_ANY.into());
}

/// Of what has this number now it is not known who made it.
#[inline(always)]
fn forget(key: u64) {
    // Looking takes no lock, and most were not chosen.
    // SAFETY: only its presence matters.
    if unsafe { MADE.get(key) }.is_some() {
        let _ = MADE.remove(key);
    }
}
