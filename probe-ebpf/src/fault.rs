//! Page faults: who makes memory resident, and with which stack. A fault is chosen at its beginning; the page that is
//! allocated for it tells that it took memory, and how much. A fault that takes none (a page that is there already, a
//! permission that was changed) gives no event.
//!
//! Every fault on the host comes by here, so that one which is not chosen costs a few instructions. On each CPU it is
//! about one fault in a number that follows the rate, chosen by chance; it stands for all since the one before. Huge
//! pages are counted each, because one is worth as much as 512 others: a fault cannot stand for both.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use probe_ebpf::abi::{Counter, PAGE_BYTES, StackId, memory_change, target_flags};

use crate::maps::{count, setting, target};
use crate::memory::{self, Change};
use crate::stack;
use crate::task::{current, current_task, now, saved_registers};
use crate::walk::{Owner, Scratch};

/// What is known of the faults on a CPU.
#[repr(C)]
struct Gate {
    /// Faults since the last one that was chosen, and after how many the next one is.
    since: u32,
    until: u32,
    /// How many there are between two that are chosen, on average.
    mean: u32,
    /// Faults, and those chosen, in the present stretch of time.
    faults: u32,
    chosen: u32,
    /// The process of the last fault, and whether it is watched; that is looked up again after some faults.
    tgid: u32,
    is_target: u32,
    known_for: u32,
    /// The thread of the last fault, which has taken nothing yet; 0 for none.
    tid: u32,
    /// How many faults that one stands for; 0 if it was not chosen.
    weight: u32,
    /// Beginning of the stretch of time, in the kernel's ticks and in nanoseconds.
    begin_ticks: u64,
    begin_ns: u64,
    /// That fault's address, and the registers by which it is known again.
    address: u64,
    pc: u64,
    sp: u64,
}

#[map]
static FAULTS: PerCpuArray<Gate> = PerCpuArray::with_max_entries(1, 0);

/// The allocator runs in interrupts as well, but not for pages that can be moved.
#[map]
static FAULT_STACK: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Length of a stretch of time, in ticks: 16 to 160 ms, depending on how the kernel was built.
const STRETCH: u64 = 16;
/// Faults that are chosen at the beginning of a stretch before fewer are, and after each of which fewer still.
const BURST: u32 = 16;
const MORE: u32 = 8;
/// Never fewer than one in this many.
const MAX_MEAN: u32 = 1 << 14;
/// Whether a process is watched is looked up again after this many of its faults.
const LOOK_AGAIN: u32 = 64;
/// `___GFP_MOVABLE` (include/linux/gfp_types.h): pages for users have it, page tables and the kernel's own do not.
const GFP_MOVABLE: u32 = 8;
/// A huge page is 2^9 of the smallest; no page of a user is larger.
const HUGE_ORDER: u32 = 9;

#[inline(always)]
fn gate() -> Option<&'static mut Gate> {
    // SAFETY: this CPU's own. A fault in an interrupt can cost a choice, no more.
    unsafe { FAULTS.get_ptr_mut(0)?.as_mut() }
}

/// A fault begins, in user mode or in the kernel on behalf of the current thread.
#[inline(always)]
pub fn begins(address: u64) {
    if address >> 63 != 0 {
        return; // the kernel's own
    }
    let Some(gate) = gate() else { return };
    // The fault before has ended without taking memory, or sleeps.
    gate.tid = 0;
    let (tgid, tid) = current();
    if gate.tgid != tgid || gate.known_for == 0 {
        gate.tgid = tgid;
        gate.known_for = LOOK_AGAIN;
        let unwatched = target_flags::SPAWNER | target_flags::AWAITS_EXEC;
        gate.is_target = target(tgid).is_some_and(|target| target.flags & unwatched == 0).into();
    }
    gate.known_for -= 1;
    if gate.is_target == 0 {
        return;
    }
    gate.faults += 1;
    gate.since += 1;
    // SAFETY: a helper without arguments.
    let ticks = unsafe { bpf_jiffies64() };
    if ticks.wrapping_sub(gate.begin_ticks) >= STRETCH {
        next_stretch(gate, ticks);
    }
    gate.weight = 0;
    if gate.since >= gate.until {
        choose(gate);
    }
    let Some((start, _)) = saved_registers(current_task()) else { return };
    gate.tid = tid;
    gate.address = address;
    gate.pc = start.registers.pc;
    gate.sp = start.registers.sp;
}

/// Adapts to the rate of the stretch that ends, however long it was.
#[inline(always)]
fn next_stretch(gate: &mut Gate, ticks: u64) {
    let time_ns = now();
    let wanted = time_ns.wrapping_sub(gate.begin_ns) / setting!(fault_gap_ns).max(1);
    let mean = u64::from(gate.faults) / wanted.max(1);
    gate.mean = (mean as u32).clamp(1, MAX_MEAN);
    gate.begin_ticks = ticks;
    gate.begin_ns = time_ns;
    gate.faults = 0;
    gate.chosen = 0;
    // Not after as many as were meant when there were more of them. The present fault is the first of these.
    gate.until = gate.since - 1 + interval(gate.mean);
}

/// By chance, `mean` on average, so that no pattern of a program's faults is in step with it.
#[inline(always)]
fn interval(mean: u32) -> u32 {
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    (((u64::from(2 * mean - 1) * u64::from(random)) >> 32) as u32) + 1
}

#[inline(always)]
fn choose(gate: &mut Gate) {
    gate.weight = gate.since;
    gate.since = 0;
    gate.chosen += 1;
    if gate.chosen >= BURST && gate.chosen & (MORE - 1) == 0 && gate.mean < MAX_MEAN {
        gate.mean = (gate.mean * 2).max(2);
    }
    gate.until = interval(gate.mean);
}

/// A huge page stands for itself. Faults for which it was chosen are left to the next one.
#[inline(always)]
fn huge(gate: &mut Gate) -> u32 {
    match gate.weight {
        0 => gate.since = gate.since.saturating_sub(1),
        weight => gate.since += weight - 1,
    }
    1
}

/// A page is asked for, by whomever: 2^order of the smallest ones. It is null if there is none so large, as huge ones
/// are rare where memory is in pieces: smaller ones follow, for this fault and for others.
#[inline(always)]
pub fn allocates(page: u64, order: u32, gfp: u32) {
    let Some(gate) = gate() else { return };
    if page == 0 || gate.tid == 0 || gfp & GFP_MOVABLE == 0 {
        return;
    }
    let (tgid, tid) = current();
    if gate.tid != tid {
        return;
    }
    gate.tid = 0;
    let weight = if order >= HUGE_ORDER { huge(gate) } else { gate.weight };
    if weight == 0 {
        return;
    }
    let Some((start, _)) = saved_registers(current_task()) else { return };
    if gate.pc != start.registers.pc || gate.sp != start.registers.sp {
        return; // something else that the thread does
    }
    let Some(target) = target(tgid) else { return };
    let Some(scratch) = FAULT_STACK.get_ptr_mut(0) else { return };
    count(Counter::Faults);
    let time_ns = now();
    let user_stack = if setting!(user_stacks) == 0 {
        StackId::NONE
    } else {
        stack::user(scratch, &start, Owner { tgid, epoch: target.epoch, time_ns })
    };
    let bytes = PAGE_BYTES << order.min(HUGE_ORDER);
    memory::send(&Change {
        change: memory_change::RESIDENT,
        time_ns,
        start: gate.address & !(bytes - 1),
        bytes,
        count: weight.into(),
        user_stack,
        ..Change::new(tgid, tid)
    });
}
