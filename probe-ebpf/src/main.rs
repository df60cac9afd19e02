//! The kernel programs' entry points: each a thin wrapper over one function of a stage.
//!
//! - `sample`: a perf event on every CPU → one `SampleEvent`, and the stacks that user space has not seen yet
//! - `on_exec`, `on_fork`, `on_exit`: processes come and go
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the attribute macros make undocumented wrappers")]
#![expect(unsafe_code, reason = "BPF helpers and kernel pointers; the verifier checks every access again")]

mod caller;
mod maps;
mod process;
mod sample;
mod stack;

use aya_ebpf::macros::{btf_tracepoint, perf_event};
use aya_ebpf::programs::{BtfTracePointContext, PerfEventContext};
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
    process::exec(context.arg(2));
    debug!(&context, "exec in process {}", process::current_tgid());
    0
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn on_fork(context: BtfTracePointContext) -> i32 {
    process::fork(context.arg(0), context.arg(1));
    debug!(&context, "process {} forks or makes a thread", process::current_tgid());
    0
}

/// `sched_process_exit(struct task_struct *, …)`, once a thread
#[btf_tracepoint(function = "sched_process_exit")]
pub fn on_exit(context: BtfTracePointContext) -> i32 {
    process::exit(context.arg(0));
    debug!(&context, "a thread of process {} exits", process::current_tgid());
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
