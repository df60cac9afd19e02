//! The kernel programs' entry points: each a thin wrapper over one function of a stage.
//!
//! - `sample`: a perf event on every CPU → one `SampleEvent`, and the stacks that user space has not seen yet; `sample_fast`
//!   is the same, more often, for some targets
//! - `on_exec`, `on_fork`, `on_exit`: processes come and go
//! - `on_switch`, `on_waking`: threads leave their CPU and come back → a `WaitEvent` for each stack and second
//! - `on_fault`, `on_kernel_fault`, `on_page`: memory becomes resident → a `MemoryEvent` for some of it
//! - `on_mmap` and others, or `on_syscall`: memory is mapped and unmapped → a `MemoryEvent`
//! - `on_descriptor` (with `on_dup2` and `on_dup3`) or `on_descriptor_call`, `on_thread`: a descriptor is opened, a thread
//!   started → an `OriginEvent` for some of them
//! - `enter`, `leave` or `returned`: a function is called and returns → its `Figures`, and the calls that its thread is in
//! - `begin`, `end`: a span from one function to another → its `Figures`
//! - `allocate`, `allocate_leave` or `allocate_returned`: an allocator is called and returns → an `AllocationEvent` for each
//!   sample, and the sampled allocations that are in use
//! - `allocate_published`, `free_published`: an allocator publishes a sample of its own, and its end → the same
//! - `dump`: an iterator over all threads → a `ThreadRecord` for each of one process
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "the attribute macros make undocumented wrappers")]
#![expect(unsafe_code, reason = "BPF helpers and kernel pointers; the verifier checks every access again")]

mod allocation;
mod atomic;
mod call;
mod caller;
mod chance;
mod dump;
mod fault;
mod figures;
mod file;
mod forget;
mod goroutine;
mod lender;
mod maps;
mod memo;
mod memory;
mod newcomers;
mod origin;
mod pair;
mod place;
mod process;
mod sample;
mod stack;
mod sums;
mod task;
mod wait;
mod walk;

use aya_ebpf::bindings::{pt_regs, task_struct};
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, perf_event, uprobe, uretprobe};
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, PerfEventContext, ProbeContext, RetProbeContext,
};
use aya_log_ebpf::debug;

/// A CPU clock or cycle counter ran over.
#[perf_event]
pub fn sample(context: PerfEventContext) -> u32 {
    sample::take(&context, false);
    0
}

/// The same at another rate, for targets that are looked at closely.
#[perf_event]
pub fn sample_fast(context: PerfEventContext) -> u32 {
    sample::take(&context, true);
    0
}

/// `sched_process_exec(struct task_struct *, pid_t old_pid, struct linux_binprm *)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn on_exec(context: BtfTracePointContext) -> i32 {
    process::exec(context.arg(0), context.arg(1), context.arg(2));
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
    wait::switch(&context, context.arg::<u32>(0) & 1 != 0, [context.arg(1), context.arg(2)], context.arg(3));
    0
}

/// `sched_waking(struct task_struct *)`, in the thread that wakes
#[btf_tracepoint(function = "sched_waking")]
pub fn on_waking(context: BtfTracePointContext) -> i32 {
    wait::waking(&context, context.arg(0));
    0
}

/// `page_fault_user(unsigned long address, struct pt_regs *, unsigned long error_code)`, before it is handled
#[btf_tracepoint(function = "page_fault_user")]
pub fn on_fault(context: BtfTracePointContext) -> i32 {
    fault::begins(context.arg(0));
    0
}

/// `page_fault_kernel(unsigned long address, …)`: the kernel touches memory, maybe the user's
#[btf_tracepoint(function = "page_fault_kernel")]
pub fn on_kernel_fault(context: BtfTracePointContext) -> i32 {
    fault::begins(context.arg(0));
    0
}

/// `mm_page_alloc(struct page *, unsigned int order, gfp_t, int migratetype)`
#[btf_tracepoint(function = "mm_page_alloc")]
pub fn on_page(context: BtfTracePointContext) -> i32 {
    fault::allocates(context.arg(0), context.arg(1), context.arg(2));
    0
}

