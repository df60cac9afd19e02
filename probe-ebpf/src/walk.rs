//! The walk along a user stack, frame by frame, from whatever registers and memory it is given.

use core::ffi::c_void;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_copy_from_user_task, bpf_loop, bpf_probe_read_user, bpf_task_pt_regs};
use probe_ebpf::abi::{
    Counter, EXACT_FRAME, MAX_FRAMES, MAX_KERNEL_FRAMES, MEMO_FRAMES, StackEvent, StackId, kind, stack_flags,
};
use probe_ebpf::call_site::Site;
use probe_ebpf::hash::StackHash;
use probe_ebpf::kept::{Kept, in_pt_regs};
use probe_ebpf::table::{self, By, Rule, rule};
use probe_ebpf::unwind::{End, Memory, Registers};

use crate::caller::{self, Lookup};
use crate::maps::count;
use crate::task::{current_task, field};

/// A stack while it is taken: the event as it travels. Programs that can interrupt each other have one each.
#[repr(C)]
pub struct Scratch {
    pub header: StackEvent,
    pub frames: [u64; MAX_FRAMES],
    /// A piece of the user stack; the extra word lets a pair begin at the last one.
    window: [u64; WINDOW_WORDS + 1],
    walk: Walk,
}

/// The user stack is copied in pieces of this many words, a power of two: one helper call serves a dozen frames, and is
/// not much dearer than one for two words.
const WINDOW_WORDS: usize = 128;

/// The code segment of 64-bit user code (arch/x86/include/asm/segment.h); 32-bit code has 0x23.
const USER_CS: u64 = 0x33;

/// Where a walk begins.
pub struct Start {
    pub registers: Registers,
    pub cs: u64,
    /// Where the function returns to at whose first instruction the registers are; 0 anywhere else. There the stack has
    /// nothing of the function yet, so that no table is needed to find its caller.
    pub return_address: u64,
}

/// Whose stack it is, and when it was taken.
#[derive(Clone, Copy)]
pub struct Owner {
    pub tgid: u32,
    pub epoch: u32,
    pub time_ns: u64,
}

/// What the loop over frames carries from one to the next. It is not on the stack, because there the verifier follows each
/// number, and would find every frame to be different from the one before.
#[repr(C)]
struct Walk {
    registers: Registers,
    kept: Kept,
    hash: StackHash,
    lookup: Lookup,
    /// Address of the piece of stack in the scratch's window, or [`NO_WINDOW`].
    window_start: u64,
    /// How far the instruction is before the program counter.
    back: u64,
    frame_count: u32,
    end: u32,
    flags: u32,
    /// 1 if a signal handler or a stack was left on the way, or a frame was found by another register than the stack and frame
    /// pointer: what the caller's address depends on is not only what is compared.
    is_unusual: u32,
    start_sp: u64,
    last_sp: u64,
    /// As in [`Start`], before the first step.
    return_address: u64,
    /// Where the last return addresses were found, in words from the first stack pointer.
    slots: [u32; MEMO_FRAMES],
}

/// What `bpf_loop` hands to its callback: it has to be on the stack.
#[repr(C)]
struct Context {
    scratch: *mut Scratch,
    task: *mut task_struct,
}

/// Walks the current process's stack, which is in the scratch then.
#[inline(always)]
pub fn current(scratch: *mut Scratch, start: &Start, owner: Owner) {
    let mut context = Context { scratch, task: core::ptr::null_mut() };
    walk(&mut context, frame_of_current as *mut c_void, start, owner);
}

/// Walks the stack of a task that is not running; only where the program may sleep.
#[inline(always)]
pub fn task(scratch: *mut Scratch, task: *mut task_struct, start: &Start, owner: Owner) {
    let mut context = Context { scratch, task };
    walk(&mut context, frame_of_task as *mut c_void, start, owner);
}

#[inline(always)]
fn walk(context: &mut Context, callback: *mut c_void, start: &Start, owner: Owner) {
    let Owner { tgid, epoch, time_ns } = owner;
    // SAFETY: the caller's scratch, which nobody else uses meanwhile.
    let Scratch { header, walk, .. } = unsafe { &mut *context.scratch };
    // Field by field, here and below: a program's stack has no room for a copy.
    header.kind = kind::STACK;
    header.time_ns = time_ns;
    header.tgid = tgid;
    header.epoch = epoch;
    walk.registers = start.registers;
    walk.kept.start();
    walk.hash = StackHash::new(tgid, epoch);
    walk.window_start = NO_WINDOW;
    walk.lookup.start(tgid);
    // The leaf's address is exact; above it, the call is before the return address.
    walk.back = 0;
    walk.frame_count = 0;
    walk.flags = 0;
    walk.is_unusual = 0;
    walk.start_sp = start.registers.sp;
    walk.last_sp = start.registers.sp;
    walk.return_address = start.return_address;
    walk.end = End::TooDeep as u32;
    let is_compat = start.cs != USER_CS;
    let limit = if is_compat { 1 } else { MAX_FRAMES as u32 };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(limit, callback, (&raw mut *context).cast(), 0) };
    if is_compat {
        count(Counter::Compat);
        walk.end = End::Compat as u32;
    }
    header.frame_count = walk.frame_count;
    header.id = walk.hash.finish(walk.frame_count);
    header.end = walk.end;
    header.flags = walk.flags;
}

