//! Unwinding by table, for code that keeps no frame pointer: the rows that cross the kernel boundary, their search, and
//! the step by a row. Rows are made in user space from `.eh_frame`; what a rule means is said here only. x86-64.
//!
//! An executable's virtual address space is cut into pages of 64 KiB. Each [`Page`] names its rows within one dense
//! array, sorted by [`Row::pc`]; its first row covers its beginning, so a page is searched alone.

use crate::abi::assert_packed;
use crate::kept::{Frame, Kept, Saved, in_ucontext, register};
use crate::unwind::{End, Memory, Registers, USER_END, USER_START};

/// How to find the caller's registers for code addresses from `pc` up to the next row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    /// Lower 16 bits of the first address: the place within the page.
    pub pc: u16,
    /// How the CFA (canonical frame address: the stack pointer before the call) is found: one of [`rule`].
    pub rule: u8,
    /// Where the caller's registers are: the index of a [`Saved`] that stands in the table behind its pages. The first is
    /// [`Saved::NOTHING`].
    pub saved: u8,
    /// Operand of the rule.
    pub cfa_offset: i32,
}

/// [`Row::rule`]: added to the rule where no table of the file says it, but its instructions do.
pub const DERIVED: u8 = 1 << 7;

/// How a [`Row`] finds the CFA. The return address is at CFA - 8 in all but signal frames.
pub mod rule {
    /// There is no unwind information from here on. Zero, so that zeroed rows mean it.
    pub const NONE: u8 = 0;
    /// There is no caller: the return address is undefined.
    pub const END: u8 = 1;
    /// CFA = stack pointer + operand.
    pub const RSP: u8 = 2;
    /// CFA = frame pointer + operand.
    pub const RBP: u8 = 3;
    /// A stub of the procedure linkage table, 16 bytes long and aligned, which pushes a word halfway: CFA = stack
    /// pointer + 8, or + 16 when the place within the stub is at least the operand.
    pub const PLT: u8 = 4;
    /// The return of a signal handler: the interrupted registers are in the `ucontext` at the stack pointer.
    pub const SIGNAL: u8 = 5;
    /// CFA = the word at stack pointer + (operand >> 8), + (operand & 255): code that aligned its stack.
    pub const RSP_DEREF: u8 = 6;
    /// CFA = the word at frame pointer + (operand >> 8), + (operand & 255): code that aligned its stack.
    pub const RBP_DEREF: u8 = 7;
    /// CFA = frame pointer + operand, as [`RBP`], but on another stack, which may be anywhere: code that runs others on a
    /// stack of its runtime.
    pub const OTHER_STACK: u8 = 8;
    /// Not expressible: a DWARF expression of another shape.
    pub const UNSUPPORTED_EXPRESSION: u8 = 9;
    /// Not expressible: the CFA is based on a register other than the stack and frame pointer.
    pub const UNSUPPORTED_REGISTER: u8 = 10;
    /// Not expressible: an offset is too large.
    pub const UNSUPPORTED_OFFSET: u8 = 11;
    /// Not expressible: the return address is elsewhere than at CFA - 8.
    pub const UNSUPPORTED_RETURN_ADDRESS: u8 = 12;
    /// Not expressible: the frame pointer is saved in another register or out of reach.
    pub const UNSUPPORTED_FRAME_POINTER: u8 = 13;
    /// From here on the lower four bits are a register ([`register`]). CFA = register + operand.
    pub const REGISTER: u8 = 0x10;
    /// CFA = the word at register + (operand >> 8), + (operand & 255).
    pub const DEREF: u8 = 0x20;
    /// CFA = the word at stack pointer + 8 * register + (operand >> 8), + (operand & 255): code that keeps its caller's
    /// stack pointer above an array.
    pub const INDEXED: u8 = 0x30;
    /// The return address is in the register, the caller's stack pointer is stack pointer + operand: `vfork` takes it off
    /// the stack that it is about to share.
    pub const RETURN_ADDRESS_IN: u8 = 0x40;
    /// No rule has a higher number.
    pub const MOST: u8 = 0x4f;
}

impl Row {
    /// True if the row was derived from the instructions.
    #[inline(always)]
    pub fn is_derived(self) -> bool {
        self.rule & DERIVED != 0
    }

    /// The row without that mark: what it says.
    #[inline(always)]
    pub fn plain(self) -> Self {
        Self { rule: self.rule & !DERIVED, ..self }
    }

    /// True when the caller was interrupted rather than calling: its pc is the next instruction to run, to be looked up
    /// as it is. Every other caller's pc is a return address, to be looked up at the byte before.
    #[inline(always)]
    pub fn caller_was_interrupted(self) -> bool {
        self.rule == rule::SIGNAL
    }

