//! Takes the two stacks of the sampled thread, and sends those that user space has not seen.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_NOEXIST, pt_regs};
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_get_stack, bpf_loop, bpf_probe_read_user, bpf_ringbuf_output, bpf_task_pt_regs,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::PerfEventContext;
use probe_ebpf::abi::{Counter, MAX_FRAMES, MAX_KERNEL_FRAMES, Offsets, StackEvent, StackId, kind, stack_flags};
use probe_ebpf::hash::StackHash;
use probe_ebpf::table::{self, By};
use probe_ebpf::unwind::{End, Memory, Registers};

use crate::caller::{self, Lookup};
use crate::maps::{EVENTS, SEEN, count};

/// A stack while it is taken: the event as it travels.
#[repr(C)]
struct Scratch {
    header: StackEvent,
    frames: [u64; MAX_FRAMES],
    /// A piece of the user stack; the extra word lets a pair begin at the last one.
    window: [u64; WINDOW_WORDS + 1],
    walk: Walk,
}

/// The user stack is copied in pieces of this many words, a power of two: one helper call serves a dozen frames, and is
/// not much dearer than one for two words.
const WINDOW_WORDS: usize = 128;

/// The sampler's own: a perf interrupt never lands inside another one on the same CPU. Other programs get theirs.
#[map]
static SAMPLER_STACK: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// `task_struct.flags` of a kernel thread (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;
/// The code segment of 64-bit user code (arch/x86/include/asm/segment.h); 32-bit code has 0x23.
const USER_CS: u64 = 0x33;

/// The stack of the interrupted kernel code, by the kernel's own unwinder.
#[inline(always)]
pub fn kernel(context: *mut c_void, time_ns: u64) -> StackId {
    let Some(scratch) = SAMPLER_STACK.get_ptr_mut(0) else { return StackId::NONE };
    // SAFETY: this CPU's scratch; the helper writes at most the given size.
    let scratch = unsafe { &mut *scratch };
    let bytes =
        unsafe { bpf_get_stack(context, scratch.frames.as_mut_ptr().cast(), (MAX_KERNEL_FRAMES * 8) as u32, 0) };
    if bytes <= 0 {
        return StackId::NONE;
    }
    let frame_count = bytes as usize / 8;
    let mut hash = StackHash::new(0, 0);
    for frame in scratch.frames.iter().take(MAX_KERNEL_FRAMES).take(frame_count) {
        hash.add(*frame);
    }
    let end = if frame_count >= MAX_KERNEL_FRAMES { End::TooDeep } else { End::Root };
    let (frame_count, id) = (frame_count as u32, hash.finish(frame_count as u32));
    let (tgid, epoch, end) = (0, 0, end as u32);
    send(scratch, StackEvent { kind: kind::STACK, frame_count, time_ns, id, tgid, epoch, end, flags: 0 })
}

/// The user stack of the current thread.
#[inline(always)]
pub fn user(
    context: &PerfEventContext,
    in_kernel: bool,
    time_ns: u64,
    tgid: u32,
    epoch: u32,
    offsets: &Offsets,
) -> StackId {
    let (registers, cs) = if in_kernel {
        match saved_registers(offsets) {
            Some(registers) => registers,
            None => return StackId::NONE,
        }
    } else {
        // SAFETY: the context is the sample's registers.
        let regs = unsafe { &(*context.ctx).regs };
        (Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp }, regs.cs)
    };
    let Some(scratch) = SAMPLER_STACK.get_ptr_mut(0) else { return StackId::NONE };
    let mut context = Context { scratch };
    // SAFETY: this CPU's scratch, as above.
    let scratch = unsafe { &mut *scratch };
    let walk = &mut scratch.walk;
    walk.registers = registers;
    walk.hash = StackHash::new(tgid, epoch);
    walk.window_start = NO_WINDOW;
    walk.lookup.start(tgid);
    // The leaf's address is exact; above it, the call is before the return address.
    walk.back = 0;
    walk.frame_count = 0;
    walk.flags = 0;
    walk.end = End::TooDeep as u32;
    let is_compat = cs != USER_CS;
    let limit = if is_compat { 1 } else { MAX_FRAMES as u32 };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(limit, walk_frame as *mut c_void, (&raw mut context).cast(), 0) };
    if is_compat {
        count(Counter::Compat);
        walk.end = End::Compat as u32;
    }
    let header = StackEvent {
        kind: kind::STACK,
        frame_count: walk.frame_count,
        time_ns,
        id: walk.hash.finish(walk.frame_count),
        tgid,
        epoch,
        end: walk.end,
        flags: walk.flags,
    };
    send(scratch, header)
}

