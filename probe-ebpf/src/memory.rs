//! Memory: what a process maps and unmaps, by the system calls that do, and the event in which all changes travel.

use aya_ebpf::bindings::{BPF_ANY, pt_regs};
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use probe_ebpf::abi::{Counter, MAX_TARGETS, MemoryEvent, PAGE_BYTES, StackId, kind, memory_change, target_flags};

use crate::maps::{EVENTS, count, setting, target, wakeup};
use crate::stack;
use crate::task::{current, now};
use crate::walk::{Owner, Scratch};

/// The end of each process's heap, as `brk` has left it. User space tells of what was there before.
#[map]
static BREAKS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(MAX_TARGETS, 0);

/// System calls do not interrupt each other.
#[map]
static MAPPING_STACK: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// What a CPU may still tell of: programs that start map much at once, but not for long.
#[repr(C)]
struct Budget {
    last_ns: u64,
    spent: u64,
}

#[map]
static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);

/// Changes at once, and in the time of one page fault that is looked at; one with a stack counts for two.
const MAX_AT_ONCE: u64 = 4096;
const PER_FAULT: u64 = 8;

/// System calls of 64-bit programs (arch/x86/entry/syscalls/syscall_64.tbl).
mod syscall {
    pub const MMAP: u64 = 9;
    pub const MUNMAP: u64 = 11;
    pub const BRK: u64 = 12;
    pub const MREMAP: u64 = 25;
    pub const MADVISE: u64 = 28;
    pub const MLOCK: u64 = 149;
    pub const MLOCKALL: u64 = 151;
    pub const MLOCK2: u64 = 325;
}

/// `MAP_LOCKED` and `MAP_POPULATE` (include/uapi/asm-generic/mman.h): what is mapped is resident when the call returns.
const MAP_POPULATE: u64 = 0x2000 | 0x8000;
/// `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE` (include/uapi/asm-generic/mman-common.h).
const POPULATE: [u64; 2] = [22, 23];
/// `MLOCK_ONFAULT`, for `mlock2` and for `mlockall`: nothing is made resident.
const ONFAULT: u64 = 1;
const ALL_ONFAULT: u64 = 4;
/// `MCL_CURRENT` and `MCL_FUTURE`.
const ALL_CURRENT: u64 = 1;
const ALL_FUTURE: u64 = 2;

/// `MADV_DONTNEED` and `MADV_REMOVE` (include/uapi/asm-generic/mman-common.h): the pages are gone when the call returns.
const DONTNEED: u64 = 4;
const REMOVE: u64 = 9;

/// The code segment of 64-bit user code (arch/x86/include/asm/segment.h).
pub const USER_CS: u64 = 0x33;

/// What system calls return as errors is the last page of numbers.
pub const ERRORS: u64 = 4096;

/// A change of a process's memory on its way.
pub struct Change {
    pub change: u32,
    pub tgid: u32,
    pub tid: u32,
    pub time_ns: u64,
    pub start: u64,
    pub bytes: u64,
    pub old_start: u64,
    pub old_bytes: u64,
    pub count: u64,
    pub user_stack: StackId,
}

impl Change {
    #[inline(always)]
    pub fn new(tgid: u32, tid: u32) -> Self {
        Self {
            change: 0,
            tgid,
            tid,
            time_ns: 0,
            start: 0,
            bytes: 0,
            old_start: 0,
            old_bytes: 0,
            count: 1,
            user_stack: StackId::NONE,
        }
    }
}