    /// True if it says how to find the caller, or that there is none.
    #[inline(always)]
    pub fn is_followed(self) -> bool {
        self.rule.wrapping_sub(rule::END) <= rule::OTHER_STACK - rule::END || self.has_register()
    }

    /// True if it needs another register than the stack and frame pointer.
    #[inline(always)]
    pub fn has_register(self) -> bool {
        self.rule.wrapping_sub(rule::REGISTER) <= rule::MOST - rule::REGISTER
    }
}

/// Bits of an address within its page.
pub const PAGE_BITS: u32 = 16;

/// Rows travel and are searched in blocks of this many, a power of two: one map value.
pub const BLOCK_ROWS: usize = 128;

/// Rows `n * BLOCK_ROWS..` of the dense array.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// In the order of their addresses, page after page.
    pub rows: [Row; BLOCK_ROWS],
}

/// The rows of 64 KiB of virtual address space. They need not begin at the start of a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Index of the first, which has `pc` 0.
    pub first_row: u32,
    /// How many, at least one.
    pub row_count: u32,
}

assert_packed! {
    Row { pc, rule, saved, cfa_offset }
    Block { rows }
    Page { first_row, row_count }
}

/// The index, in `from..to`, of the last row with a `pc` of at most `pc`; `from` if there is none. Wants
/// `from < to` and `from < BLOCK_ROWS`; what goes on in later blocks is searched up to the end of this one.
///
/// It decides by the signs of differences, not by branches: the verifier follows both sides of each branch, and seven of
/// them in a row are a hundred paths.
#[inline(always)]
pub fn search_block(block: &Block, from: usize, to: usize, pc: u16) -> usize {
    let mut found = from as i32 & (BLOCK_ROWS as i32 - 1);
    let beyond = (to as i32).wrapping_sub(BLOCK_ROWS as i32);
    let to = (to as i32).wrapping_sub(beyond & !(beyond >> 31));
    // Strides of 64, 32, … 1: together they reach every row after the first.
    let mut stride = BLOCK_ROWS as i32 / 2;
    while stride > 0 {
        let next = found + stride;
        let row = i32::from(block.rows[next as usize & (BLOCK_ROWS - 1)].pc);
        found += stride & is_less(next, to) & !is_less(i32::from(pc), row);
        stride /= 2;
    }
    found as usize & (BLOCK_ROWS - 1)
}

/// All bits set if `a` is less than `b`, none otherwise; both are small.
#[inline(always)]
fn is_less(a: i32, b: i32) -> i32 {
    // The compiler must not turn it into a branch again.
    core::hint::black_box(a - b) >> 31
}

/// How a step was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By its row: the caller's pc is a return address.
    Table,
    /// By its row, out of a signal handler: the caller's pc is the next instruction to run, to be looked up as it is.
    Signal,
    /// By the frame pointer, because no row says how: a guess.
    FramePointer,
}

/// A row with what it refers to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// How the CFA is found.
    pub row: Row,
    /// Where [`Row::saved`] says the caller's registers are.
    pub saved: Saved,
}

impl Rule {
    /// True for code that is only returned to where it has called: not for that to which signal handlers return, and not where
    /// nothing is known.
    #[inline(always)]
    pub fn returns_behind_calls(self) -> bool {
        self.row.is_followed() && self.row.rule != rule::SIGNAL && !self.saved.returns_anywhere()
    }
}

/// What code does that keeps a frame pointer.
const KEEPS_FRAME_POINTER: Rule =
    Rule { row: Row { pc: 0, rule: rule::RBP, saved: 0, cfa_offset: 16 }, saved: Saved::BY_FRAME_POINTER };

/// Replaces a frame's registers by its caller's: as the rule for its pc says, or by the frame pointer where no rule says
/// anything (`Rule::default()`) that can be followed.
#[inline(always)]
pub fn step(rule: Rule, registers: &mut Registers, kept: &mut Kept, memory: &mut impl Memory) -> Result<By, End> {
    let row = rule.row;
    let value = if row.has_register() { kept.value(row.rule & 15, memory) } else { Some(0) };
    let is_guess = !row.is_followed() || value.is_none();
    let value = value.unwrap_or(0);
    if is_guess && registers.fp == 0 {
        return Err(if row.rule == rule::NONE { End::Root } else { end(row.rule) });
    }
    // One way for both: the verifier follows what comes next once only.
    let followed = if is_guess { KEEPS_FRAME_POINTER } else { rule };
    match apply(followed, value, registers, kept, memory) {
        Ok(()) if is_guess => Ok(By::FramePointer),
        Ok(()) if row.caller_was_interrupted() => Ok(By::Signal),
        Ok(()) => Ok(By::Table),
        Err(End::Inconsistent) if row.rule == rule::NONE => Err(End::NoFramePointer),
        Err(End::Inconsistent) if is_guess => Err(end(row.rule)),
        Err(end) => Err(end),
    }
}

