//! Page faults: who makes memory resident, and with which stack. A fault is chosen at its beginning; the page that is
//! allocated for it tells that it took memory, and how much. A fault that takes none (a page that is there already, a
//! permission that was changed) gives no event.
//!
//! Every fault on the host comes by here, so that one which is not chosen costs a few instructions. On each CPU it is
//! about one fault in a number that follows the rate, chosen by chance; it stands for all since the one before. Huge
//! pages are counted each, because one is worth as much as 512 others: a fault cannot stand for both.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use probe_ebpf::abi::{Counter, PAGE_BYTES, StackId, memory_change, target_flags};

use crate::chance::Chance;
use crate::maps::{count, setting, target};
use crate::memory::{self, Change};
use crate::stack;
use crate::task::{current, current_task, now, saved_registers};
use crate::walk::{Owner, Scratch};

/// What is known of the faults on a CPU.
#[repr(C)]
struct Gate {
    /// Which of them are chosen.
    chance: Chance,
    /// The process of the last fault, and whether it is watched; that is looked up again after some faults.
    tgid: u32,
    is_target: u32,
    known_for: u32,
    /// The thread of the last fault, which has taken nothing yet; 0 for none.
    tid: u32,
    /// How many faults that one stands for; 0 if it was not chosen.
    weight: u32,
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
    gate.weight = gate.chance.weigh(setting!(fault_gap_ns));
    let Some((start, _)) = saved_registers(current_task()) else { return };
    gate.tid = tid;
    gate.address = address;
    gate.pc = start.registers.pc;
    gate.sp = start.registers.sp;
}

/// A huge page stands for itself. Faults for which it was chosen are left to the next one.
#[inline(always)]
fn huge(gate: &mut Gate) -> u32 {
    match gate.weight {
        0 => gate.chance.since = gate.chance.since.saturating_sub(1),
        weight => gate.chance.since += weight - 1,
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
