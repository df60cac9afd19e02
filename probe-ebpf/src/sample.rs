//! The sampler: who runs, and with which stacks.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::programs::PerfEventContext;
use probe_ebpf::abi::{Counter, RING_BYTES, SampleEvent, StackId, kind, target_flags};

use crate::maps::{EVENTS, count, settings, target};
use crate::stack;

/// Do not wake the reader: it reads on a timer, so that sampling costs no context switches.
const BPF_RB_NO_WAKEUP: u64 = 1;
/// Wake it: the buffer fills faster than the timer empties it.
const BPF_RB_FORCE_WAKEUP: u64 = 2;
/// `bpf_ringbuf_query`: bytes that wait to be read.
const BPF_RB_AVAIL_DATA: u64 = 0;

#[inline(always)]
pub fn take(context: &PerfEventContext) {
    let ids = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((ids >> 32) as u32, ids as u32);
    if tgid == 0 {
        return; // the idle thread
    }
    let settings = settings();
    let Some(target) = target(tgid, &settings) else { return };
    if target.flags & (target_flags::SPAWNER | target_flags::AWAITS_EXEC) != 0 {
        return;
    }
    count(Counter::Samples);
    // SAFETY: a helper without arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the context is the sample's registers.
    let in_kernel = unsafe { (*context.ctx).regs.cs } & 3 == 0;
    let kernel_stack =
        if in_kernel && settings.kernel_stacks != 0 { stack::kernel(context.as_ptr(), time_ns) } else { StackId::NONE };
    let user_stack = if settings.user_stacks != 0 {
        stack::user(context, in_kernel, time_ns, tgid, target.epoch, &settings.offsets)
    } else {
        StackId::NONE
    };
    let Some(mut entry) = EVENTS.reserve::<SampleEvent>(0) else {
        count(Counter::SamplesLost);
        return;
    };
    entry.write(SampleEvent {
        kind: kind::SAMPLE,
        // SAFETY: as above.
        cpu: unsafe { bpf_get_smp_processor_id() },
        time_ns,
        tgid,
        tid,
        value: 1,
        user_stack,
        kernel_stack,
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
    let is_filling = EVENTS.query(BPF_RB_AVAIL_DATA) > u64::from(RING_BYTES / 4);
    entry.submit(if is_filling { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP });
}
