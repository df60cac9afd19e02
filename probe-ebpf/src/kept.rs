//! What a walk knows of the registers beside the stack and frame pointer. The frame that was sampled, and one that a signal
//! interrupted, have all of them; a frame that has called has those that functions keep for their callers, wherever the
//! functions below it have saved them. Nothing is read before a row asks for it: a walk carries addresses.

use crate::unwind::Memory;

/// A register: its number in a signal's `ucontext` (`gregs`, arch/x86/include/uapi/asm/sigcontext.h).
#[expect(missing_docs, reason = "named as the processor names them")]
pub mod register {
    pub const R8: u8 = 0;
    pub const R12: u8 = 4;
    pub const R13: u8 = 5;
    pub const R14: u8 = 6;
    pub const R15: u8 = 7;
    pub const RDI: u8 = 8;
    pub const RSI: u8 = 9;
    pub const RBP: u8 = 10;
    pub const RBX: u8 = 11;
    pub const RDX: u8 = 12;
    pub const RAX: u8 = 13;
    pub const RCX: u8 = 14;
    pub const RSP: u8 = 15;
    pub const RIP: u8 = 16;
}

/// Offset of a register in a `ucontext` (arch/x86/include/uapi/asm/ucontext.h).
#[inline(always)]
pub const fn in_ucontext(register: u8) -> u64 {
    40 + 8 * register as u64
}

/// Offset of a register in the kernel's `pt_regs` (arch/x86/include/asm/ptrace.h); not for the stack pointer.
#[inline(always)]
pub const fn in_pt_regs(register: u8) -> u32 {
    // The word of each, from r8 on in the lowest digit.
    const WORDS: u64 = 0xfbac_54de_0123_6789;
    8 * (WORDS >> (4 * (register & 15)) & 15) as u32
}

/// Registers that functions keep for their callers, in the order of their places in [`Saved`].
pub const KEPT: [u8; 6] = [register::RBP, register::RBX, register::R12, register::R13, register::R14, register::R15];

/// Where a frame has saved the registers in [`KEPT`]: a byte for each, then a byte each for the [`base`] from which the
/// first and the others are counted. A place is in words from the base, plus [`Saved::HERE`]; 0 if the register still has
/// its value, [`Saved::UNKNOWN`] if it is lost.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Saved(pub u64);

/// What [`Saved`] counts from.
pub mod base {
    /// The CFA.
    pub const CFA: u8 = 0;
    /// The frame pointer.
    pub const RBP: u8 = 1;
    /// The stack pointer.
    pub const RSP: u8 = 2;
    /// CFA - 8, rounded down to 32: code that aligned its stack.
    pub const ALIGNED_32: u8 = 3;
    /// The same, to 64.
    pub const ALIGNED_64: u8 = 4;
}

impl Saved {
    /// Nothing is saved: the registers have the caller's values.
    pub const NOTHING: Self = Self(0);
    /// At the base.
    pub const HERE: u8 = 128;
    /// The caller's value is lost.
    pub const UNKNOWN: u8 = 255;
    /// Set in the code of runtimes that write return addresses themselves: an address there need not be behind a call.
    pub const RETURNS_ANYWHERE: Self = Self(1 << 63);
    /// What code does that keeps a frame pointer; of the others nothing is known.
    pub const BY_FRAME_POINTER: Self = Self(0xff_ffff_ff00 | (Self::HERE - 2) as u64);

    /// The place of a register of [`KEPT`].
    #[inline(always)]
    pub const fn place(self, slot: usize) -> u8 {
        (self.0 >> (8 * slot)) as u8
    }

    /// With another place for a register.
    pub const fn with_place(self, slot: usize, place: u8) -> Self {
        Self(self.0 & !(0xff << (8 * slot)) | (place as u64) << (8 * slot))
    }

    /// The base of the frame pointer's place, or of the others'.
    #[inline(always)]
    pub const fn base(self, is_of_others: bool) -> u8 {
        (self.0 >> if is_of_others { 56 } else { 48 }) as u8 & 0xf
    }

