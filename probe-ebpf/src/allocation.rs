//! Allocations: a few of them are sampled, by chance and by size, and their stacks taken. Where they are to be followed, those
//! samples are remembered by their address until it is freed, or handed out again.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_probe_read_user};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::programs::ProbeContext;
use probe_ebpf::abi::{Counter, MAX_CALLERS, kind};
use probe_ebpf::heap::{
    AllocationEndEvent, AllocationEvent, HeapCost, HeapCpu, Layout, LiveAllocation, LiveKey, MAX_HEAPS, MAX_LAYOUTS,
    MAX_LIVE, MAX_REALLOCATIONS, MAX_SIZE, PendingAllocation, Reallocation, function,
};
use probe_ebpf::unwind::Registers;

use crate::atomic::add;
use crate::call::{cookie, read_user};
use crate::maps::{EVENTS, count, setting, target, wakeup};
use crate::pair::register;
use crate::stack::{self, Claimed};
use crate::task::{current, now};
use crate::walk::{Owner, Start};

/// What each CPU remembers. A thread may lose its CPU to another between reading and writing it: that costs a few bytes of the
/// distance to the next sample point, which are independent of everything.
#[map]
static HEAP_CPU: PerCpuArray<HeapCpu> = PerCpuArray::with_max_entries(1, 0);

/// By the number of the heap.
#[map]
static HEAP_COSTS: PerCpuArray<HeapCost> = PerCpuArray::with_max_entries(MAX_HEAPS, 0);

/// By the number of the heap: one sample point for so many bytes, on average; below 2^32. 0: none at all.
#[map]
static HEAP_MEANS: Array<u64> = Array::with_max_entries(MAX_HEAPS, 0);

/// By the low bits of a probe's number, where an allocator publishes its samples.
#[map]
static LAYOUTS: Array<Layout> = Array::with_max_entries(MAX_LAYOUTS, 0);

#[map]
static HEAP_STACK: PerCpuArray<Claimed> = PerCpuArray::with_max_entries(1, 0);

/// Sampled calls that have not returned, by tid.
#[map]
static PENDING: HashMap<u32, PendingAllocation> = HashMap::with_max_entries(MAX_CALLERS, BPF_F_NO_PREALLOC);

/// Sampled allocations that are in use.
#[map]
static LIVE: HashMap<LiveKey, LiveAllocation> = HashMap::with_max_entries(MAX_LIVE, BPF_F_NO_PREALLOC);

/// Calls that give new memory for sampled memory and have not returned, by tid and the low half of the stack pointer. One that
/// is left by a jump is pushed out by later ones.
#[map]
static REALLOCATIONS: LruHashMap<u64, Reallocation> = LruHashMap::with_max_entries(MAX_REALLOCATIONS, 0);

/// A call that is inside another for longer than this has been left without a return.
const PENDING_NS: u64 = 100_000_000;
/// And so has one whose frame is further away than this.
const PENDING_BYTES: u64 = 256 * 1024;
/// A sample takes less. What seems to take longer was interrupted: by a hypervisor that lent the processor to others, or by
/// another thread. If that were the sample's, a single one would cost the budget of many seconds.
const MAX_SAMPLING_NS: u64 = 1_000_000;

/// Which heap's probe was hit, what its function takes, and what the probes of the heap have cost.
#[inline(always)]
fn hit(context: &impl EbpfContext) -> Option<(u32, u32, &'static HeapCost)> {
    let number = cookie(context);
    let heap = number >> function::BITS;
    // SAFETY: in a map. Another thread may do the same on this CPU, so that sums are atomic.
    let cost = unsafe { HEAP_COSTS.get_ptr(heap)?.as_ref()? };
    add(&cost.hits, 1);
    Some((heap, number & ((1 << function::BITS) - 1), cost))
}

/// A sample was taken since then.
#[inline(always)]
fn pay(cost: &HeapCost, begin: u64) {
    add(&cost.sampling_ns, (now() - begin).min(MAX_SAMPLING_NS));
}

