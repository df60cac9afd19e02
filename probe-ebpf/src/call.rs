//! Timed functions: what hits of their probes mean. Entering and leaving are the two events; `figures` makes of them what
//! is wanted.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, pt_regs};
use aya_ebpf::helpers::generated::bpf_tail_call;
use aya_ebpf::helpers::{bpf_get_attach_cookie, bpf_get_smp_processor_id, bpf_probe_read_user};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, Queue};
use probe_ebpf::abi::{Judgement, MAX_CALLERS, MAX_NEW_SITES, MAX_SITES, MAX_TALLIES, Site, Tally, TallyKey, feature};
use probe_ebpf::calls::{Call, Caller, Entered, Figures, MAX_DEPTH, ThreadCalls, call_flags};

use crate::atomic::add;
use crate::figures::{self, Ended};
use crate::goroutine;
use crate::maps::setting;
use crate::task::{current, now};

/// The calls that threads and goroutines are in.
#[map]
static CALLS: HashMap<Caller, ThreadCalls> = HashMap::with_max_entries(MAX_CALLERS, BPF_F_NO_PREALLOC);

/// A thread in no call: too large for the stack of a program.
#[map]
static NO_CALLS: Array<ThreadCalls> = Array::with_max_entries(1, 0);

/// By function; user space makes it as large as there are functions.
#[map]
static JUDGEMENTS: Array<Judgement> = Array::with_max_entries(1, 0);

/// By function: since when its calls are looked at, `CLOCK_MONOTONIC` in nanoseconds; `u64::MAX` while it is switched off.
/// User space makes it as large as there are functions.
#[map]
static SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// Where functions with [`feature::SITES`] return to: those that user space was told of.
#[map]
static SITES: LruHashMap<Site, u8> = LruHashMap::with_max_entries(MAX_SITES, 0);

/// Those that it is yet to take note of.
#[map]
static NEW_SITES: Queue<Site> = Queue::with_max_entries(MAX_NEW_SITES, 0);

/// Hits of probes by CPU and function, apart from the figures: what they cost is looked at up to some hundred times a second,
/// by reading this memory.
#[map]
static HITS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What threads did with the probes of functions with [`feature::TALLY`], since user space took their numbers last.
#[map]
static TALLIES: LruHashMap<TallyKey, Tally> = LruHashMap::with_max_entries(MAX_TALLIES, 0);

/// A probe was hit.
pub struct Hit {
    /// Number of the function.
    pub function: u32,
    pub tgid: u32,
    pub tid: u32,
    pub time_ns: u64,
    /// Calls that began earlier are not looked at.
    pub since_ns: u64,
    pub judgement: &'static Judgement,
    pub figures: &'static Figures,
}

impl Hit {
    /// `None` for a function that is switched off.
    #[inline(always)]
    pub fn new(context: &impl EbpfContext) -> Option<Self> {
        let function = cookie(context);
        // SAFETY: a helper without arguments.
        let of_cpu = unsafe { bpf_get_smp_processor_id() } * setting!(hits_per_cpu);
        add(HITS.get(of_cpu + function)?, 1);
        let (since_ns, time_ns) = (since(function), now());
        if time_ns < since_ns {
            return None;
        }
        let (tgid, tid) = current();
        let (judgement, figures) = (JUDGEMENTS.get(function)?, figures::of(function)?);
        Some(Self { function, tgid, tid, time_ns, since_ns, judgement, figures })
    }

    #[inline(always)]
    pub fn wants(&self, feature: u32) -> bool {
        self.judgement.features & feature != 0
    }

    /// Counts it by thread where that is wanted.
    #[inline(always)]
    pub fn tally(&self, calls: u64) {
        if !self.wants(feature::TALLY) {
            return;
        }
        let key = TallyKey { function: self.function, tid: self.tid };
        match TALLIES.get_ptr(key) {
            Some(tally) => {
                // SAFETY: in a map; user space may take it away, which a hit survives.
                let tally = unsafe { &*tally };
                add(&tally.hits, 1);
                add(&tally.calls, calls);
            }
            None => drop(TALLIES.insert(key, Tally { hits: 1, calls }, BPF_NOEXIST.into())),
        }
    }

    /// Whose call it is, and its position: where the return address is that the stack pointer points to.
    #[inline(always)]
    fn caller(&self, regs: &pt_regs, sp: u64) -> Option<(Caller, u64)> {
        if !self.wants(feature::GO) {
            return Some((Caller { tgid: self.tgid, is_goroutine: 0, id: self.tid.into() }, sp));
        }
        // Since Go 1.17 `r14` has the goroutine, which begins with the bounds of its stack (runtime/runtime2.go); a stack
        // that grows is copied, to the same place below its end.
        let goroutine = regs.r14;
        let stack_end = read_user::<u64>(goroutine.wrapping_add(8))?;
        Some((Caller { tgid: self.tgid, is_goroutine: 1, id: goroutine }, sp.wrapping_sub(stack_end)))
    }
}

/// The number of a probe. Asking for it also keeps the kernel from giving the program a stack of its own for each CPU.
///
/// Since Linux 6.13 programs of uprobes get one where they use more than 64 bytes of it; and where the kernel can be preempted,
/// they can be as well: two threads on one CPU then write to the same stack, and the kernel crashes. A program that has a tail
/// call gets none (kernel/bpf/verifier.c, `check_max_stack_depth`), be the call ever made or not. This one never is, and the
/// verifier knows: it sees the settings as constants, and drops it.
#[inline(always)]
pub fn cookie(context: &impl EbpfContext) -> u32 {
    if setting!(hits_per_cpu) == u32::MAX {
        // SAFETY: never called.
        unsafe { bpf_tail_call(context.as_ptr(), core::ptr::null_mut(), 0) };
    }
    // SAFETY: the context of a uprobe.
    unsafe { bpf_get_attach_cookie(context.as_ptr()) as u32 }
}

