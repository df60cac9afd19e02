//! Takes the two stacks of the current thread, and sends those that user space has not seen.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_ringbuf_output};
use probe_ebpf::abi::{Counter, MAX_FRAMES, MAX_KERNEL_FRAMES, StackEvent, StackId, kind};
use probe_ebpf::unwind::End;

use crate::atomic::swap;
use crate::maps::{EVENTS, SEEN, count};
use crate::task::{current_task, saved_registers};
use crate::walk::{self, Owner, Scratch, Start};

/// `BPF_RB_NO_WAKEUP` (include/uapi/linux/bpf.h)
const BPF_RB_NO_WAKEUP: u64 = 1;

/// The stack of the kernel code that runs, by the kernel's own unwinder: its identity and how many frames it has.
#[inline(always)]
pub fn kernel(scratch: *mut Scratch, context: *mut c_void, time_ns: u64) -> (StackId, u32) {
    // SAFETY: the caller's scratch; the helper writes at most the given size.
    let scratch = unsafe { &mut *scratch };
    let bytes =
        unsafe { bpf_get_stack(context, scratch.frames.as_mut_ptr().cast(), (MAX_KERNEL_FRAMES * 8) as u32, 0) };
    if bytes <= 0 {
        return (StackId::NONE, 0);
    }
    let frame_count = bytes as usize / 8;
    let id = walk::kernel_id(&scratch.frames, frame_count);
    let end = if frame_count >= MAX_KERNEL_FRAMES { End::TooDeep } else { End::Root };
    let (frame_count, end) = (frame_count as u32, end as u32);
    scratch.header = StackEvent { kind: kind::STACK, frame_count, time_ns, id, tgid: 0, epoch: 0, end, flags: 0 };
    (send(scratch), frame_count)
}

/// Scratch of a CPU for programs of uprobes, which other threads on the same CPU can enter before they are done: whoever has
/// it claims it. Zeroed at first.
#[repr(C)]
pub struct Claimed {
    scratch: Scratch,
    is_used: u64,
}

/// As [`user`]; `None` while another thread uses the scratch.
#[inline(always)]
pub fn user_claimed(claimed: Option<*mut Claimed>, start: &Start, owner: Owner) -> Option<StackId> {
    let claimed = claimed?;
    // SAFETY: in a map.
    let is_used = unsafe { &(*claimed).is_used };
    if swap(is_used, 1) != 0 {
        return None;
    }
    // SAFETY: nobody else uses it before it is given back.
    let id = user(unsafe { &raw mut (*claimed).scratch }, start, owner);
    swap(is_used, 0);
    Some(id)
}

/// The user stack of the current thread, from these registers on.
#[inline(always)]
pub fn user(scratch: *mut Scratch, start: &Start, owner: Owner) -> StackId {
    walk::current(scratch, start, owner);
    // SAFETY: the caller's scratch.
    send(unsafe { &mut *scratch })
}

/// The user stack of the current thread, which is in the kernel: from the registers with which it entered.
#[inline(always)]
pub fn user_from_kernel(scratch: *mut Scratch, owner: Owner) -> StackId {
    match saved_registers(current_task()) {
        Some((start, _)) => user(scratch, &start, owner),
        None => StackId::NONE,
    }
}

/// Bounds the number of frames for the verifier. A comparison would not do: the compiler may compare one copy of the number
/// and use another, of which the verifier of Linux 6.1 then knows nothing. A power of two, so that [`MAX_FRAMES`] passes.
const FRAME_COUNT_MASK: usize = 2 * MAX_FRAMES - 1;
const _: () = assert!(size_of::<StackEvent>() + FRAME_COUNT_MASK * 8 <= size_of::<Scratch>());

/// Sends the stack in a scratch unless its frames have travelled before.
#[inline(always)]
fn send(scratch: &mut Scratch) -> StackId {
    let id = scratch.header.id;
    // SAFETY: only its presence matters.
    if unsafe { SEEN.get(id) }.is_some() {
        return id;
    }
    let size = size_of::<StackEvent>() + (scratch.header.frame_count as usize & FRAME_COUNT_MASK) * 8;
    // The mark comes first: two CPUs with the same new stack send it once. It is taken back if the ring is full.
    let _ = SEEN.insert(id, 1, BPF_NOEXIST.into());
    // SAFETY: the size is at most that of `Scratch`.
    let failed = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            (&raw mut *scratch).cast(),
            size as u64,
            BPF_RB_NO_WAKEUP,
        )
    };
    if failed != 0 {
        let _ = SEEN.remove(id);
        count(Counter::StacksLost);
    }
    id
}