/// Replaces a frame's registers by its caller's, as the rule for its pc says; or says why there is none. `value` is the
/// content of the register that the rule names.
///
/// Each frame must lie above the one it called, which ends loops. The exceptions are the step out of a signal handler, which
/// may have run on a stack of its own, and that between a runtime's stacks: the limit on frames ends those.
///
/// Rules differ in where words are, not in how they are read: a path of its own for each rule, with its own reads, is
/// more than the verifier can follow.
#[inline(always)]
fn apply(
    Rule { row, saved }: Rule,
    value: u64,
    registers: &mut Registers,
    kept: &mut Kept,
    memory: &mut impl Memory,
) -> Result<(), End> {
    let Registers { pc, sp, fp } = *registers;
    let operand = row.cfa_offset;
    let is_signal = row.rule == rule::SIGNAL;
    let kind = if row.has_register() { row.rule & 0xf0 } else { row.rule };
    let base = match kind {
        rule::RSP | rule::PLT | rule::SIGNAL | rule::RSP_DEREF | rule::RETURN_ADDRESS_IN => sp,
        rule::RBP | rule::RBP_DEREF if fp & 7 != 0 || fp < sp || fp >= USER_END => return Err(End::Inconsistent),
        rule::OTHER_STACK if fp & 7 != 0 || !(USER_START..USER_END).contains(&fp) => return Err(End::Inconsistent),
        rule::RBP | rule::RBP_DEREF | rule::OTHER_STACK => fp,
        rule::REGISTER | rule::DEREF => value,
        rule::INDEXED => sp.wrapping_add(value.wrapping_mul(8)),
        other => return Err(end(other)),
    };
    let cfa = match kind {
        rule::RSP | rule::RBP | rule::OTHER_STACK | rule::REGISTER | rule::RETURN_ADDRESS_IN => {
            base.wrapping_add(operand as u64)
        }
        rule::PLT => base.wrapping_add(if pc & 15 >= operand as u64 { 16 } else { 8 }),
        _ => {
            let (offset, added) =
                if is_signal { (in_ucontext(register::RSP), 0) } else { ((operand >> 8) as u64, operand & 255) };
            memory.read_word(base.wrapping_add(offset)).ok_or(End::Unreadable)?.wrapping_add(added as u64)
        }
    };
    let is_in_register = kind == rule::RETURN_ADDRESS_IN;
    let least = if is_in_register { sp } else { sp.wrapping_add(1) };
    if (cfa < least && !is_signal && row.rule != rule::OTHER_STACK) || cfa >= USER_END {
        return Err(End::Inconsistent);
    }
    let frame = Frame { sp, fp, cfa };
    let (saved_fp, return_address) = if is_signal {
        (sp.wrapping_add(in_ucontext(register::RBP)), sp.wrapping_add(in_ucontext(register::RIP)))
    } else {
        (frame.address(saved.base(false), saved.place(0)), cfa.wrapping_sub(8))
    };
    let caller_fp = match saved.place(0) {
        0 if !is_signal => fp,
        Saved::UNKNOWN if !is_signal => NO_FRAME,
        _ => memory.read_word(saved_fp).ok_or(End::Unreadable)?,
    };
    let caller_pc = match is_in_register {
        true => value,
        false => memory.read_word(return_address).ok_or(End::Unreadable)?,
    };
    if caller_pc == 0 {
        return Err(End::Root);
    }
    if !(USER_START..USER_END).contains(&caller_pc) {
        return Err(End::Inconsistent);
    }
    if is_signal {
        kept.interrupted(sp);
    } else {
        kept.leave(saved, frame);
    }
    *registers = Registers { pc: caller_pc, sp: cfa, fp: caller_fp };
    Ok(())
}

/// A frame pointer that is lost: no frame is there, and none is looked for.
const NO_FRAME: u64 = 1;

/// The end of a stack at a row that leads to no caller.
#[inline(always)]
fn end(rule: u8) -> End {
    match rule {
        rule::END => End::Root,
        rule::UNSUPPORTED_EXPRESSION => End::UnsupportedExpression,
        rule::UNSUPPORTED_REGISTER | rule::REGISTER..rule::RETURN_ADDRESS_IN => End::UnsupportedRegister,
        rule::UNSUPPORTED_OFFSET => End::UnsupportedOffset,
        rule::UNSUPPORTED_RETURN_ADDRESS | rule::RETURN_ADDRESS_IN..=rule::MOST => End::UnsupportedReturnAddress,
        rule::UNSUPPORTED_FRAME_POINTER => End::UnsupportedFramePointer,
        _ => End::NoUnwindInfo,
    }
}

#[cfg(test)]
mod tests;
