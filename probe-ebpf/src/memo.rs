//! Stacks that are known without unwinding them again. A thread that waits often does so in the same few places: if it
//! entered the kernel with the same registers, and all return addresses are where they were, then both stacks are what they
//! were: where a frame's return address is follows from the code it is in. To compare is several times cheaper than to unwind.
//!
//! Linux may leave a gap of random size below the first frame of a system call (CONFIG_RANDOMIZE_KSTACK_OFFSET). The return
//! addresses of a kernel stack are therefore compared from its lower end, and the first frame's from its upper one.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use probe_ebpf::abi::{MEMO_KERNEL_FRAMES, Memo, PLACES_PER_THREAD, Place, SETS_PER_THREAD, generation};

use crate::maps::{generation, setting};
use crate::walk::{self, Scratch, Start};

/// Multiplying by it spreads neighbours: the fractional part of the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Longest piece of a stack that is compared, in words, a power of two.
const WORDS: usize = 1024;
/// Longest part of a kernel stack in which return addresses are looked for, in words.
const KERNEL_WORDS: u32 = 256;
/// Whether return addresses are left is looked at before this many of them.
const HASHED_AT_ONCE: usize = 8;
/// Frames that a kernel stack at a tracepoint begins with and that lie below the program's context: the program and its
/// caller.
const BELOW_CONTEXT: u32 = 2;
/// The first frame whose return address is compared. The one below it is tracing code, or the function with the tracepoint,
/// which follows from where it was called; together they are a third of a short stack.
const FIRST_COMPARED: u32 = BELOW_CONTEXT + 1;

/// What both programs write on.
#[repr(C)]
pub struct Desk {
    /// Pointers, as the numbers that they are: of the context, then of the saved registers.
    pointers: [u64; 2],
    window: [u64; WORDS],
    /// Where return addresses of the kernel were found, in words, by the frame.
    slots: [u8; MEMO_KERNEL_FRAMES],
    /// The next frame to be found, and the last.
    next: u32,
    last: u32,
    /// A place that has just been seen.
    pub place: Place,
}

/// Interrupts are off where it is used.
#[map]
static DESK: PerCpuArray<Desk> = PerCpuArray::with_max_entries(1, 0);

/// Where the current thread is.
pub struct Here {
    pub desk: *mut Desk,
    pub start: Start,
    /// Lower end of the kernel's stack.
    kernel_sp: u64,
    /// Its upper end.
    kernel_top: u64,
    generation: u64,
    /// `task_struct.__state`
    state: u32,
}

/// Where the current thread is, by the program's context, which is on its kernel stack, and its saved registers.
#[inline(always)]
pub fn here(context: &impl EbpfContext, start: Start, regs: *const pt_regs, state: u32) -> Option<Here> {
    let desk = DESK.get_ptr_mut(0)?;
    // SAFETY: this CPU's desk. Through memory, because the verifier does not calculate with pointers of these kinds.
    let [kernel_sp, kernel_top] = unsafe {
        core::ptr::write_volatile(&raw mut (*desk).pointers, [context.as_ptr() as u64, regs as u64]);
        core::ptr::read_volatile(&raw const (*desk).pointers)
    };
    Some(Here { desk, start, kernel_sp, kernel_top, generation: generation(generation::STACKS), state })
}

impl Here {
    /// Where a thread may have its place that is here: two of those kept with it, because callers whose frames are of one
    /// size cannot be told apart before their memos are compared, and one of its sets.
    #[inline(always)]
    pub fn candidates(&self) -> ([usize; 2], u32) {
        const BITS: u32 = PLACES_PER_THREAD.ilog2();
        let hash = self.start.registers.pc ^ self.start.registers.sp.rotate_left(32) ^ u64::from(self.state);
        let hash = hash.wrapping_mul(FACTOR);
        let index = (hash >> (u64::BITS - BITS)) as usize;
        let set = (hash >> (u64::BITS - BITS - SETS_PER_THREAD.ilog2())) as u32 & (SETS_PER_THREAD as u32 - 1);
        ([index & (PLACES_PER_THREAD - 1), (index ^ 1) & (PLACES_PER_THREAD - 1)], set)
    }