/// `sys_exit(struct pt_regs *, long ret)`, for mappings where functions cannot be traced
#[btf_tracepoint(function = "sys_exit")]
pub fn on_syscall(context: BtfTracePointContext) -> i32 {
    memory::returns(context.arg(0), context.arg(1));
    0
}

/// A program at the end of a system call that changes mappings: `long __x64_sys_…(const struct pt_regs *regs)`.
macro_rules! on_mapping {
    ($($name:ident at $function:literal,)*) => {
        $(
            #[doc = $function]
            #[fexit(function = $function)]
            pub fn $name(context: FExitContext) -> i32 {
                memory::maps(context.arg(0), context.arg(1));
                0
            }
        )*
    };
}

on_mapping! {
    on_mmap at "__x64_sys_mmap",
    on_munmap at "__x64_sys_munmap",
    on_brk at "__x64_sys_brk",
    on_mremap at "__x64_sys_mremap",
    on_madvise at "__x64_sys_madvise",
    on_mlock at "__x64_sys_mlock",
    on_mlock2 at "__x64_sys_mlock2",
    on_mlockall at "__x64_sys_mlockall",
}

/// `sys_exit(struct pt_regs *, long ret)`, for descriptors where functions cannot be traced
#[btf_tracepoint(function = "sys_exit")]
pub fn on_descriptor_call(context: BtfTracePointContext) -> i32 {
    origin::returns(context.arg(0), context.arg(1));
    0
}

/// `void fd_install(unsigned int fd, struct file *file)`
#[fentry(function = "fd_install")]
pub fn on_descriptor(context: FEntryContext) -> i32 {
    origin::installs(context.arg(0));
    0
}

/// `long __x64_sys_dup2(const struct pt_regs *regs)`
#[fentry(function = "__x64_sys_dup2")]
pub fn on_dup2(context: FEntryContext) -> i32 {
    origin::replaces(context.arg(0));
    0
}

/// `long __x64_sys_dup3(const struct pt_regs *regs)`
#[fentry(function = "__x64_sys_dup3")]
pub fn on_dup3(context: FEntryContext) -> i32 {
    origin::replaces(context.arg(0));
    0
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`, for threads
#[btf_tracepoint(function = "sched_process_fork")]
pub fn on_thread(context: BtfTracePointContext) -> i32 {
    origin::starts(context.arg(1));
    0
}

/// The registers of the thread that a probe has interrupted.
#[inline(always)]
fn registers(context: &ProbeContext) -> &pt_regs {
    // SAFETY: the context of a uprobe.
    unsafe { &*context.regs }
}

/// A timed function is entered; the cookie is its number.
#[uprobe]
pub fn enter(context: ProbeContext) -> u32 {
    call::enter(&context, registers(&context));
    0
}

/// A timed function is about to return, at one of its return instructions; the cookie is its number.
#[uprobe]
pub fn leave(context: ProbeContext) -> u32 {
    let regs = registers(&context);
    call::leave(&context, regs, regs.rsp);
    0
}

/// A timed function has returned: this is where it was called; the cookie is its number.
#[uprobe]
pub fn returned(context: ProbeContext) -> u32 {
    let regs = registers(&context);
    call::leave(&context, regs, regs.rsp.wrapping_sub(8));
    0
}

/// A span begins; the cookie is its number.
#[uprobe]
pub fn begin(context: ProbeContext) -> u32 {
    pair::begin(&context, registers(&context));
    0
}

/// A span ends; the cookie is its number.
#[uprobe]
pub fn end(context: ProbeContext) -> u32 {
    pair::end(&context, registers(&context));
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

/// An allocator publishes a sample of its own; the cookie is its number.
#[uprobe]
pub fn allocate_published(context: ProbeContext) -> u32 {
    allocation::published(&context);
    0
}

/// An allocator frees a sample that it has published; the cookie is its number.
#[uprobe]
pub fn free_published(context: ProbeContext) -> u32 {
    allocation::published_free(&context);
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