/// Where the return addresses of the stack that was just walked are, in bytes from the stack pointer: the first one, and the
/// end of the last. The slots are where all of them are, from the first on; unused ones repeat it, because any other word may
/// change while the stack remains. `None` for a stack that is not whole, too deep or unusual.
#[inline(always)]
pub fn return_addresses(scratch: *mut Scratch, slots: &mut [u16; MEMO_FRAMES]) -> Option<(u64, u64)> {
    // SAFETY: the caller's scratch.
    let walk = unsafe { &(*scratch).walk };
    if walk.end != End::Root as u32 || walk.is_unusual != 0 || walk.frame_count > MEMO_FRAMES as u32 {
        return None;
    }
    if walk.frame_count < 2 {
        return Some((0, 0));
    }
    let first = walk.slots[0];
    for (index, (slot, found)) in slots.iter_mut().zip(&walk.slots).enumerate() {
        let is_used = (index as u32) + 1 < walk.frame_count;
        *slot = if is_used { found.wrapping_sub(first).wrapping_mul(8) as u16 } else { 0 };
    }
    Some((u64::from(first) * 8, walk.registers.sp.wrapping_sub(walk.start_sp)))
}

/// One frame: `bpf_loop`'s callback. Returns 1 to stop.
#[inline(never)]
extern "C" fn frame_of_current(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the context of `walk`, which waits for the loop.
    frame(index, unsafe { (*context).scratch }, Current)
}

/// As above.
#[inline(never)]
extern "C" fn frame_of_task(index: u32, context: *mut Context) -> i64 {
    // SAFETY: as above.
    unsafe { frame(index, (*context).scratch, Task((*context).task)) }
}

#[inline(always)]
fn frame(index: u32, scratch: *mut Scratch, source: impl Source) -> i64 {
    // SAFETY: the scratch of `walk`.
    let Scratch { frames, walk, .. } = unsafe { &mut *scratch };
    let index = index as usize & (MAX_FRAMES - 1);
    let pc = walk.registers.pc;
    caller::find(pc.wrapping_sub(walk.back), &mut walk.lookup, source.task());
    let site = match walk.back {
        0 => Site::Call,
        _ => caller::site(&mut walk.lookup, pc, || source.read_alone(pc.wrapping_sub(8))),
    };
    if site == Site::Other && walk.lookup.rule().row.plain().rule != rule::END {
        walk.end = End::NoCall as u32;
        return 1;
    }
    // A frame that was interrupted, or was put there by who made the stack, not left by a call: its address is the instruction
    // itself.
    let is_exact = index > 0 && (walk.back == 0 || site != Site::Call);
    let address = pc | if is_exact { EXACT_FRAME } else { 0 };
    frames[index] = address;
    walk.hash.add(address);
    walk.frame_count = index as u32 + 1;
    if walk.return_address != 0 {
        walk.registers.pc = walk.return_address;
        walk.registers.sp = walk.registers.sp.wrapping_add(8);
        walk.return_address = 0;
        walk.back = 1;
        return 0;
    }
    if site == Site::Function {
        walk.end = End::Root as u32;
        return 1;
    }
    leave(index, scratch, source)
}

/// Leaves a frame, whose rule was found, for its caller. Returns 1 to stop.
#[inline(always)]
fn leave(index: usize, scratch: *mut Scratch, source: impl Source) -> i64 {
    // SAFETY: the scratch of `walk`.
    let Scratch { window, walk, .. } = unsafe { &mut *scratch };
    let mut memory = UserMemory { source, window, start: &mut walk.window_start };
    let Rule { row, saved } = walk.lookup.rule();
    walk.flags |= if row.is_derived() { stack_flags::DERIVED } else { 0 };
    let row = row.plain();
    let rule = Rule { row, saved };
    match table::step(rule, &mut walk.registers, &mut walk.kept, &mut memory) {
        Ok(by) => {
            walk.back = (by != By::Signal).into();
            let sp = walk.registers.sp;
            walk.is_unusual |= u32::from(by == By::Signal || row.has_register() || sp < walk.last_sp);
            walk.last_sp = sp;
            let slot = sp.wrapping_sub(walk.start_sp) / 8;
            walk.slots[index & (MEMO_FRAMES - 1)] = slot.wrapping_sub(1) as u32;
            if by == By::FramePointer {
                walk.flags |= stack_flags::GUESSED;
            }
            0
        }
        Err(end) => {
            // A frame pointer of zero ends a chain of them; code that keeps none may have a zero there as well.
            let is_no_chain = end == End::Root && row.rule == rule::NONE && walk.flags & stack_flags::GUESSED == 0;
            walk.end = match end {
                End::Root if !is_no_chain => End::Root,
                // The memory was given back, or is the new program's already: nothing is where the stack was.
                _ if index == 0
                    && leaves_its_stack(memory.source.task())
                    && memory.source.read_alone::<u64>(walk.start_sp).is_none() =>
                {
                    End::Gone
                }
                _ if is_no_chain => End::NoFramePointer,
                end => end,
            } as u32;
            1
        }
    }
}