    /// True if the thread has the stacks of this place.
    #[inline(always)]
    pub fn is(&self, place: &Place) -> bool {
        let registers = &self.start.registers;
        let memo = &place.memo;
        memo.generation == self.generation
            && memo.pc == registers.pc
            && memo.sp == registers.sp
            && memo.fp == registers.fp
            && place.sum.state == self.state
            && has_return_addresses(self.desk, memo) != 0
    }

    /// True if nothing would be lost if the place were another one.
    #[inline(always)]
    pub fn is_free(&self, place: &Place) -> bool {
        place.memo.generation != self.generation && place.sum.count == 0
    }

    /// Remembers the kernel stack that was just unwound into the scratch. Without success the memo holds nothing.
    #[inline(always)]
    pub fn learn_kernel(&self, scratch: *mut Scratch, frame_count: u32) {
        // SAFETY: this CPU's desk.
        let desk = unsafe { &mut *self.desk };
        desk.place.memo.generation = 0;
        desk.place.memo.kernel_span = 0;
        if setting!(kernel_stacks) == 0 {
            return self.begin();
        }
        let depth = self.kernel_top.wrapping_sub(self.kernel_sp);
        let words = (depth / 8).min(KERNEL_WORDS.into()) as u32;
        if frame_count < FIRST_COMPARED + 2
            || frame_count > MEMO_KERNEL_FRAMES as u32
            || !read_kernel(&mut desk.window, words * 8, self.kernel_sp)
        {
            return;
        }
        desk.next = BELOW_CONTEXT;
        desk.last = frame_count - 1;
        let mut context = Context { desk, scratch };
        // SAFETY: the callback's signature is the helper's; the context outlives the call.
        unsafe { bpf_loop(words, find_return_address as *mut c_void, (&raw mut context).cast(), 0) };
        if desk.next != desk.last {
            return;
        }
        let memo = &mut desk.place.memo;
        let first = desk.slots[FIRST_COMPARED as usize];
        // Unused places repeat the first: any other word may change while the stack remains.
        for (index, slot) in memo.kernel_slots.iter_mut().enumerate() {
            let frame = index + FIRST_COMPARED as usize;
            let is_used = frame < desk.last as usize;
            *slot = if is_used { desk.slots[frame & (MEMO_KERNEL_FRAMES - 1)].wrapping_sub(first).into() } else { 0 };
            *slot *= 8;
        }
        let last = desk.slots[(desk.last - 1) as usize & (MEMO_KERNEL_FRAMES - 1)];
        memo.kernel_start = 8 * u32::from(first);
        memo.kernel_span = 8 * (u32::from(last.wrapping_sub(first)) + 1);
        memo.kernel_root = kernel_root(self.kernel_top);
        let address = self.kernel_sp.wrapping_add(memo.kernel_start.into());
        if read_kernel(&mut desk.window, memo.kernel_span, address) {
            memo.kernel_hash = hash(&desk.window, &memo.kernel_slots);
            self.begin();
        }
    }

    #[inline(always)]
    fn begin(&self) {
        // SAFETY: this CPU's desk.
        let memo = unsafe { &mut (*self.desk).place.memo };
        memo.generation = self.generation;
        memo.pc = self.start.registers.pc;
        memo.sp = self.start.registers.sp;
        memo.fp = self.start.registers.fp;
    }

    /// Remembers the user stack that was just walked with the scratch; completes a memo or ends it.
    #[inline(always)]
    pub fn learn_user(&self, scratch: *mut Scratch) {
        /// The way to a return address may be long, but it is not endless.
        const MOST_BYTES: u64 = 1 << 30;
        // SAFETY: this CPU's desk.
        let desk = unsafe { &mut *self.desk };
        let memo = &mut desk.place.memo;
        memo.user_span = 0;
        if setting!(user_stacks) == 0 {
            return;
        }
        let Some((start, end)) = walk::return_addresses(scratch, &mut memo.user_slots) else {
            memo.generation = 0;
            return;
        };
        if end == 0 {
            return;
        }
        let span = end.wrapping_sub(start);
        let address = self.start.registers.sp.wrapping_add(start);
        if end <= MOST_BYTES && span <= WORDS as u64 * 8 && read_user(&mut desk.window, span as u32, address) {
            memo.user_start = start as u32;
            memo.user_span = span as u32;
            memo.user_hash = hash(&desk.window, &memo.user_slots);
        } else {
            memo.generation = 0;
        }
    }
}

