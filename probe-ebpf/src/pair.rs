//! Spans: the entry of one function is paired with another one's by a value.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST, pt_regs};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use probe_ebpf::abi::MAX_SPANS;
use probe_ebpf::span::{OpenSpan, Operand, SpanKeys, source};

use crate::call::{Hit, read_user};
use crate::figures::{self, Ended};

/// By function; user space makes it as large as there are functions.
#[map]
static SPAN_KEYS: Array<SpanKeys> = Array::with_max_entries(1, 0);

/// Since when spans are going on, in nanoseconds.
#[map]
static SPANS: HashMap<OpenSpan, u64> = HashMap::with_max_entries(MAX_SPANS, BPF_F_NO_PREALLOC);

#[inline(always)]
pub fn begin(context: &impl EbpfContext, regs: &pt_regs) {
    let Some((hit, span)) = span(context, regs, |keys| &keys.begin) else { return };
    hit.tally(1);
    figures::entered(&hit);
    if SPANS.insert(span, hit.time_ns, BPF_NOEXIST.into()).is_ok() {
        return;
    }
    // Its value has begun another one: that one has ended elsewhere.
    if SPANS.insert(span, hit.time_ns, BPF_ANY.into()).is_ok() {
        figures::replaced(&hit);
    } else {
        figures::missed(&hit);
    }
}

#[inline(always)]
pub fn end(context: &impl EbpfContext, regs: &pt_regs) {
    let Some((hit, span)) = span(context, regs, |keys| &keys.end) else { return };
    hit.tally(0);
    // SAFETY: one number, copied at once.
    let Some(since_ns) = unsafe { SPANS.get(span) }.copied() else { return };
    if SPANS.remove(span).is_ok() && since_ns >= hit.since_ns {
        let took_ns = hit.time_ns.saturating_sub(since_ns);
        figures::ended(&hit, &Ended { since_ns, took_ns, goroutine: 0, regs: None });
    }
}

#[inline(always)]
fn span(
    context: &impl EbpfContext,
    regs: &pt_regs,
    operand: impl FnOnce(&'static SpanKeys) -> &'static Operand,
) -> Option<(Hit, OpenSpan)> {
    let hit = Hit::new(context)?;
    let operand = operand(SPAN_KEYS.get(hit.function)?);
    let from = if operand.source == source::THREAD { hit.tid.into() } else { register(regs, operand.source) };
    let Some(value) = operand.value(from, read_user::<u64>) else {
        figures::missed(&hit);
        return None;
    };
    let span = OpenSpan { tgid: hit.tgid, function: hit.function, value };
    Some((hit, span))
}

/// A register by its number in DWARF (System V ABI for AMD64, figure 3.36). All are copied, because the verifier wants to
/// see at which place the context is read.
#[inline(always)]
pub fn register(regs: &pt_regs, number: u32) -> u64 {
    let all = [
        regs.rax, regs.rdx, regs.rcx, regs.rbx, regs.rsi, regs.rdi, regs.rbp, regs.rsp, regs.r8, regs.r9, regs.r10,
        regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ];
    core::hint::black_box(all)[number as usize & (all.len() - 1)]
}
