//! The sampler: who runs, and with which stacks.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::PerfEventContext;
use probe_ebpf::abi::{Counter, SampleEvent, StackId, kind, period, target_flags};
use probe_ebpf::unwind::Registers;

use crate::goroutine;
use crate::maps::{EVENTS, PERIODS, count, setting, target, wakeup};
use crate::stack;
use crate::walk::{Owner, Scratch, Start};

/// A perf interrupt never lands inside another one on the same CPU.
#[map]
static SAMPLER_STACK: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn take(context: &PerfEventContext, is_fast: bool) {
    let ids = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((ids >> 32) as u32, ids as u32);
    if tgid == 0 {
        return; // the idle thread
    }
    let Some(target) = target(tgid) else { return };
    if target.flags & (target_flags::SPAWNER | target_flags::AWAITS_EXEC) != 0 {
        return;
    }
    // Each target has one of the two samplers.
    if (target.flags & target_flags::FAST != 0) != is_fast {
        return;
    }
    count(Counter::Samples);
    // SAFETY: a helper without arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let Some(scratch) = SAMPLER_STACK.get_ptr_mut(0) else { return };
    // SAFETY: the context is the sample's registers.
    let regs = unsafe { &(*context.ctx).regs };
    let in_kernel = regs.cs & 3 == 0;
    let kernel_stack = if in_kernel && setting!(kernel_stacks) != 0 {
        stack::kernel(scratch, context.as_ptr(), time_ns).0
    } else {
        StackId::NONE
    };
    let owner = Owner { tgid, epoch: target.epoch, time_ns };
    let user_stack = if setting!(user_stacks) == 0 {
        StackId::NONE
    } else if in_kernel {
        stack::user_from_kernel(scratch, owner)
    } else {
        let registers = Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp };
        stack::user(scratch, &Start { registers, cs: regs.cs, return_address: 0 }, owner)
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
        goroutine: goroutine::current(tgid),
        value: match PERIODS.get(if is_fast { period::FAST } else { period::USUAL }) {
            Some(&period_ns) if period_ns != 0 => period_ns,
            // SAFETY: the context is the sample's.
            _ => unsafe { (*context.ctx).sample_period },
        },
        user_stack,
        kernel_stack,
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
    entry.submit(wakeup());
}