/// Not 0 if all return addresses of the current thread, whose registers are those of the memo, are where they were. A function
/// of its own because it is called for each candidate.
#[inline(never)]
extern "C" fn has_return_addresses(desk: *mut Desk, memo: *const Memo) -> u64 {
    // SAFETY: this CPU's desk, and the memo of the current thread.
    let (Desk { pointers: [kernel_sp, kernel_top], window, .. }, memo) = unsafe { (&mut *desk, &*memo) };
    let is_same = (memo.kernel_span == 0
        || kernel_root(*kernel_top) == memo.kernel_root
            && read_kernel(window, memo.kernel_span, kernel_sp.wrapping_add(memo.kernel_start.into()))
            && hash(window, &memo.kernel_slots) == memo.kernel_hash)
        && (memo.user_span == 0
            || read_user(window, memo.user_span, memo.sp.wrapping_add(memo.user_start.into()))
                && hash(window, &memo.user_slots) == memo.user_hash);
    is_same.into()
}

/// The return address at the upper end of the kernel's stack; 0 if it cannot be read.
#[inline(always)]
fn kernel_root(kernel_top: u64) -> u64 {
    let address = kernel_top.wrapping_sub(8) as *const u64;
    // SAFETY: the helper checks the address.
    unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(address) }.unwrap_or(0)
}

/// What `bpf_loop` hands to its callback: it has to be on the stack.
#[repr(C)]
struct Context {
    desk: *mut Desk,
    scratch: *mut Scratch,
}

/// `bpf_loop`'s callback: looks for the return addresses of the frames, in their order, from the lower end of the kernel's
/// stack up. Returns 1 when all but the first frame's are found.
#[inline(never)]
extern "C" fn find_return_address(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the context of `learn_kernel`, which waits for the loop.
    let (desk, frames) = unsafe { (&mut *(*context).desk, &(*(*context).scratch).frames) };
    let frame = desk.next as usize & (MEMO_KERNEL_FRAMES - 1);
    if desk.window[index as usize & (WORDS - 1)] != frames[frame] {
        return 0;
    }
    desk.slots[frame] = index as u8;
    desk.next += 1;
    (desk.next == desk.last).into()
}

#[inline(always)]
fn read_kernel(window: &mut [u64; WORDS], bytes: u32, address: u64) -> bool {
    let bytes = bytes.min(WORDS as u32 * 8);
    // SAFETY: the helper checks the address; the window is that long.
    unsafe { bpf_probe_read_kernel(window.as_mut_ptr().cast(), bytes, address as *const c_void) == 0 }
}

#[inline(always)]
fn read_user(window: &mut [u64; WORDS], bytes: u32, address: u64) -> bool {
    let bytes = bytes.min(WORDS as u32 * 8);
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(window.as_mut_ptr().cast(), bytes, address as *const c_void) == 0 }
}

/// A hash of the words in these places, of which unused ones are 0, as the first is.
#[inline(always)]
fn hash<const SLOTS: usize>(window: &[u64; WORDS], slots: &[u16; SLOTS]) -> u64 {
    let word = |slot: u16| window[slot as usize / 8 & (WORDS - 1)];
    // Four lanes, so that the processor need not wait for one multiplication before it begins the next.
    let (mut a, mut b, mut c, mut d) = (1u64, 2u64, 3u64, 4u64);
    let add = |lane: &mut u64, slot: u16| *lane = lane.wrapping_add(word(slot)).wrapping_mul(FACTOR);
    let mut at = 0;
    while at < SLOTS {
        // Return addresses lie one above the other, so that only an unused place repeats the first.
        if at != 0 && slots[at] == 0 {
            break;
        }
        add(&mut a, slots[at]);
        add(&mut b, slots[at + 1]);
        add(&mut c, slots[at + 2]);
        add(&mut d, slots[at + 3]);
        add(&mut a, slots[at + 4]);
        add(&mut b, slots[at + 5]);
        add(&mut c, slots[at + 6]);
        add(&mut d, slots[at + 7]);
        at += HASHED_AT_ONCE;
    }
    a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47)
}