/// True if a task is in a system call that gives its stack back.
#[inline(always)]
fn leaves_its_stack(task: *mut task_struct) -> bool {
    /// Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl).
    const EXECVE: u64 = 59;
    const EXIT: u64 = 60;
    const EXIT_GROUP: u64 = 231;
    const EXECVEAT: u64 = 322;
    /// Offset of `orig_rax` in `pt_regs`: the number of the system call.
    const NUMBER: u32 = 120;
    // SAFETY: the task is the current one or held by the iterator.
    let registers = unsafe { bpf_task_pt_regs(task) };
    matches!(field::<u64>(registers as *const u8, NUMBER), Some(EXECVE | EXIT | EXIT_GROUP | EXECVEAT))
}

/// Whose memory is read.
trait Source {
    /// True if all of it could be read.
    fn read(&self, into: *mut c_void, bytes: u32, address: u64) -> bool;

    /// The task; the registers with which it left user mode are those of its first frame.
    fn task(&self) -> *mut task_struct;

    #[inline(always)]
    fn read_alone<T: Default>(&self, address: u64) -> Option<T> {
        let mut value = T::default();
        self.read((&raw mut value).cast(), size_of::<T>() as u32, address).then_some(value)
    }
}

/// The current process's, as far as it is in memory.
struct Current;

impl Source for Current {
    #[inline(always)]
    fn read(&self, into: *mut c_void, bytes: u32, address: u64) -> bool {
        // SAFETY: the helper checks the address; the caller's buffer is that long.
        unsafe { bpf_probe_read_user(into, bytes, address as *const c_void) == 0 }
    }

    #[inline(always)]
    fn task(&self) -> *mut task_struct {
        current_task()
    }
}

/// Another task's, also what has to be brought into memory first.
struct Task(*mut task_struct);

impl Source for Task {
    #[inline(always)]
    fn read(&self, into: *mut c_void, bytes: u32, address: u64) -> bool {
        // SAFETY: as above.
        unsafe { bpf_copy_from_user_task(into, bytes, address as *const c_void, self.0, 0) == 0 }
    }

    #[inline(always)]
    fn task(&self) -> *mut task_struct {
        self.0
    }
}

/// A stack's memory, read through the window. Addresses grow along a stack, so the window only moves up.
struct UserMemory<'a, S> {
    source: S,
    window: &'a mut [u64; WINDOW_WORDS + 1],
    start: &'a mut u64,
}

impl<S: Source> UserMemory<'_, S> {
    /// The place of a word in the window, which is moved there if it has to be; `None` where it cannot be.
    #[inline(always)]
    fn find(&mut self, address: u64) -> Option<usize> {
        const WINDOW_BYTES: u64 = WINDOW_WORDS as u64 * 8;
        if address & 7 != 0 {
            return None;
        }
        if address.wrapping_sub(*self.start) >= WINDOW_BYTES {
            let window: *mut u64 = self.window.as_mut_ptr();
            if !self.source.read(window.cast(), WINDOW_BYTES as u32 + 8, address) {
                // The end of the stack's memory is near, and the window's content is gone.
                *self.start = NO_WINDOW;
                return None;
            }
            *self.start = address;
        }
        Some((address.wrapping_sub(*self.start) / 8) as usize & (WINDOW_WORDS - 1))
    }
}

impl<S: Source> Memory for UserMemory<'_, S> {
    #[inline(always)]
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        match self.find(address) {
            Some(at) => Some([self.window[at], self.window[at + 1]]),
            None => self.source.read_alone(address),
        }
    }

    #[inline(always)]
    fn read_word(&mut self, address: u64) -> Option<u64> {
        match self.find(address) {
            Some(at) => Some(self.window[at]),
            None => self.source.read_alone(address),
        }
    }

    #[inline(always)]
    fn register(&mut self, register: u8) -> Option<u64> {
        // SAFETY: the task is the current one or held by the iterator.
        let registers = unsafe { bpf_task_pt_regs(self.source.task()) };
        field(registers as *const u8, in_pt_regs(register))
    }
}

/// No address is in this window.
const NO_WINDOW: u64 = u64::MAX - WINDOW_WORDS as u64 * 8;

/// The identity of a kernel stack.
#[inline(always)]
pub fn kernel_id(frames: &[u64], frame_count: usize) -> StackId {
    let mut hash = StackHash::new(0, 0);
    for frame in frames.iter().take(MAX_KERNEL_FRAMES).take(frame_count) {
        hash.add(*frame);
    }
    hash.finish(frame_count as u32)
}