    /// True where [`Self::RETURNS_ANYWHERE`] is set.
    #[inline(always)]
    pub const fn returns_anywhere(self) -> bool {
        self.0 & Self::RETURNS_ANYWHERE.0 != 0
    }

    /// Any of the registers but the frame pointer is saved or lost.
    #[inline(always)]
    pub const fn has_others(self) -> bool {
        self.0 & 0xffff_ffff_ff00 != 0
    }
}

/// A frame while its caller is found.
#[derive(Clone, Copy)]
pub struct Frame {
    /// Its stack pointer.
    pub sp: u64,
    /// Its frame pointer.
    pub fp: u64,
    /// Its CFA.
    pub cfa: u64,
}

impl Frame {
    /// The address that places are counted from.
    #[inline(always)]
    fn base(&self, base: u8) -> u64 {
        match base {
            base::RBP => self.fp,
            base::RSP => self.sp,
            base::ALIGNED_32 => self.cfa.wrapping_sub(8) & !31,
            base::ALIGNED_64 => self.cfa.wrapping_sub(8) & !63,
            _ => self.cfa,
        }
    }

    /// The address of a place that is neither 0 nor [`Saved::UNKNOWN`].
    #[inline(always)]
    pub fn address(&self, base: u8, place: u8) -> u64 {
        at(self.base(base), place)
    }
}

#[inline(always)]
fn at(base: u64, place: u8) -> u64 {
    base.wrapping_add(8 * u64::from(place)).wrapping_sub(8 * u64::from(Saved::HERE))
}

/// Where the registers of the frame at hand are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Addresses of the registers in [`KEPT`] but the first; 0 if it is in the first frame's registers. The rest is unused.
    places: [u64; 8],
    /// Where all others are: 0 for the first frame's, the address of a `ucontext`, or [`LOST`].
    others: u64,
    /// Calls since all were known.
    calls: u64,
}

/// An address that nobody reads.
const LOST: u64 = 1 << 63;

impl Kept {
    /// Those of the first frame.
    pub const FIRST: Self = Self { places: [0; 8], others: 0, calls: 0 };

    /// As at the first frame.
    #[inline(always)]
    pub fn start(&mut self) {
        *self = Self::FIRST;
    }

    /// The content of a register; `None` if it is not known or cannot be read.
    #[inline(always)]
    pub fn value(&self, register: u8, memory: &mut impl Memory) -> Option<u64> {
        let place = match register {
            register::RBX => self.places[0],
            register::R12..=register::R15 => self.places[(register - register::R12 + 1) as usize & 7],
            _ if self.others == 0 => 0,
            _ => self.others.wrapping_add(in_ucontext(register)),
        };
        if place == 0 { memory.register(register) } else { memory.read_word(place) }
    }

    /// The frame is left for its caller.
    ///
    /// What functions do not keep is taken to be there still after one call: a row of the caller that counts on it says
    /// that what it calls does not change it, as parts of hand-written code that call each other agree.
    #[inline(always)]
    pub fn leave(&mut self, saved: Saved, frame: Frame) {
        if self.calls != 0 {
            self.others = LOST;
        }
        self.calls = 1;
        if !saved.has_others() {
            return;
        }
        let base = frame.base(saved.base(true));
        for (index, known) in self.places[..5].iter_mut().enumerate() {
            match saved.place(index + 1) {
                0 => {}
                Saved::UNKNOWN => *known = LOST,
                place => *known = at(base, place),
            }
        }
    }

    /// The frame is left for what a signal interrupted.
    #[inline(always)]
    pub fn interrupted(&mut self, ucontext: u64) {
        self.others = ucontext;
        self.calls = 0;
        self.places[0] = ucontext.wrapping_add(in_ucontext(register::RBX));
        for (index, known) in self.places[..5].iter_mut().enumerate().skip(1) {
            *known = ucontext.wrapping_add(in_ucontext(register::R12 - 1 + index as u8));
        }
    }
}
