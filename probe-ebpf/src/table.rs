//! Unwinding by table, for code that keeps no frame pointer: the rows that cross the kernel boundary, their search, and
//! the step by a row. Rows are made in user space from `.eh_frame`; what a rule means is said here only. x86-64.
//!
//! An executable's virtual address space is cut into pages of 64 KiB. Each [`Page`] names its rows within one dense
//! array, sorted by [`Row::pc`]; its first row covers its beginning, so a page is searched alone.

use crate::abi::assert_packed;
use crate::unwind::{End, Memory, Registers, USER_END, USER_START};

/// How to find the caller's registers for code addresses from `pc` up to the next row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    /// Lower 16 bits of the first address: the place within the page.
    pub pc: u16,
    /// How the CFA (canonical frame address: the stack pointer before the call) is found: one of [`rule`].
    pub rule: u8,
    /// Where the caller's frame pointer is: 0 if it still is in its register, [`FP_AT_FP`] if where the frame pointer
    /// points, else n for CFA - 8 * n.
    pub fp: u8,
    /// Operand of the rule.
    pub cfa_offset: i32,
}

/// [`Row::fp`]: the caller's frame pointer is saved where this frame's points.
pub const FP_AT_FP: u8 = u8::MAX;

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
    /// The return address is in `rdi`, the caller's stack pointer is stack pointer + operand: `vfork` takes it off the stack
    /// that it is about to share. Only in the first frame of a stack are the registers known.
    pub const RETURN_ADDRESS_IN_RDI: u8 = 14;
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
    Row { pc, rule, fp, cfa_offset }
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

/// What code does that keeps a frame pointer.
const KEEPS_FRAME_POINTER: Row = Row { pc: 0, rule: rule::RBP, fp: 2, cfa_offset: 16 };

/// Replaces a frame's registers by its caller's: as the row for its pc says, or by the frame pointer where no row says
/// anything (`Row::default()`) that can be followed.
#[inline(always)]
pub fn step(row: Row, registers: &mut Registers, memory: &mut impl Memory) -> Result<By, End> {
    let is_guess = row.rule.wrapping_sub(rule::END) > rule::OTHER_STACK - rule::END;
    if is_guess && registers.fp == 0 {
        return Err(if row.rule == rule::NONE { End::Root } else { end(row.rule) });
    }
    // One way for both: the verifier follows what comes next once only.
    match apply(if is_guess { KEEPS_FRAME_POINTER } else { row }, registers, memory) {
        Ok(()) if is_guess => Ok(By::FramePointer),
        Ok(()) if row.caller_was_interrupted() => Ok(By::Signal),
        Ok(()) => Ok(By::Table),
        Err(End::Inconsistent) if row.rule == rule::NONE => Err(End::NoFramePointer),
        Err(End::Inconsistent) if is_guess => Err(end(row.rule)),
        Err(end) => Err(end),
    }
}

/// The caller's registers where the row says that the return address is in `rdi`, of which this is the content.
#[inline(always)]
pub fn by_rdi(row: Row, registers: Registers, rdi: u64) -> Option<Registers> {
    let is_so = row.rule == rule::RETURN_ADDRESS_IN_RDI && (USER_START..USER_END).contains(&rdi);
    is_so.then(|| Registers { pc: rdi, sp: registers.sp.wrapping_add(row.cfa_offset as u64), ..registers })
}

