//! Fields of the kernel's structs, read at the offsets that user space has looked up.

use aya_ebpf::bindings::{pt_regs, task_struct};
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel};
use probe_ebpf::unwind::Registers;

use crate::walk::Start;

/// Some struct of the kernel.
pub type Struct = *const u8;

/// Reads a field through a helper, which any pointer will do for.
#[inline(always)]
pub fn field<T>(base: Struct, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()).ok() }
}

/// Reads a number of a task that the tracepoint has handed over; cheaper than [`field`].
#[inline(always)]
pub fn number(task: Struct, offset: u32) -> u32 {
    // SAFETY: the verifier knows that it is a task, and what is at this offset.
    unsafe { core::ptr::read_volatile(task.wrapping_add(offset as usize).cast()) }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The present process and thread.
#[inline(always)]
pub fn current() -> (u32, u32) {
    let ids = bpf_get_current_pid_tgid();
    ((ids >> 32) as u32, ids as u32)
}

/// The present process.
pub fn current_tgid() -> u32 {
    current().0
}

/// The present thread.
#[inline(always)]
pub fn current_task() -> *mut task_struct {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_task_btf() }
}

/// The registers with which a task entered the kernel, and where they are; `None` for a thread that has no user mode, as
/// those of the kernel.
#[inline(always)]
pub fn saved_registers(task: *mut task_struct) -> Option<(Start, *const pt_regs)> {
    const USER_MODE: u64 = 3;
    // SAFETY: the task is alive, because it is the current one or held by the iterator; the registers are at the top of
    // its kernel stack. The verifier knows both types.
    unsafe {
        let regs = bpf_task_pt_regs(task) as *const pt_regs;
        let read = |register: *const u64| core::ptr::read_volatile(register);
        let (pc, cs) = (read(&raw const (*regs).rip), read(&raw const (*regs).cs));
        if pc == 0 || cs & USER_MODE != USER_MODE {
            return None;
        }
        let registers = Registers { pc, sp: read(&raw const (*regs).rsp), fp: read(&raw const (*regs).rbp) };
        Some((Start { registers, cs, return_address: 0 }, regs))
    }
}
