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
use probe_ebpf::abi::{MEMO_FRAMES, MEMOS_PER_THREAD, Memo};

use crate::maps::{GENERATION, setting};
use crate::walk::{self, Scratch, Start};

/// Multiplying by it spreads neighbours: the fractional part of the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Longest piece of a stack that is compared, in words, a power of two.
const WORDS: usize = 256;
/// Whether return addresses are left is looked at before this many of them.
const HASHED_AT_ONCE: usize = 8;
/// Frames that a kernel stack at a tracepoint begins with and that lie below the program's context: the program and its
/// caller.
const BELOW_CONTEXT: u32 = 2;

#[repr(C)]
struct Desk {
    /// Pointers, as the numbers that they are: of the context, then of the saved registers.
    pointers: [u64; 2],
    window: [u64; WORDS],
    /// Where return addresses were found, by the frame.
    slots: [u8; MEMO_FRAMES],
    /// The next frame to be found, and the last.
    next: u32,
    last: u32,
}

/// Interrupts are off where it is used.
#[map]
static DESK: PerCpuArray<Desk> = PerCpuArray::with_max_entries(1, 0);

/// Where the current thread is.
pub struct Here {
    desk: *mut Desk,
    pub start: Start,
    /// Lower end of the kernel's stack.
    kernel_sp: u64,
    /// Its upper end.
    kernel_top: u64,
    generation: u64,
}

/// Where the current thread is, by the program's context, which is on its kernel stack, and its saved registers.
#[inline(always)]
pub fn here(context: &impl EbpfContext, start: Start, regs: *const pt_regs) -> Option<Here> {
    let desk = DESK.get_ptr_mut(0)?;
    let generation = *GENERATION.get(0)? + 1;
    // SAFETY: this CPU's desk. Through memory, because the verifier does not calculate with pointers of these kinds.
    let [kernel_sp, kernel_top] = unsafe {
        core::ptr::write_volatile(&raw mut (*desk).pointers, [context.as_ptr() as u64, regs as u64]);
        core::ptr::read_volatile(&raw const (*desk).pointers)
    };
    Some(Here { desk, start, kernel_sp, kernel_top, generation })
}

impl Here {
    /// Which of a thread's memos may be of this place, left in this state. Two, because callers whose frames are of one size
    /// cannot be told apart before their memos are compared.
    #[inline(always)]
    pub fn places(&self, state: u32) -> [usize; 2] {
        let place = self.start.registers.pc ^ self.start.registers.sp.rotate_left(32) ^ u64::from(state);
        let index = (place.wrapping_mul(FACTOR) >> (u64::BITS - MEMOS_PER_THREAD.ilog2())) as usize;
        [index & (MEMOS_PER_THREAD - 1), (index ^ 1) & (MEMOS_PER_THREAD - 1)]
    }

    /// True if the thread has the stacks of the memo.
    #[inline(always)]
    pub fn is(&self, memo: &Memo) -> bool {
        let registers = &self.start.registers;
        let is_same = memo.generation == self.generation
            && memo.pc == registers.pc
            && memo.sp == registers.sp
            && memo.fp == registers.fp;
        // SAFETY: this CPU's desk.
        let window = unsafe { &mut (*self.desk).window };
        is_same
            && (memo.kernel_span == 0
                || self.kernel_root() == memo.kernel_root
                    && read_kernel(window, memo.kernel_span, self.kernel_sp)
                    && hash(window, &memo.kernel_slots) == memo.kernel_hash)
            && (memo.user_span == 0
                || read_user(window, memo.user_span, registers.sp) && hash(window, &memo.user_slots) == memo.user_hash)
    }

    /// The return address at the upper end of the kernel's stack; 0 if it cannot be read.
    #[inline(always)]
    fn kernel_root(&self) -> u64 {
        let address = self.kernel_top.wrapping_sub(8) as *const u64;
        // SAFETY: the helper checks the address.
        unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(address) }.unwrap_or(0)
    }

    /// Remembers the kernel stack that was just unwound into the scratch. Without success the memo holds nothing.
    #[inline(always)]
    pub fn learn_kernel(&self, memo: &mut Memo, scratch: *mut Scratch, frame_count: u32) {
        memo.generation = 0;
        memo.kernel_span = 0;
        if setting!(kernel_stacks) == 0 {
            return self.begin(memo);
        }
        // SAFETY: this CPU's desk.
        let desk = unsafe { &mut *self.desk };
        let depth = self.kernel_top.wrapping_sub(self.kernel_sp);
        let words = (depth / 8).min(WORDS as u64) as u32;
        if frame_count > MEMO_FRAMES as u32 || !read_kernel(&mut desk.window, words * 8, self.kernel_sp) {
            return;
        }
        desk.slots = [0; MEMO_FRAMES];
        desk.next = BELOW_CONTEXT;
        desk.last = frame_count - 1;
        let mut context = Context { desk, scratch };
        // SAFETY: the callback's signature is the helper's; the context outlives the call.
        unsafe { bpf_loop(words, find_return_address as *mut c_void, (&raw mut context).cast(), 0) };
        if desk.next != desk.last {
            return;
        }
        // Any other word may change while the stack remains.
        let first = desk.slots[BELOW_CONTEXT as usize];
        for (index, (slot, found)) in memo.kernel_slots.iter_mut().zip(&desk.slots).enumerate() {
            let is_used = (BELOW_CONTEXT..desk.last).contains(&(index as u32));
            *slot = if is_used { *found } else { first };
        }
        memo.kernel_span = 8 * (u32::from(desk.slots[(desk.last - 1) as usize & (MEMO_FRAMES - 1)]) + 1);
        memo.kernel_root = self.kernel_root();
        memo.kernel_hash = hash(&desk.window, &memo.kernel_slots);
        self.begin(memo);
    }

    #[inline(always)]
    fn begin(&self, memo: &mut Memo) {
        memo.generation = self.generation;
        memo.pc = self.start.registers.pc;
        memo.sp = self.start.registers.sp;
        memo.fp = self.start.registers.fp;
    }

    /// Remembers the user stack that was just walked with the scratch; completes a memo or ends it.
    #[inline(always)]
    pub fn learn_user(&self, memo: &mut Memo, scratch: *mut Scratch) {
        memo.user_span = 0;
        if setting!(user_stacks) == 0 {
            return;
        }
        // SAFETY: this CPU's desk.
        let window = unsafe { &mut (*self.desk).window };
        match walk::return_addresses(scratch, &mut memo.user_slots) {
            Some(span) if span <= WORDS as u64 * 8 && read_user(window, span as u32, self.start.registers.sp) => {
                memo.user_span = span as u32;
                memo.user_hash = hash(window, &memo.user_slots);
            }
            _ => memo.generation = 0,
        }
    }
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
    let frame = desk.next as usize & (MEMO_FRAMES - 1);
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

/// A hash of the words in these places. Unused places repeat the first return address.
#[inline(always)]
fn hash(window: &[u64; WORDS], slots: &[u8; MEMO_FRAMES]) -> u64 {
    // Lanes, so that the processor need not wait for one multiplication before it begins the next.
    let mut lanes = [1u64, 2, 3, 4];
    for (index, slot) in slots.iter().enumerate() {
        // Return addresses lie one above the other, so that only an unused place repeats the first.
        if index != 0 && index % HASHED_AT_ONCE == 0 && *slot == slots[0] {
            break;
        }
        let lane = &mut lanes[index % 4];
        *lane = lane.wrapping_add(window[*slot as usize & (WORDS - 1)]).wrapping_mul(FACTOR);
    }
    let [a, b, c, d] = lanes;
    a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47)
}