/// Replaces a frame's registers by its caller's, as the row for its pc says; or says why there is none.
///
/// Each frame must lie above the one it called, which ends loops. The exceptions are the step out of a signal handler, which
/// may have run on a stack of its own, and that between a runtime's stacks: the limit on frames ends those.
///
/// Rules differ in where words are, not in how they are read: a path of its own for each rule, with its own reads, is
/// more than the verifier can follow.
#[inline(always)]
pub fn apply(row: Row, registers: &mut Registers, memory: &mut impl Memory) -> Result<(), End> {
    let Registers { pc, sp, fp } = *registers;
    let operand = row.cfa_offset;
    let base = match row.rule {
        rule::RSP | rule::PLT | rule::SIGNAL | rule::RSP_DEREF => sp,
        rule::RBP | rule::RBP_DEREF if fp & 7 != 0 || fp < sp || fp >= USER_END => return Err(End::Inconsistent),
        rule::OTHER_STACK if fp & 7 != 0 || !(USER_START..USER_END).contains(&fp) => return Err(End::Inconsistent),
        rule::RBP | rule::RBP_DEREF | rule::OTHER_STACK => fp,
        other => return Err(end(other)),
    };
    let is_signal = row.rule == rule::SIGNAL;
    let cfa = match row.rule {
        rule::RSP | rule::RBP | rule::OTHER_STACK => base.wrapping_add(operand as u64),
        rule::PLT => base.wrapping_add(if pc & 15 >= operand as u64 { 16 } else { 8 }),
        _ => {
            let (offset, added) = if is_signal { (ucontext::RSP, 0) } else { ((operand >> 8) as u64, operand & 255) };
            memory.read_word(base.wrapping_add(offset)).ok_or(End::Unreadable)?.wrapping_add(added as u64)
        }
    };
    if (cfa <= sp && !is_signal && row.rule != rule::OTHER_STACK) || cfa >= USER_END {
        return Err(End::Inconsistent);
    }
    let (saved_fp, return_address) = match row.fp {
        _ if is_signal => (sp.wrapping_add(ucontext::RBP), sp.wrapping_add(ucontext::RIP)),
        FP_AT_FP => (fp, cfa.wrapping_sub(8)),
        words => (cfa.wrapping_sub(8 * u64::from(words)), cfa.wrapping_sub(8)),
    };
    let caller_fp = match row.fp {
        0 if !is_signal => fp,
        _ => memory.read_word(saved_fp).ok_or(End::Unreadable)?,
    };
    let caller_pc = memory.read_word(return_address).ok_or(End::Unreadable)?;
    if caller_pc == 0 {
        return Err(End::Root);
    }
    if !(USER_START..USER_END).contains(&caller_pc) {
        return Err(End::Inconsistent);
    }
    *registers = Registers { pc: caller_pc, sp: cfa, fp: caller_fp };
    Ok(())
}

/// Offsets in `struct ucontext` (arch/x86/include/uapi/asm/{ucontext,sigcontext}.h) of the interrupted registers.
mod ucontext {
    pub const RBP: u64 = 120;
    pub const RSP: u64 = 160;
    pub const RIP: u64 = 168;
}