#[inline(always)]
pub fn read_user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T).ok() }
}

#[inline(always)]
fn since(function: u32) -> u64 {
    SINCE.get(function).map_or(u64::MAX, |since_ns| *since_ns)
}

/// A call has ended unseen. If it is of a time in which its function was switched off since, that tells nothing: its end
/// could not be seen.
#[inline(always)]
fn unseen(call: &Call) {
    if call.since_ns >= since(call.function) {
        figures::unseen(call);
    }
}

/// A function is entered: the stack pointer is at its return address.
#[inline(always)]
pub fn enter(context: &impl EbpfContext, regs: &pt_regs) {
    let Some(hit) = Hit::new(context) else { return };
    if hit.wants(feature::COSTS) {
        return hit.tally(1);
    }
    if hit.wants(feature::COUNT) {
        hit.tally(1);
        return figures::counted(&hit);
    }
    let (Some((caller, position)), Some(return_address)) = (hit.caller(regs, regs.rsp), read_user(regs.rsp)) else {
        figures::missed(&hit);
        return;
    };
    if hit.wants(feature::PARK) && !is_calling(&caller) {
        return;
    }
    if hit.wants(feature::SLOW) && caller.is_goroutine != 0 {
        goroutine::learn(caller.tgid, caller.id);
    }
    let flags = if hit.wants(feature::SITES) { site(&hit, return_address) } else { 0 };
    let call = Call { since_ns: hit.time_ns, position, return_address, function: hit.function, flags };
    let Some(thread) = thread(&caller) else {
        hit.tally(1);
        figures::entered(&hit);
        figures::missed(&hit);
        return;
    };
    let may_begin_again = caller.is_goroutine != 0 || hit.wants(feature::LOOPS);
    let again_since = if may_begin_again { hit.since_ns } else { u64::MAX };
    let entered = thread.enter(call, again_since, unseen);
    hit.tally(u64::from(entered != Entered::Again));
    match entered {
        Entered::Followed => figures::entered(&hit),
        Entered::Again => {}
        Entered::TooDeep => {
            figures::entered(&hit);
            figures::missed(&hit);
        }
    }
}

/// Tells user space of a place that a function returns to; the flags of a call that does.
#[inline(always)]
fn site(hit: &Hit, address: u64) -> u32 {
    let site = Site { tgid: hit.tgid, function: hit.function, address };
    // SAFETY: a byte.
    match unsafe { SITES.get(site) } {
        Some(1) => return 0,
        Some(_) => {}
        None => {
            if NEW_SITES.push(site, 0).is_ok() {
                let _ = SITES.insert(site, 0, BPF_NOEXIST.into());
            }
        }
    }
    call_flags::NEW_SITE
}

/// The thread's entry, made if it is new.
#[inline(always)]
fn thread(caller: &Caller) -> Option<&'static mut ThreadCalls> {
    if let Some(thread) = CALLS.get_ptr_mut(caller) {
        // SAFETY: the current thread's or goroutine's own.
        return Some(unsafe { &mut *thread });
    }
    let _ = CALLS.insert(caller, NO_CALLS.get(0)?, BPF_NOEXIST.into());
    // SAFETY: as above.
    Some(unsafe { &mut *CALLS.get_ptr_mut(caller)? })
}

/// A function is left; `at_return` is where its return address is.
#[inline(always)]
pub fn leave(context: &impl EbpfContext, regs: &pt_regs, at_return: u64) {
    let Some(hit) = Hit::new(context) else { return };
    if hit.wants(feature::COSTS) {
        return hit.tally(u64::from(hit.wants(feature::ONLY_ENDS)));
    }
    hit.tally(0);
    let Some((caller, position)) = hit.caller(regs, at_return) else { return };
    let Some(thread) = CALLS.get_ptr_mut(caller) else { return };
    // SAFETY: the current thread's or goroutine's own.
    let call = unsafe { &mut *thread }.leave(hit.function, position, unseen);
    let Some(call) = call.filter(|call| call.since_ns >= hit.since_ns) else { return };
    let took_ns = hit.time_ns.saturating_sub(call.since_ns);
    let goroutine = if caller.is_goroutine != 0 { caller.id } else { 0 };
    figures::ended(&hit, &Ended { since_ns: call.since_ns, took_ns, goroutine, regs: Some(regs) });
}

#[inline(always)]
fn is_calling(caller: &Caller) -> bool {
    // SAFETY: one number.
    CALLS.get_ptr_mut(caller).is_some_and(|thread| unsafe { (*thread).depth != 0 })
}

/// A thread exits, or becomes another program: all its calls end.
#[inline(always)]
pub fn forget(tgid: u32, tid: u32) {
    let caller = Caller { tgid, is_goroutine: 0, id: tid.into() };
    let Some(thread) = CALLS.get_ptr(caller) else { return };
    // SAFETY: the current thread's own.
    let thread = unsafe { &*thread };
    let time_ns = now();
    for at in 0..MAX_DEPTH {
        if at >= thread.depth as usize {
            break;
        }
        let call = &thread.calls[at];
        if call.since_ns >= since(call.function)
            && let Some(judgement) = JUDGEMENTS.get(call.function)
        {
            figures::thread_ended(call, judgement, time_ns);
        }
    }
    let _ = CALLS.remove(caller);
}