#[inline(always)]
pub fn enter(context: &ProbeContext) {
    let Some((heap, kind, cost)) = hit(context) else { return };
    let takes = kind & !function::UNSEEN;
    // SAFETY: the registers of the interrupted thread.
    let regs = unsafe { &*context.regs };
    let (tgid, tid) = current();
    let old = match takes {
        function::OLD | function::OLD_SIZE | function::OLD_COUNT_SIZE => regs.rdi,
        _ => 0,
    };
    let follow = setting!(follow_live) != 0 && old != 0;
    if follow && takes == function::OLD {
        end(tgid, old, false);
    }
    let size = match takes {
        function::SIZE => regs.rdi,
        function::GO_SIZE => regs.rax,
        function::OLD_SIZE | function::ALIGNMENT_SIZE => regs.rsi,
        function::RESULT_ALIGNMENT_SIZE => regs.rdx,
        function::COUNT_SIZE => product(regs.rdi, regs.rsi),
        function::OLD_COUNT_SIZE => product(regs.rsi, regs.rdx),
        _ => return,
    };
    if follow && kind & function::UNSEEN != 0 {
        end(tgid, old, false);
    } else if follow {
        begin_reallocation(tgid, old, size, frame(tid, regs.rsp));
    }
    // SAFETY: the helper checks the address.
    let return_address = unsafe { bpf_probe_read_user(regs.rsp as *const u64) }.unwrap_or(0);
    let Some(cpu) = HEAP_CPU.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own.
    let cpu = unsafe { &mut *cpu };
    if cpu.is_jumped_to(regs.rip, tid, regs.rsp, return_address) || size >= MAX_SIZE {
        return;
    }
    let Some(&mean) = HEAP_MEANS.get(heap) else { return };
    // SAFETY: a helper without arguments.
    if mean == 0 || !cpu.is_sampled(size, mean, || unsafe { bpf_get_prandom_u32() }) {
        return;
    }
    let begin = now();
    let result = if takes == function::RESULT_ALIGNMENT_SIZE { regs.rdi } else { 0 };
    let registers = Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp };
    sample(
        &Start { registers, cs: regs.cs, return_address },
        &Sampled { size, result, mean, weight: 0, time_ns: begin, is_seen: kind & function::UNSEEN == 0 },
    );
    pay(cost, begin);
}

/// An allocator publishes a sample of its own: whatever it says is what there is, nobody samples once more.
#[inline(always)]
pub fn published(context: &ProbeContext) {
    let Some((heap, layout, cost)) = hit(context) else { return };
    let Some(layout) = LAYOUTS.get(layout) else { return };
    // SAFETY: the registers of the interrupted thread.
    let regs = unsafe { &*context.regs };
    let argument = |number| layout.argument(number, |source| register(regs, source), read_user::<u64>);
    let (Some(address), Some(size), Some(weight)) = (argument(0), argument(1), argument(2)) else {
        count(Counter::AllocationsLost);
        return;
    };
    let is_sampled = HEAP_MEANS.get(heap).is_some_and(|mean| *mean != 0);
    if !is_sampled || weight == 0 || size >= MAX_SIZE || weight >= MAX_SIZE {
        return;
    }
    let begin = now();
    let registers = Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp };
    // The tracepoint is in the middle of a function: there is no return address that is known beforehand.
    let start = Start { registers, cs: regs.cs, return_address: 0 };
    let live = report(&start, &Sampled { size, weight, time_ns: begin, ..Sampled::default() });
    if let Some(live) = live
        && setting!(follow_live) != 0
        && address != 0
    {
        remember(current().0, address, &live);
    }
    pay(cost, begin);
}

/// An allocator frees what it has published.
#[inline(always)]
pub fn published_free(context: &ProbeContext) {
    let Some((_, layout, _)) = hit(context) else { return };
    let Some(layout) = LAYOUTS.get(layout) else { return };
    // SAFETY: the registers of the interrupted thread.
    let regs = unsafe { &*context.regs };
    if let Some(address) = layout.argument(0, |source| register(regs, source), read_user::<u64>) {
        end(current().0, address, false);
    }
}

/// What an array takes; more than there can be if that has no number.
#[inline(always)]
fn product(number: u64, size: u64) -> u64 {
    // The product of numbers of so many digits is above 2^63.
    if number.leading_zeros() + size.leading_zeros() < 64 { u64::MAX } else { number.wrapping_mul(size) }
}

/// A call on which a sample point falls, or that the allocator publishes.
#[derive(Default)]
struct Sampled {
    size: u64,
    result: u64,
    mean: u64,
    weight: u64,
    time_ns: u64,
    /// Somebody sees what it returns.
    is_seen: bool,
}

#[inline(always)]
fn sample(start: &Start, call: &Sampled) {
    let (_, tid) = current();
    let follow = setting!(follow_live) != 0;
    if follow && is_inside_another(tid, start.registers.sp, call.time_ns) {
        return;
    }
    let Some(live) = report(start, call) else { return };
    if follow && call.is_seen {
        let pending = PendingAllocation { sp: start.registers.sp, result: call.result, live };
        if PENDING.insert(&tid, pending, 0).is_err() {
            count(Counter::LiveFull);
        }
    }
}

