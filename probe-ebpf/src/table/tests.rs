//! Steps by rows of each kind, and the search for a row.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::kept::{KEPT, base, in_pt_regs};

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

/// The frame pointer is saved so many words below the CFA; 0 if it is not.
fn fp_below(words: u8) -> Saved {
    if words == 0 { Saved::NOTHING } else { Saved(u64::from(Saved::HERE - words)) }
}

/// The frame pointer is saved where the frame pointer points.
const FP_AT_FP: Saved = Saved((base::RBP as u64) << 48 | Saved::HERE as u64);

fn rule_of(rule: u8, cfa_offset: i32, saved: Saved) -> Rule {
    Rule { row: Row { rule, cfa_offset, ..Row::default() }, saved }
}

fn step(rule: u8, cfa_offset: i32, words: u8, stack: &[u64]) -> Result<Registers, End> {
    step_from(START, rule, cfa_offset, fp_below(words), stack)
}

fn step_from(from: Registers, rule: u8, cfa_offset: i32, saved: Saved, words: &[u64]) -> Result<Registers, End> {
    let mut registers = from;
    let mut kept = Kept::FIRST;
    apply(rule_of(rule, cfa_offset, saved), 0, &mut registers, &mut kept, &mut Words(words.to_vec()))
        .map(|()| registers)
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
fn a_frame_pointer_that_is_lost_is_not_followed() {
    let lost = Saved::BY_FRAME_POINTER.with_place(0, Saved::UNKNOWN);
    let caller = step_from(START, rule::RSP, 16, lost, &[0x7777, 0x4100]).unwrap();
    assert_eq!((caller.pc, caller.sp), (0x4100, 0x7010));
    assert_eq!(step_from(caller, rule::RBP, 16, fp_below(2), &[0x7777, 0x4100]), Err(End::Inconsistent));
}

#[test]
fn a_leaf_at_the_very_end_of_its_memory_is_read() {
    assert_eq!(step(rule::RSP, 8, 0, &[0x4100]), Ok(Registers { pc: 0x4100, sp: 0x7008, fp: 0x7010 }));
}

#[test]
fn a_plt_stub_has_pushed_a_word_from_its_threshold_on() {
    let at =
        |pc| step_from(Registers { pc, ..START }, rule::PLT, 11, fp_below(0), &[0x4100, 0x4200]).map(|r| (r.pc, r.sp));
    assert_eq!(at(0x4000), Ok((0x4100, 0x7008)));
    assert_eq!(at(0x400a), Ok((0x4100, 0x7008)));
    assert_eq!(at(0x400b), Ok((0x4200, 0x7010)));
    assert_eq!(at(0x400f), Ok((0x4200, 0x7010)));
}

#[test]
fn an_aligned_stack_is_found_through_memory() {
    let stack = [0x7020, 0x7028, 0x7100, 0x4100, 0x4200];
    assert_eq!(
        step_from(START, rule::RBP_DEREF, -8 * 256, FP_AT_FP, &stack),
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
    assert_eq!(step_from(on_another, rule::OTHER_STACK, 16, fp_below(2), &[0x7020, 0x4100]), caller);
    assert_eq!(step_from(on_another, rule::RBP, 16, fp_below(2), &[0x7020, 0x4100]), Err(End::Inconsistent));
    for fp in [0, 8, 0x7001, u64::MAX - 7] {
        let lost = Registers { fp, ..on_another };
        assert_eq!(
            step_from(lost, rule::OTHER_STACK, 16, fp_below(2), &[0x7020, 0x4100]),
            Err(End::Inconsistent),
            "{fp:#x}"
        );
    }
}

#[test]
fn a_stack_that_does_not_grow_is_left() {
    for offset in [0, -8, i32::MIN] {
        assert_eq!(step(rule::RSP, offset, 0, &[0x4100, 0x4200]), Err(End::Inconsistent), "{offset}");
    }
    for fp in [0, 1, 0x6ff8, 0x7001, u64::MAX - 7] {
        let from = Registers { fp, ..START };
        assert_eq!(
            step_from(from, rule::RBP, 16, fp_below(2), &[0x7010, 0x4100, 1, 2]),
            Err(End::Inconsistent),
            "{fp:#x}"
        );
    }
    assert_eq!(step(rule::RSP_DEREF, 0, 0, &[0x7000, 0x4100]), Err(End::Inconsistent));
    assert_eq!(step(rule::RSP, 8, 0, &[u64::MAX]), Err(End::Inconsistent));
}

/// Registers of the first frame beside a stack.
struct Machine(Words, [u64; 16]);

impl Memory for Machine {
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        self.0.read_pair(address)
    }

    fn read_word(&mut self, address: u64) -> Option<u64> {
        self.0.read_word(address)
    }

    fn register(&mut self, register: u8) -> Option<u64> {
        Some(self.1[register as usize])
    }
}

/// The callers' pcs by some rules, one after the other.
fn walk(rules: &[Rule], stack: &[u64], registers: &[(u8, u64)]) -> (Vec<u64>, Result<By, End>) {
    let mut machine = Machine(Words(stack.to_vec()), [0x66; 16]);
    for &(register, value) in registers {
        machine.1[register as usize] = value;
    }
    let (mut at, mut kept, mut pcs, mut last) = (START, Kept::FIRST, Vec::new(), Ok(By::Table));
    for &rule in rules {
        last = super::step(rule, &mut at, &mut kept, &mut machine);
        if last.is_err() {
            break;
        }
        pcs.push(at.pc);
    }
    (pcs, last)
}

#[test]
fn a_return_address_in_a_register_is_found_where_registers_are_known() {
    let vfork = rule_of(rule::RETURN_ADDRESS_IN | register::RDI, 0, fp_below(0));
    let (pcs, last) = walk(&[vfork, rule_of(rule::RSP, 8, fp_below(0))], &[0x4200], &[(register::RDI, 0x4100)]);
    assert_eq!((pcs, last), (vec![0x4100, 0x4200], Ok(By::Table)));
    for lost in [1, u64::MAX] {
        assert_eq!(walk(&[vfork], &[0x4200], &[(register::RDI, lost)]).1, Err(End::Inconsistent));
    }
    let unknown = Registers { fp: 0, ..START };
    let mut at = unknown;
    let end = super::step(vfork, &mut at, &mut Kept::FIRST.clone(), &mut Words(vec![0x4200]));
    assert_eq!((end, at), (Err(End::UnsupportedReturnAddress), unknown));
}

#[test]
fn the_cfa_is_found_from_any_register_of_the_first_frame() {
    for register in (0..15).filter(|&register| register != register::RBP) {
        let known = [(register, 0x7008)];
        let stack = [0, 0, 0x4300, 0x7020, 0, 0x4500];
        let from = |kind: u8, operand| walk(&[rule_of(kind | register, operand, fp_below(0))], &stack, &known).0;
        assert_eq!(from(rule::REGISTER, 16), [0x4300], "{register}");
        assert_eq!(from(rule::DEREF, 16 << 8 | 16), [0x4500], "{register}");
        let (pcs, _) = walk(&[rule_of(rule::INDEXED | register, 8 << 8 | 16, fp_below(0))], &stack, &[(register, 2)]);
        assert_eq!(pcs, [0x4500], "{register}");
    }
}

#[test]
fn registers_that_functions_keep_are_known_where_they_were_saved() {
    let call = rule_of(rule::RSP, 16, fp_below(0));
    for (slot, register) in KEPT.into_iter().enumerate().skip(1) {
        let by = rule_of(rule::REGISTER | register, 8, fp_below(0));
        let saves =
            |place: u8, base: u8| Rule { saved: Saved(u64::from(place) << (8 * slot) | u64::from(base) << 56), ..call };
        let stack = [0x7020, 0x4100, 0x7020, 0x4200, 0x4300, 0x4400];
        let at_cfa = Saved::HERE - 2;
        let first = [(register, 0x7020)];
        // Not saved, in two frames; saved in the first one; then in the second one.
        assert_eq!(walk(&[call, call, by], &stack, &first).0, [0x4100, 0x4200, 0x4300]);
        assert_eq!(walk(&[saves(at_cfa, base::CFA), call, by], &stack, &[]).0, [0x4100, 0x4200, 0x4300]);
        assert_eq!(walk(&[call, saves(at_cfa, base::CFA), by], &stack, &[]).0, [0x4100, 0x4200, 0x4300]);
        // Counted from the stack and frame pointer, and from an aligned place: CFA 0x7010 less 8, rounded down.
        assert_eq!(walk(&[saves(Saved::HERE, base::RSP), by], &stack, &[]).0, [0x4100, 0x4300]);
        assert_eq!(walk(&[saves(Saved::HERE, base::RBP), by], &stack, &[]).0, [0x4100, 0x4300]);
        assert_eq!(walk(&[saves(Saved::HERE, base::ALIGNED_32), by], &stack, &[]).0, [0x4100, 0x4300]);
        assert_eq!(walk(&[saves(Saved::HERE, base::ALIGNED_64), by], &stack, &[]).0, [0x4100, 0x4300]);
        // Lost: by a rule, or by a frame that was guessed.
        let lost = saves(Saved::UNKNOWN, base::CFA);
        assert_eq!(walk(&[call, lost, by], &stack, &first), (vec![0x4100, 0x4200], Err(End::UnsupportedRegister)));
    }
}

#[test]
fn registers_that_functions_do_not_keep_are_known_after_one_call() {
    let by = rule_of(rule::REGISTER | 3, 8, fp_below(0));
    let call = rule_of(rule::RSP, 16, fp_below(0));
    let stack = [0, 0x4100, 0x7028, 0x4200, 0x4300, 0x4400];
    assert_eq!(walk(&[call, by], &stack, &[(3, 0x7020)]).0, [0x4100, 0x4300]);
    let unknown = Err(End::UnsupportedRegister);
    let far = [0, 0x4100, 0x1, 0x4200, 0x4300, 0x4400];
    assert_eq!(walk(&[call, call, by], &far, &[(3, 0x7020)]), (vec![0x4100, 0x4200], unknown));
}

#[test]
fn what_a_signal_interrupted_has_all_its_registers() {
    let mut context = vec![0; 40];
    (context[15], context[20], context[21]) = (0x6ff0, 0x70c0, 0x4321);
    (context[30], context[32]) = (0x4400, 0x4500);
    let signal = rule_of(rule::SIGNAL, 0, fp_below(0));
    for register in (0..15).filter(|&register| register != register::RBP) {
        context[5 + register as usize] = 0x70f0;
        let (pcs, last) = walk(&[signal, rule_of(rule::REGISTER | register, 8, fp_below(0))], &context, &[]);
        assert_eq!((pcs, last), (vec![0x4321, 0x4400], Ok(By::Table)), "{register}");
        context[5 + register as usize] = 0;
    }
}

#[test]
fn the_kernel_has_its_registers_in_another_order() {
    let order = [7, 6, 5, 4, 10, 11, 3, 2, 1, 0, 13, 14, 12, 9, 8];
    for (word, register) in order.into_iter().enumerate() {
        assert_eq!(in_pt_regs(register), 8 * word as u32, "{register}");
    }
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
    let mut kept = Kept::FIRST;
    let by = super::step(rule_of(rule, 0, Saved::NOTHING), &mut registers, &mut kept, &mut Words(words.to_vec()))?;
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
