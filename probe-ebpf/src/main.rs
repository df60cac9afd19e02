//! The kernel programs' entry points: each a thin wrapper over one function of a stage.
//!
//! - `sample`: a perf event on every CPU → one `SampleEvent`, and the stacks that user space has not seen yet
//! - `on_exec`, `on_fork`, `on_exit`: processes come and go
//! - `on_switch`, `on_waking`: threads leave their CPU and come back → a `WaitEvent` for each stack and second
//! - `enter`, `leave` or `returned`: a function is called and returns → its `Figures`, and the calls that its thread is in
//! - `allocate`, `allocate_leave` or `allocate_returned`: an allocator is called and returns → an `AllocationEvent` for each
//!   sample, and the sampled allocations that are in use
//! - `dump`: an iterator over all threads → a `ThreadRecord` for each of one process
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the attribute macros make undocumented wrappers")]
#![expect(unsafe_code, reason = "BPF helpers and kernel pointers; the verifier checks every access again")]

mod allocation;
mod call;
mod caller;
mod dump;
mod maps;
mod memo;
mod process;
mod sample;
mod stack;
mod task;
mod wait;
mod walk;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::macros::{btf_tracepoint, perf_event, uprobe, uretprobe};
use aya_ebpf::programs::{BtfTracePointContext, PerfEventContext, ProbeContext, RetProbeContext};
use aya_log_ebpf::debug;

/// A CPU clock or cycle counter ran over.
#[perf_event]
pub fn sample(context: PerfEventContext) -> u32 {
    sample::take(&context);
    0
}

/// `sched_process_exec(struct task_struct *, pid_t old_pid, struct linux_binprm *)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn on_exec(context: BtfTracePointContext) -> i32 {
    process::exec(context.arg(1), context.arg(2));
    debug!(&context, "exec in process {}", task::current_tgid());
    0
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn on_fork(context: BtfTracePointContext) -> i32 {
    process::fork(context.arg(0), context.arg(1));
    debug!(&context, "process {} forks or makes a thread", task::current_tgid());
    0
}

/// `sched_process_exit(struct task_struct *, …)`, once a thread
#[btf_tracepoint(function = "sched_process_exit")]
pub fn on_exit(context: BtfTracePointContext) -> i32 {
    process::exit(context.arg(0));
    debug!(&context, "a thread of process {} exits", task::current_tgid());
    0
}

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)`
#[btf_tracepoint(function = "sched_switch")]
pub fn on_switch(context: BtfTracePointContext) -> i32 {
    wait::switch(&context, context.arg::<u32>(0) & 1 != 0, context.arg(2), context.arg(3));
    0
}

/// `sched_waking(struct task_struct *)`, in the thread that wakes
#[btf_tracepoint(function = "sched_waking")]
pub fn on_waking(context: BtfTracePointContext) -> i32 {
    wait::waking(&context, context.arg(0));
    0
}

/// A timed function is entered; the cookie is its number.
#[uprobe]
pub fn enter(context: ProbeContext) -> u32 {
    call::enter(&context);
    0
}

/// A timed function is about to return, at one of its return instructions; the cookie is its number.
#[uprobe]
pub fn leave(context: ProbeContext) -> u32 {
    // SAFETY: the registers of the interrupted thread.
    let regs = unsafe { &*context.regs };
    call::leave(&context, regs.rsp, regs.rax);
    0
}

/// A timed function has returned, by way of a replaced return address; the cookie is its number.
#[uretprobe]
pub fn returned(context: RetProbeContext) -> u32 {
    // SAFETY: as above.
    let regs = unsafe { &*context.regs };
    call::leave(&context, regs.rsp.wrapping_sub(8), regs.rax);
    0
}

/// A function of an allocator is entered; the cookie is its number.
#[uprobe]
pub fn allocate(context: ProbeContext) -> u32 {
    allocation::enter(&context);
    0
}

/// A function of an allocator is about to return, at one of its return instructions; the cookie is its number.
#[uprobe]
pub fn allocate_leave(context: ProbeContext) -> u32 {
    // SAFETY: the registers of the interrupted thread.
    let regs = unsafe { &*context.regs };
    allocation::leave(&context, regs.rsp, regs.rax);
    0
}

/// A function of an allocator has returned, by way of a replaced return address; the cookie is its number.
#[uretprobe]
pub fn allocate_returned(context: RetProbeContext) -> u32 {
    // SAFETY: as above.
    let regs = unsafe { &*context.regs };
    allocation::leave(&context, regs.rsp.wrapping_sub(8), regs.rax);
    0
}

/// The context of a task iterator: `struct bpf_iter__task` (kernel/bpf/task_iter.c).
#[repr(C)]
pub struct TaskIterator {
    meta: *mut dump::Meta,
    task: *mut task_struct,
}

/// Called for every task of the host, and once more without one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
pub extern "C" fn dump(context: *mut TaskIterator) -> i32 {
    // SAFETY: the context of the program; both pointers are checked by the verifier.
    unsafe { dump::take((*context).meta, (*context).task) };
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