/// Tells user space of a change.
#[inline(always)]
pub fn send(change: &Change) {
    let Some(mut entry) = EVENTS.reserve::<MemoryEvent>(0) else {
        count(Counter::MemoryLost);
        return;
    };
    entry.write(MemoryEvent {
        kind: kind::MEMORY,
        change: change.change,
        time_ns: change.time_ns,
        tgid: change.tgid,
        tid: change.tid,
        start: change.start,
        bytes: change.bytes,
        old_start: change.old_start,
        old_bytes: change.old_bytes,
        count: change.count,
        user_stack: change.user_stack,
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
    entry.submit(wakeup());
}

/// The current process has another program.
#[inline(always)]
pub fn forget(tgid: u32) {
    let _ = BREAKS.remove(tgid);
    send(&Change { change: memory_change::REPLACED, time_ns: now(), ..Change::new(tgid, tgid) });
}

/// A system call returns: nearly always another one than those that are meant, so that this comes first.
#[inline(always)]
pub fn returns(regs: *const pt_regs, result: u64) {
    // SAFETY: the verifier knows that they are the registers of a system call.
    let number = unsafe { core::ptr::read_volatile(&raw const (*regs).orig_rax) };
    let is_mapping =
        matches!(number, syscall::MMAP | syscall::MUNMAP | syscall::BRK | syscall::MREMAP | syscall::MADVISE);
    if is_mapping || matches!(number, syscall::MLOCK | syscall::MLOCKALL | syscall::MLOCK2) {
        maps(regs, result);
    }
}

/// A system call returns that may change what is mapped. The programs that come here share its code in the object.
#[inline(never)]
pub fn maps(regs: *const pt_regs, result: u64) {
    // SAFETY: the verifier knows that they are the registers of a system call.
    let read = |register: *const u64| unsafe { core::ptr::read_volatile(register) };
    // SAFETY: as above.
    let number = read(unsafe { &raw const (*regs).orig_rax });
    // SAFETY: as above. 32-bit programs have other numbers.
    if read(unsafe { &raw const (*regs).cs }) != USER_CS {
        return;
    }
    if result > ERRORS.wrapping_neg() {
        return;
    }
    let (tgid, tid) = current();
    let Some(target) = target(tgid) else { return };
    if target.flags & (target_flags::SPAWNER | target_flags::AWAITS_EXEC) != 0 {
        return;
    }
    // SAFETY: as above.
    let (first, second, third) =
        unsafe { (read(&raw const (*regs).rdi), read(&raw const (*regs).rsi), read(&raw const (*regs).rdx)) };
    let mut change = Change::new(tgid, tid);
    change.change = memory_change::MAPPED;
    let mut is_populated = false;
    match number {
        syscall::MMAP => {
            (change.start, change.bytes) = (result, pages(second));
            // SAFETY: as above.
            is_populated = third != 0 && read(unsafe { &raw const (*regs).r10 }) & MAP_POPULATE != 0;
        }
        syscall::MLOCK | syscall::MLOCK2 => {
            if number == syscall::MLOCK2 && third & ONFAULT != 0 {
                return;
            }
            change.change = memory_change::POPULATED;
            let start = first & !(PAGE_BYTES - 1);
            (change.start, change.bytes) = (start, pages(first.wrapping_add(second).wrapping_sub(start)));
        }
        syscall::MLOCKALL => {
            if first & ALL_CURRENT == 0 || first & ALL_ONFAULT != 0 {
                return;
            }
            change.change = memory_change::LOCKED;
            // All of the address space; that it is for the future as well is told by where it begins.
            (change.start, change.bytes) = (first & ALL_FUTURE, u64::MAX);
        }
        syscall::MUNMAP => {
            change.change = memory_change::UNMAPPED;
            (change.start, change.bytes) = (first, pages(second));
        }
        syscall::BRK => {
            let end = pages(result);
            // SAFETY: copied at once.
            let before = unsafe { BREAKS.get(tgid) }.copied().unwrap_or(end);
            let _ = BREAKS.insert(tgid, end, BPF_ANY.into());
            if end < before {
                change.change = memory_change::UNMAPPED;
                (change.start, change.bytes) = (end, before - end);
            } else {
                (change.start, change.bytes) = (before, end - before);
            }
        }
        syscall::MREMAP => {
            change.change = memory_change::MOVED;
            (change.start, change.bytes) = (result, pages(third));
            (change.old_start, change.old_bytes) = (first, pages(second));
        }
        _ => {
            change.change = match third {
                DONTNEED | REMOVE => memory_change::RELEASED,
                third if POPULATE.contains(&third) => memory_change::POPULATED,
                _ => return,
            };
            (change.start, change.bytes) = (first, pages(second));
        }
    }
    if change.bytes == 0 {
        return;
    }
    let has_stack = !matches!(change.change, memory_change::UNMAPPED | memory_change::RELEASED);
    change.time_ns = now();
    if !is_within_budget(1 + u64::from(has_stack), change.time_ns) {
        count(Counter::MappingsSkipped);
        return;
    }
    if has_stack && setting!(user_stacks) != 0 {
        let Some(scratch) = MAPPING_STACK.get_ptr_mut(0) else { return };
        let owner = Owner { tgid, epoch: target.epoch, time_ns: change.time_ns };
        change.user_stack = stack::user_from_kernel(scratch, owner);
    }
    send(&change);
    if is_populated {
        change.change = memory_change::POPULATED;
        send(&change);
    }
}

/// Rounded up to whole pages.
#[inline(always)]
fn pages(bytes: u64) -> u64 {
    (bytes.wrapping_add(PAGE_BYTES - 1)) & !(PAGE_BYTES - 1)
}

#[inline(always)]
fn is_within_budget(cost: u64, time_ns: u64) -> bool {
    // SAFETY: this CPU's own.
    let Some(budget) = (unsafe { BUDGET.get_ptr_mut(0).and_then(|budget| budget.as_mut()) }) else { return false };
    let regained = time_ns.wrapping_sub(budget.last_ns) * PER_FAULT / setting!(fault_gap_ns).max(1);
    if regained > 0 {
        budget.last_ns = time_ns;
        budget.spent = budget.spent.saturating_sub(regained);
    }
    let has_room = budget.spent < MAX_AT_ONCE;
    budget.spent += if has_room { cost } else { 0 };
    has_room
}
