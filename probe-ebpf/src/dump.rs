//! The thread dump: every thread of a process, with its state and stacks, while it goes on. Blocked threads only: the
//! registers of a running one are in its CPU, and the sampler is what sees those.

use aya_ebpf::bindings::{seq_file, task_struct};
use aya_ebpf::helpers::generated::{bpf_get_task_stack, bpf_seq_write};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use probe_ebpf::abi::{MAX_FRAMES, MAX_KERNEL_FRAMES, Offsets, StackId, ThreadRecord, thread_flags};

use crate::maps::{DUMP, setting, target};
use crate::task::{Struct, current_task, field, saved_registers};
use crate::walk::{self, Owner, Scratch};

/// `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
pub struct Meta {
    seq: *mut seq_file,
    session_id: u64,
    seq_num: u64,
}

/// One dump at a time, by one reader: it may be moved to another CPU, so that its scratch belongs to none.
#[map]
static DUMP_STACK: Array<Scratch> = Array::with_max_entries(1, 0);

/// A record and its kernel stack, as they travel; the user stack's frames follow from the scratch.
#[repr(C)]
struct Head {
    record: ThreadRecord,
    kernel_frames: [u64; MAX_KERNEL_FRAMES],
}

#[map]
static DUMP_HEAD: Array<Head> = Array::with_max_entries(1, 0);

/// Reports one task, if it is a thread of the process that is asked for.
///
/// # Safety
/// The pointers are those of the iterator's context.
#[inline(always)]
pub unsafe fn take(meta: *mut Meta, task: *mut task_struct) {
    if task.is_null() {
        return; // the end
    }
    let Some(request) = DUMP.get(0) else { return };
    let Some(tgid) = field::<u32>(task.cast(), setting!(offsets.task_tgid)) else { return };
    let is_target = || target(tgid).is_some() && saved_registers(task).is_some();
    let is_wanted = if request.tgid == 0 { is_target() } else { tgid == request.tgid };
    if !is_wanted {
        return;
    }
    let (Some(head), Some(scratch)) = (DUMP_HEAD.get_ptr_mut(0), DUMP_STACK.get_ptr_mut(0)) else { return };
    // SAFETY: nobody else uses it, as said above.
    let head = unsafe { &mut *head };
    describe(&mut head.record, task.cast(), tgid);
    if request.stacks != 0 && head.record.flags == 0 {
        // SAFETY: the iterator holds the task.
        unsafe { stacks(head, scratch, task) };
    }
    let kernel_frames = (head.record.kernel_frames as usize).min(MAX_KERNEL_FRAMES);
    let user_frames = (head.record.user_frames as usize).min(MAX_FRAMES);
    // What does not fit into the reader's buffer is asked for again by the kernel.
    // SAFETY: the sizes are at most those of what is written.
    unsafe {
        let seq = (*meta).seq;
        bpf_seq_write(seq, (&raw const *head).cast(), (size_of::<ThreadRecord>() + 8 * kernel_frames) as u32);
        if user_frames > 0 {
            bpf_seq_write(seq, (&raw const (*scratch).frames).cast(), (8 * user_frames) as u32);
        }
    }
}

/// # Safety
/// The task must be alive, and not run.
#[inline(always)]
unsafe fn stacks(head: &mut Head, scratch: *mut Scratch, task: *mut task_struct) {
    // SAFETY: the helper writes at most the given size.
    let bytes =
        unsafe { bpf_get_task_stack(task, head.kernel_frames.as_mut_ptr().cast(), (MAX_KERNEL_FRAMES * 8) as u32, 0) };
    if bytes > 0 {
        let frame_count = bytes as usize / 8;
        head.record.kernel_frames = frame_count as u32;
        head.record.kernel_stack = walk::kernel_id(&head.kernel_frames, frame_count);
    }
    let tgid = head.record.tgid;
    let epoch = target(tgid).map_or(0, |target| target.epoch);
    if let Some((start, _)) = saved_registers(task) {
        walk::task(scratch, task, &start, Owner { tgid, epoch, time_ns: 0 });
        // SAFETY: the caller's scratch.
        let header = unsafe { &(*scratch).header };
        head.record.user_stack = header.id;
        head.record.user_frames = header.frame_count;
        head.record.user_end = header.end;
        head.record.stack_flags = header.flags;
    }
}

/// Everything but the stacks. Field by field, because a program's stack has no room for a record.
#[inline(always)]
fn describe(record: &mut ThreadRecord, task: Struct, tgid: u32) {
    let word = |offset| field::<u32>(task, offset).unwrap_or(0);
    let long = |task: Struct, offset| match offset {
        Offsets::MISSING => 0,
        offset => field::<u64>(task, offset).unwrap_or(0),
    };
    let exited = if word(setting!(offsets.task_exit_state)) != 0 { thread_flags::EXITED } else { 0 };
    // A byte in new kernels, with others of another meaning behind it; an `int` before, whose lowest byte tells as much.
    let is_on_cpu = field::<u8>(task, setting!(offsets.task_on_cpu)).unwrap_or(0) != 0;
    let running = if is_on_cpu { thread_flags::ON_CPU } else { 0 };
    record.tgid = tgid;
    record.tid = word(setting!(offsets.task_pid));
    record.state = word(setting!(offsets.task_state));
    record.flags = exited | running;
    record.runtime_ns = long(task, setting!(offsets.task_runtime));
    record.runtime_at_arrival_ns = long(task, setting!(offsets.task_runtime_at_arrival));
    record.arrival_ns = long(task, setting!(offsets.task_arrival));
    record.queued_ns = long(task, setting!(offsets.task_queued));
    record.reader_arrival_ns = long(current_task().cast_const().cast(), setting!(offsets.task_arrival));
    record.comm = field(task, setting!(offsets.task_comm)).unwrap_or_default();
    record.user_stack = StackId::NONE;
    record.kernel_stack = StackId::NONE;
    record.user_frames = 0;
    record.kernel_frames = 0;
    record.user_end = 0;
    record.stack_flags = 0;
}