/// The registers with which the current thread entered the kernel; `None` for a kernel thread.
#[inline(always)]
fn saved_registers(offsets: &Offsets) -> Option<(Registers, u64)> {
    // SAFETY: the current task is alive, and so is its kernel stack, on which the registers are.
    unsafe {
        let task = bpf_get_current_task_btf();
        let flags = bpf_probe_read_kernel(task.cast::<u8>().add(offsets.task_flags as usize).cast::<u32>()).ok()?;
        if flags & PF_KTHREAD != 0 {
            return None;
        }
        let regs = bpf_task_pt_regs(task) as *const pt_regs;
        let Ok(regs) = bpf_probe_read_kernel(regs) else {
            count(Counter::NoUserRegisters);
            return None;
        };
        if regs.rip == 0 {
            return None; // a worker that never was in user mode
        }
        Some((Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp }, regs.cs))
    }
}

/// What the loop over frames carries from one to the next. It is not on the stack, because there the verifier follows each
/// number, and would find every frame to be different from the one before.
#[repr(C)]
struct Walk {
    registers: Registers,
    hash: StackHash,
    lookup: Lookup,
    /// Address of the piece of stack in the scratch's window, or [`NO_WINDOW`].
    window_start: u64,
    /// How far the instruction is before the program counter.
    back: u64,
    frame_count: u32,
    end: u32,
    flags: u32,
    padding: u32,
}

/// What `bpf_loop` hands to its callback: it has to be on the stack.
#[repr(C)]
struct Context {
    scratch: *mut Scratch,
}

/// One frame: `bpf_loop`'s callback. Returns 1 to stop.
#[inline(never)]
extern "C" fn walk_frame(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the walk of `user`, which waits for the loop.
    let Scratch { frames, window, walk, .. } = unsafe { &mut *(*context).scratch };
    let index = index as usize & (MAX_FRAMES - 1);
    frames[index] = walk.registers.pc;
    walk.hash.add(walk.registers.pc);
    walk.frame_count = index as u32 + 1;
    let row = caller::row(walk.registers.pc.wrapping_sub(walk.back), &mut walk.lookup);
    let mut memory = UserMemory { window, start: &mut walk.window_start };
    match table::step(row, &mut walk.registers, &mut memory) {
        Ok(by) => {
            walk.back = (by != By::Signal).into();
            if by == By::FramePointer {
                walk.flags = stack_flags::GUESSED;
            }
            0
        }
        Err(end) => {
            walk.end = end as u32;
            1
        }
    }
}

/// The current process's stack, read through the window. Addresses grow along a stack, so the window only moves up.
struct UserMemory<'a> {
    window: &'a mut [u64; WINDOW_WORDS + 1],
    start: &'a mut u64,
}

impl UserMemory<'_> {
    /// The place of a word in the window, which is moved there if it has to be; `None` where it cannot be.
    #[inline(always)]
    fn find(&mut self, address: u64) -> Option<usize> {
        const WINDOW_BYTES: u64 = WINDOW_WORDS as u64 * 8;
        if address & 7 != 0 {
            return None;
        }
        if address.wrapping_sub(*self.start) >= WINDOW_BYTES {
            let window: *mut u64 = self.window.as_mut_ptr();
            // SAFETY: the helper checks the address; the window is that long.
            let failed =
                unsafe { bpf_probe_read_user(window.cast(), WINDOW_BYTES as u32 + 8, address as *const c_void) };
            if failed != 0 {
                // The end of the stack's memory is near, and the window's content is gone.
                *self.start = NO_WINDOW;
                return None;
            }
            *self.start = address;
        }
        Some((address.wrapping_sub(*self.start) / 8) as usize & (WINDOW_WORDS - 1))
    }
}

impl Memory for UserMemory<'_> {
    #[inline(always)]
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        match self.find(address) {
            Some(at) => Some([self.window[at], self.window[at + 1]]),
            None => read_alone(address),
        }
    }

    #[inline(always)]
    fn read_word(&mut self, address: u64) -> Option<u64> {
        match self.find(address) {
            Some(at) => Some(self.window[at]),
            None => read_alone(address),
        }
    }
}

/// No address is in this window.
const NO_WINDOW: u64 = u64::MAX - WINDOW_WORDS as u64 * 8;

#[inline(always)]
fn read_alone<T: Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper checks the address, and the value is integers.
    let failed =
        unsafe { bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, address as *const c_void) };
    (failed == 0).then_some(value)
}

/// Sends a stack's frames unless they have travelled before.
#[inline(always)]
fn send(scratch: &mut Scratch, header: StackEvent) -> StackId {
    let id = header.id;
    // SAFETY: only its presence matters.
    if unsafe { SEEN.get(id) }.is_some() {
        return id;
    }
    let frame_bytes = (header.frame_count as usize).min(MAX_FRAMES) * 8;
    let size = size_of::<StackEvent>() + frame_bytes;
    scratch.header = header;
    // The mark comes first: two CPUs with the same new stack send it once. It is taken back if the ring is full.
    let _ = SEEN.insert(id, 1, BPF_NOEXIST.into());
    // SAFETY: the size is at most that of `Scratch`.
    let failed = unsafe {
        bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), (&raw mut *scratch).cast(), size as u64, 1)
    };
    if failed != 0 {
        let _ = SEEN.remove(id);
        count(Counter::StacksLost);
    }
    id
}