/// The end of a stack at a row that leads to no caller.
#[inline(always)]
fn end(rule: u8) -> End {
    match rule {
        rule::END => End::Root,
        rule::UNSUPPORTED_EXPRESSION => End::UnsupportedExpression,
        rule::UNSUPPORTED_REGISTER => End::UnsupportedRegister,
        rule::UNSUPPORTED_OFFSET => End::UnsupportedOffset,
        rule::UNSUPPORTED_RETURN_ADDRESS | rule::RETURN_ADDRESS_IN_RDI => End::UnsupportedReturnAddress,
        rule::UNSUPPORTED_FRAME_POINTER => End::UnsupportedFramePointer,
        _ => End::NoUnwindInfo,
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// A stack at address 0x7000, as words.
    struct Words(Vec<u64>);

    impl Memory for Words {
        fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
            Some([self.read_word(address)?, self.read_word(address + 8)?])
        }

        fn read_word(&mut self, address: u64) -> Option<u64> {
            self.0.get((address.checked_sub(0x7000)? / 8) as usize).copied()
        }
    }

    const START: Registers = Registers { pc: 0x4000, sp: 0x7000, fp: 0x7010 };

    fn step(rule: u8, cfa_offset: i32, fp: u8, words: &[u64]) -> Result<Registers, End> {
        step_from(START, rule, cfa_offset, fp, words)
    }

    fn step_from(from: Registers, rule: u8, cfa_offset: i32, fp: u8, words: &[u64]) -> Result<Registers, End> {
        let mut registers = from;
        apply(Row { pc: 0, rule, fp, cfa_offset }, &mut registers, &mut Words(words.to_vec())).map(|()| registers)
    }

    #[test]
    fn the_cfa_is_found_from_either_register() {
        let stack = [0x7777, 0x4100, 0x7100, 0x4200];
        assert_eq!(step(rule::RSP, 16, 0, &stack), Ok(Registers { pc: 0x4100, sp: 0x7010, fp: 0x7010 }));
        assert_eq!(step(rule::RSP, 16, 2, &stack), Ok(Registers { pc: 0x4100, sp: 0x7010, fp: 0x7777 }));
        assert_eq!(step(rule::RSP, 32, 4, &stack), Ok(Registers { pc: 0x4200, sp: 0x7020, fp: 0x7777 }));
        assert_eq!(step(rule::RBP, 16, 2, &stack), Ok(Registers { pc: 0x4200, sp: 0x7020, fp: 0x7100 }));
    }

    #[test]
    fn a_leaf_at_the_very_end_of_its_memory_is_read() {
        assert_eq!(step(rule::RSP, 8, 0, &[0x4100]), Ok(Registers { pc: 0x4100, sp: 0x7008, fp: 0x7010 }));
    }

    #[test]
    fn a_plt_stub_has_pushed_a_word_from_its_threshold_on() {
        let at = |pc| step_from(Registers { pc, ..START }, rule::PLT, 11, 0, &[0x4100, 0x4200]).map(|r| (r.pc, r.sp));
        assert_eq!(at(0x4000), Ok((0x4100, 0x7008)));
        assert_eq!(at(0x400a), Ok((0x4100, 0x7008)));
        assert_eq!(at(0x400b), Ok((0x4200, 0x7010)));
        assert_eq!(at(0x400f), Ok((0x4200, 0x7010)));
    }

    #[test]
    fn an_aligned_stack_is_found_through_memory() {
        let stack = [0x7020, 0x7028, 0x7100, 0x4100, 0x4200];
        assert_eq!(
            step(rule::RBP_DEREF, -8 * 256, FP_AT_FP, &stack),
            Ok(Registers { pc: 0x4200, sp: 0x7028, fp: 0x7100 })
        );
        assert_eq!(step(rule::RSP_DEREF, 8, 0, &stack), Ok(Registers { pc: 0x4200, sp: 0x7028, fp: 0x7010 }));
        assert_eq!(step(rule::RSP_DEREF, 0, 0, &stack), Ok(Registers { pc: 0x4100, sp: 0x7020, fp: 0x7010 }));
    }

    #[test]
    fn a_signal_frame_gives_the_interrupted_registers_on_whatever_stack() {
        let mut context = vec![0; 22];
        (context[15], context[20], context[21]) = (0x6ff0, 0x6f00, 0x4321);
        assert_eq!(step(rule::SIGNAL, 0, 0, &context), Ok(Registers { pc: 0x4321, sp: 0x6f00, fp: 0x6ff0 }));
        assert_eq!(step(rule::SIGNAL, 0, 0, &context[..21]), Err(End::Unreadable));
        context[20] = u64::MAX;
        assert_eq!(step(rule::SIGNAL, 0, 0, &context), Err(End::Inconsistent));
        assert!(Row { rule: rule::SIGNAL, ..Row::default() }.caller_was_interrupted());
    }

    #[test]
    fn a_runtime_may_have_changed_stacks() {
        let on_another = Registers { pc: 0x4000, sp: 0x9000, fp: 0x7000 };
        let caller = Ok(Registers { pc: 0x4100, sp: 0x7010, fp: 0x7020 });
        assert_eq!(step_from(on_another, rule::OTHER_STACK, 16, 2, &[0x7020, 0x4100]), caller);
        assert_eq!(step_from(on_another, rule::RBP, 16, 2, &[0x7020, 0x4100]), Err(End::Inconsistent));
        for fp in [0, 8, 0x7001, u64::MAX - 7] {
            let lost = Registers { fp, ..on_another };
            assert_eq!(step_from(lost, rule::OTHER_STACK, 16, 2, &[0x7020, 0x4100]), Err(End::Inconsistent), "{fp:#x}");
        }
    }

    #[test]
    fn a_stack_that_does_not_grow_is_left() {
        for offset in [0, -8, i32::MIN] {
            assert_eq!(step(rule::RSP, offset, 0, &[0x4100, 0x4200]), Err(End::Inconsistent), "{offset}");
        }
        for fp in [0, 1, 0x6ff8, 0x7001, u64::MAX - 7] {
            let from = Registers { fp, ..START };
            assert_eq!(step_from(from, rule::RBP, 16, 2, &[0x7010, 0x4100, 1, 2]), Err(End::Inconsistent), "{fp:#x}");
        }
        assert_eq!(step(rule::RSP_DEREF, 0, 0, &[0x7000, 0x4100]), Err(End::Inconsistent));
        assert_eq!(step(rule::RSP, 8, 0, &[u64::MAX]), Err(End::Inconsistent));
    }

    #[test]
    fn a_return_address_in_a_register_is_found_where_registers_are_known() {
        let row = Row { rule: rule::RETURN_ADDRESS_IN_RDI, cfa_offset: 8, ..Row::default() };
        assert_eq!(by_rdi(row, START, 0x4100), Some(Registers { pc: 0x4100, sp: 0x7008, fp: 0x7010 }));
        assert_eq!((by_rdi(row, START, 0), by_rdi(row, START, u64::MAX)), (None, None));
        assert_eq!(by_rdi(Row { rule: rule::RSP, ..row }, START, 0x4100), None);
        assert_eq!(step(rule::RETURN_ADDRESS_IN_RDI, 0, 0, &[]), Err(End::UnsupportedReturnAddress));
    }

    #[test]
    fn a_stack_ends_for_a_reason() {
        assert_eq!(step(rule::END, 0, 0, &[]), Err(End::Root));
        assert_eq!(step(rule::RSP, 8, 0, &[0]), Err(End::Root));
        assert_eq!(step(rule::RSP, 8, 0, &[]), Err(End::Unreadable));
        assert_eq!(step(rule::NONE, 0, 0, &[]), Err(End::NoUnwindInfo));
        assert_eq!(step(200, 0, 0, &[]), Err(End::NoUnwindInfo));
        assert_eq!(step(rule::UNSUPPORTED_EXPRESSION, 0, 0, &[]), Err(End::UnsupportedExpression));
        assert_eq!(step(rule::UNSUPPORTED_REGISTER, 0, 0, &[]), Err(End::UnsupportedRegister));
        assert_eq!(step(rule::UNSUPPORTED_OFFSET, 0, 0, &[]), Err(End::UnsupportedOffset));
        assert_eq!(step(rule::UNSUPPORTED_RETURN_ADDRESS, 0, 0, &[]), Err(End::UnsupportedReturnAddress));
        assert_eq!(step(rule::UNSUPPORTED_FRAME_POINTER, 0, 0, &[]), Err(End::UnsupportedFramePointer));
    }

    fn guess(rule: u8, words: &[u64], fp: u64) -> Result<(Registers, By), End> {
        let mut registers = Registers { fp, ..START };
        let by = super::step(Row { rule, ..Row::default() }, &mut registers, &mut Words(words.to_vec()))?;
        Ok((registers, by))
    }

    #[test]
    fn where_no_row_helps_the_frame_pointer_is_followed() {
        let caller = (Registers { pc: 0x4100, sp: 0x7010, fp: 0x7020 }, By::FramePointer);
        for rule in [rule::NONE, rule::UNSUPPORTED_EXPRESSION, 200] {
            assert_eq!(guess(rule, &[0x7020, 0x4100], 0x7000), Ok(caller));
            assert_eq!(guess(rule, &[0x7020, 0], 0x7000), Err(End::Root));
            assert_eq!(guess(rule, &[0x7020, 0x4100], 0x9000), Err(End::Unreadable));
        }
        assert_eq!(guess(rule::NONE, &[0x7020, 0x4100], 0), Err(End::Root), "so do frame pointers");
        assert_eq!(guess(rule::UNSUPPORTED_OFFSET, &[0x7020, 0x4100], 0), Err(End::UnsupportedOffset));
        for fp in [1, 0x7004, 0x6ff8, u64::MAX - 7] {
            assert_eq!(guess(rule::NONE, &[0, 0x4100], fp), Err(End::NoFramePointer), "{fp:#x}");
            assert_eq!(guess(rule::UNSUPPORTED_OFFSET, &[0, 0x4100], fp), Err(End::UnsupportedOffset), "{fp:#x}");
        }
        assert_eq!(guess(rule::NONE, &[0x7010, u64::MAX], 0x7000), Err(End::NoFramePointer));
        assert_eq!(guess(rule::END, &[0x7010, 0x4100], 0x7000), Err(End::Root), "a row that says so ends a stack");
    }

    #[test]
    fn every_part_of_a_block_is_searched() {
        let mut block = Block { rows: [Row::default(); BLOCK_ROWS] };
        for (index, row) in block.rows.iter_mut().enumerate() {
            row.pc = 10 * index as u16;
        }
        for from in 0..BLOCK_ROWS {
            for to in from + 1..=BLOCK_ROWS {
                for pc in [0, 9, 10, 11, 500, 635, 640, 641, 1269, 1270, u16::MAX] {
                    let naive = (from..to).rev().find(|&i| block.rows[i].pc <= pc).unwrap_or(from);
                    assert_eq!(search_block(&block, from, to, pc), naive, "{from}..{to} {pc}");
                }
            }
        }
        for (from, to) in [(0, 0), (500, 3), (7, usize::MAX), (usize::MAX, usize::MAX)] {
            assert!(search_block(&block, from, to, 600) < BLOCK_ROWS);
        }
    }

    #[test]
    fn a_page_that_begins_within_a_block_and_goes_on_behind_it_is_searched_up_to_its_end() {
        // What stands before the page are numbers of other kinds, with a `pc` of 0 as if they were the first.
        for from in 0..BLOCK_ROWS {
            let mut block = Block { rows: [Row::default(); BLOCK_ROWS] };
            for (at, row) in block.rows.iter_mut().enumerate().skip(from) {
                row.pc = at as u16;
            }
            for at in from..BLOCK_ROWS {
                assert_eq!(search_block(&block, from, 3 * BLOCK_ROWS, at as u16), at, "from {from}");
            }
        }
    }
}