/// Takes the stack of a sample and tells user space. What there is to remember of it.
#[inline(always)]
fn report(start: &Start, call: &Sampled) -> Option<LiveAllocation> {
    let &Sampled { size, mean, weight, time_ns, .. } = call;
    let (tgid, tid) = current();
    let target = target(tgid)?;
    let owner = Owner { tgid, epoch: target.epoch, time_ns };
    let Some(user_stack) = stack::user_claimed(HEAP_STACK.get_ptr_mut(0), start, owner) else {
        count(Counter::AllocationsLost);
        return None;
    };
    let Some(mut entry) = EVENTS.reserve::<AllocationEvent>(0) else {
        count(Counter::AllocationsLost);
        return None;
    };
    entry.write(AllocationEvent {
        kind: kind::ALLOCATION,
        // SAFETY: a helper without arguments.
        cpu: unsafe { bpf_get_smp_processor_id() },
        time_ns,
        tgid,
        tid,
        size,
        mean,
        weight,
        user_stack,
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
    entry.submit(wakeup());
    Some(LiveAllocation { time_ns, size, weight, user_stack, tid, mean: mean as u32 })
}

/// A function of its own as [`end_of`]. Returns 1 if it fits.
#[inline(never)]
fn remember(tgid: u32, address: u64, live: &LiveAllocation) -> u64 {
    // What is handed out was freed, though nobody saw it.
    end(tgid, address, true);
    if LIVE.insert(&LiveKey { address, tgid, padding: 0 }, live, 0).is_err() {
        count(Counter::LiveFull);
        return 0;
    }
    1
}

/// True within a sampled call of the same thread: an allocator that is made of others.
#[inline(always)]
fn is_inside_another(tid: u32, sp: u64, now_ns: u64) -> bool {
    // SAFETY: the current thread's own.
    let Some(outer) = (unsafe { PENDING.get(&tid) }) else { return false };
    outer.sp > sp && outer.sp - sp < PENDING_BYTES && now_ns.wrapping_sub(outer.live.time_ns) < PENDING_NS
}

#[inline(always)]
pub fn leave(context: &impl EbpfContext, at_return: u64, returned: u64) {
    if hit(context).is_none() {
        return;
    }
    let (tgid, tid) = current();
    let Some(cpu) = HEAP_CPU.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own.
    let is_new = unsafe { &mut *cpu }.is_new_return(tid, returned);
    end_reallocation(tgid, frame(tid, at_return), returned);
    // SAFETY: the current thread's own.
    let pending = unsafe { PENDING.get(&tid) }.filter(|pending| pending.sp == at_return);
    let Some(&PendingAllocation { result, live, .. }) = pending else {
        // What is handed out again was freed, though nobody saw it.
        if is_new {
            end(tgid, returned, true);
        }
        return;
    };
    let _ = PENDING.remove(&tid);
    let address = match result {
        0 => returned,
        // SAFETY: the helper checks the address.
        result if returned as u32 == 0 => unsafe { bpf_probe_read_user(result as *const u64) }.unwrap_or(0),
        _ => 0,
    };
    if address != 0 {
        remember(tgid, address, &live);
    }
}

/// What is at this address is in use no more; `is_reused` if that is known only because it is handed out again.
#[inline(always)]
fn end(tgid: u32, address: u64, is_reused: bool) {
    end_of(tgid, address, is_reused.into());
}

/// A function of its own: programs that take a stack as well have no room for its event on theirs. Returns 1 if there was any.
#[inline(never)]
fn end_of(tgid: u32, address: u64, is_reused: u64) -> u64 {
    let key = LiveKey { address, tgid, padding: 0 };
    // Looking takes no lock, and most addresses were not sampled.
    // SAFETY: copied at once.
    let Some(live) = unsafe { LIVE.get(&key) }.copied() else { return 0 };
    // Of two who free it one is told.
    if LIVE.remove(&key).is_err() {
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve::<AllocationEndEvent>(0) else {
        count(Counter::AllocationsLost);
        return 1;
    };
    entry.write(AllocationEndEvent { kind: kind::ALLOCATION_END, tgid, time_ns: now(), is_reused, live });
    entry.submit(wakeup());
    1
}

/// A call by its thread and where its return address is.
#[inline(always)]
fn frame(tid: u32, sp: u64) -> u64 {
    u64::from(tid) << 32 | sp & 0xffff_ffff
}

/// New memory is asked for in place of old. Whether that is freed is known when the call returns.
#[inline(always)]
fn begin_reallocation(tgid: u32, old: u64, size: u64, frame: u64) {
    // SAFETY: copied at once.
    let Some(allocated_ns) = unsafe { LIVE.get(&LiveKey { address: old, tgid, padding: 0 }) }.map(|live| live.time_ns)
    else {
        return;
    };
    let _ = REALLOCATIONS.insert(&frame, Reallocation { old, allocated_ns, size }, 0);
}

#[inline(always)]
fn end_reallocation(tgid: u32, frame: u64, returned: u64) {
    // SAFETY: the current thread's own; copied at once.
    let Some(Reallocation { old, allocated_ns, size }) = (unsafe { REALLOCATIONS.get(&frame) }).copied() else {
        return;
    };
    let _ = REALLOCATIONS.remove(&frame);
    let has_failed = returned == 0 && size != 0;
    // SAFETY: copied at once.
    let is_there = unsafe { LIVE.get(&LiveKey { address: old, tgid, padding: 0 }) }
        .is_some_and(|live| live.time_ns == allocated_ns);
    if !has_failed && is_there {
        end(tgid, old, false);
    }
}

/// A thread exits: it leaves all its calls.
#[inline(always)]
pub fn forget(tid: u32) {
    let _ = PENDING.remove(&tid);
}
