//! Timed functions: their calls are events, entering and leaving, and every figure is made of these two.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_get_attach_cookie;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::ProbeContext;
use probe_ebpf::abi::{Counter, Judgement, MAX_CALLING_THREADS};
use probe_ebpf::calls::{BUCKETS, Call, Figures, ThreadCalls, bucket};

use crate::maps::count;
use crate::task::{current, now};

/// The calls that threads are in.
#[map]
static CALLS: HashMap<u32, ThreadCalls> = HashMap::with_max_entries(MAX_CALLING_THREADS, BPF_F_NO_PREALLOC);

/// A thread in no call: too large for the stack of a program.
#[map]
static NO_CALLS: Array<ThreadCalls> = Array::with_max_entries(1, 0);

/// By function; user space makes it as large as there are functions.
#[map]
static FIGURES: PerCpuArray<Figures> = PerCpuArray::with_max_entries(1, 0);

/// As above: how often its probes were hit. Apart from the figures, because it is read often.
#[map]
static HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// As above.
#[map]
static JUDGEMENTS: Array<Judgement> = Array::with_max_entries(1, 0);

#[inline(always)]
fn figures(function: u32) -> Option<&'static mut Figures> {
    // SAFETY: this CPU's own; a probe does not interrupt another one.
    unsafe { FIGURES.get_ptr_mut(function)?.as_mut() }
}

/// A probe of a function was hit.
#[inline(always)]
fn hit(function: u32) {
    count(Counter::Hits);
    if let Some(hits) = HITS.get_ptr_mut(function) {
        // SAFETY: as above.
        unsafe { *hits += 1 };
    }
}

#[inline(always)]
pub fn enter(context: &ProbeContext) {
    // SAFETY: the context of a uprobe.
    let function = unsafe { bpf_get_attach_cookie(context.as_ptr()) } as u32;
    hit(function);
    let Some(figures) = figures(function) else { return };
    figures.entered += 1;
    let (tgid, tid) = current();
    // SAFETY: the registers of the interrupted thread.
    let sp = unsafe { (*context.regs).rsp };
    let call = Call { since_ns: now(), sp, function, padding: 0 };
    let Some(thread) = thread(tgid, tid) else {
        figures.missed += 1;
        return;
    };
    let (left, has_room) = thread.enter(call);
    figures.left += u64::from(left);
    figures.missed += u64::from(!has_room);
}

/// The thread's entry, made if it is new.
#[inline(always)]
fn thread(tgid: u32, tid: u32) -> Option<&'static mut ThreadCalls> {
    if let Some(thread) = CALLS.get_ptr_mut(&tid) {
        // SAFETY: the current thread's own.
        return Some(unsafe { &mut *thread });
    }
    let _ = CALLS.insert(&tid, NO_CALLS.get(0)?, BPF_NOEXIST.into());
    // SAFETY: as above.
    let thread = unsafe { &mut *CALLS.get_ptr_mut(&tid)? };
    thread.tgid = tgid;
    Some(thread)
}

#[inline(always)]
pub fn leave(context: &impl EbpfContext, at_return: u64, returned: u64) {
    // SAFETY: the context of a uretprobe.
    let function = unsafe { bpf_get_attach_cookie(context.as_ptr()) } as u32;
    hit(function);
    let Some(figures) = figures(function) else { return };
    let (_, tid) = current();
    let Some(thread) = CALLS.get_ptr_mut(&tid) else { return };
    // SAFETY: the current thread's own.
    let (call, left) = unsafe { &mut *thread }.leave(function, at_return);
    figures.left += u64::from(left);
    let Some(call) = call else { return };
    let took_ns = now().saturating_sub(call.since_ns);
    figures.calls += 1;
    figures.total_ns += took_ns;
    figures.max_ns = figures.max_ns.max(took_ns);
    if figures.min_ns == 0 || took_ns < figures.min_ns {
        figures.min_ns = took_ns;
    }
    let at = bucket(took_ns);
    if at < BUCKETS {
        figures.histogram[at] += 1;
    }
    let Some(judgement) = JUDGEMENTS.get(function) else { return };
    figures.within += u64::from(took_ns <= judgement.threshold_ns);
    figures.errors += u64::from(judgement.is_error(returned));
}

/// A thread exits: it leaves all its calls.
#[inline(always)]
pub fn forget(tid: u32) {
    let _ = CALLS.remove(&tid);
}
