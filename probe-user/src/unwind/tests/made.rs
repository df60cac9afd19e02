//! Files made byte by byte, for one purpose each.

use probe_ebpf::kept::register;

use super::*;

/// Where the made files have their code: a page and a half before, a page and a half behind a page's boundary.
const CODE: u64 = 0x1_8000;
const CODE_END: u64 = 0x4_8000;
/// Where they have their `.eh_frame`.
const FRAMES: u64 = 0x10_0000;

/// A common entry without augmentation: CFA = rsp + 8, return address at CFA - 8, then `more`.
fn cie(more: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1];
    body.extend(more);
    entry(body)
}

/// A function's entry, placed `at` in a section whose common entry is at `cie`.
fn fde(at: usize, cie: usize, start: u64, end: u64, instructions: &[u8]) -> Vec<u8> {
    let mut body = ((at + 4 - cie) as u32).to_le_bytes().to_vec();
    body.extend(start.to_le_bytes());
    body.extend((end - start).to_le_bytes());
    body.extend(instructions);
    entry(body)
}

fn entry(mut body: Vec<u8>) -> Vec<u8> {
    body.resize(body.len().next_multiple_of(8) + 4, 0);
    let mut entry = (body.len() as u32).to_le_bytes().to_vec();
    entry.extend(body);
    entry
}

/// A section of one common entry and functions.
fn frames(more: &[u8], functions: &[(u64, u64, &[u8])]) -> Vec<u8> {
    let mut section = cie(more);
    for (start, end, instructions) in functions {
        section.extend(fde(section.len(), 0, *start, *end, instructions));
    }
    section
}

/// An ELF file without sections: code (of which there is no byte), `.eh_frame_hdr` and `.eh_frame`.
fn elf(code: Range<u64>, section: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 3 * 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [3u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [0u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 3, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let size = section.len() as u64 + 16;
    let mut segment = |kind: u32, flags: u32, offset: u64, address: u64, size: u64, memory: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [offset, address, address, size, memory, 8] {
            file.extend(word.to_le_bytes());
        }
    };
    segment(1, 5, 0, code.start, 0, code.end - code.start);
    segment(1, 4, HEADERS, FRAMES - 16, size, size);
    segment(0x6474_e550, 4, HEADERS, FRAMES - 16, 16, 16);
    // Version, an absolute pointer of 8 bytes, no count, no table.
    file.extend([1, 4, 0xff, 0xff]);
    file.extend(FRAMES.to_le_bytes());
    file.extend([0; 4]);
    file.extend(section);
    file
}

fn table(functions: &[(u64, u64, &[u8])]) -> Table {
    Table::build(&*elf(CODE..CODE_END, &frames(&[], functions))).unwrap()
}

/// [`at`] where the frame pointer is saved where it points.
const FP_AT_FP: u8 = u8::MAX;

/// Rule, operand of an address, and in how many words below the CFA the frame pointer is saved.
fn at(table: &Table, address: u64) -> (u8, i32, u8) {
    let Rule { row, saved } = table.rule(address).unwrap();
    let fp = match (saved.base(false), saved.place(0)) {
        (base::CFA, 0) => 0,
        (base::CFA, place) => Saved::HERE - place,
        (base::RBP, Saved::HERE) => FP_AT_FP,
        other => panic!("{other:?}"),
    };
    (row.rule, row.cfa_offset, fp)
}

const LEAF: (u8, i32, u8) = (rule::RSP, 8, 0);
const NOTHING: (u8, i32, u8) = (rule::NONE, 0, 0);

#[test]
fn a_function_with_a_frame_pointer() {
    // After 1 byte CFA + 16 and rbp at CFA - 16, after 4 the CFA is based on rbp, at the end on rsp again.
    let function = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x5c, 0x0c, 7, 8, 0xc6];
    let table = table(&[(CODE, CODE + 0x30, &function)]);
    assert_eq!(at(&table, CODE), LEAF);
    assert_eq!(at(&table, CODE + 1), (rule::RSP, 16, 2));
    assert_eq!(at(&table, CODE + 3), (rule::RSP, 16, 2));
    assert_eq!(at(&table, CODE + 4), (rule::RBP, 16, 2));
    assert_eq!(at(&table, CODE + 31), (rule::RBP, 16, 2));
    assert_eq!(at(&table, CODE + 32), LEAF);
    assert_eq!(at(&table, CODE + 0x30), NOTHING);
}

#[test]
fn states_are_remembered_and_restored() {
    let function = [0x44, 0x0e, 32, 0x0a, 0x44, 0x0e, 8, 0x44, 0x0b];
    let table = table(&[(CODE, CODE + 64, &function)]);
    let offsets: Vec<_> = [0, 4, 8, 12].map(|offset| at(&table, CODE + offset).1).to_vec();
    assert_eq!(offsets, [8, 32, 8, 32]);
}

#[test]
fn gaps_are_marked_but_padding_is_not() {
    let table =
        table(&[(CODE + 0x40, CODE + 0x49, &[]), (CODE + 0x50, CODE + 0x60, &[]), (CODE + 0x80, CODE + 0x90, &[])]);
    assert_eq!(at(&table, CODE + 0x3f), NOTHING);
    assert_eq!([0x40, 0x48, 0x4f, 0x50, 0x5f].map(|offset| at(&table, CODE + offset)), [LEAF; 5]);
    assert_eq!(at(&table, CODE + 0x60), NOTHING);
    assert_eq!(at(&table, CODE + 0x80), LEAF);
    assert_eq!(at(&table, CODE + 0x90), NOTHING);
    assert_eq!(at(&table, CODE_END - 1), NOTHING);
    // NONE, the two merged, NONE, the third, NONE; then the other pages.
    assert_eq!(table.pages.iter().map(|page| page.row_count).collect::<Vec<_>>(), [5, 1, 1, 1]);
}

#[test]
fn a_rule_is_repeated_where_a_page_begins() {
    let table = table(&[(CODE + 8, 0x3_0000, &[0x41, 0x0e, 24]), (0x3_0000, 0x3_0100, &[0x41, 0x0e, 24])]);
    assert_eq!(table.first_page, 1);
    assert_eq!(at(&table, 0x1_ffff), (rule::RSP, 24, 0));
    assert_eq!(at(&table, 0x2_0000), (rule::RSP, 24, 0));
    assert_eq!(table.pages[1].row_count, 1);
    assert_eq!(at(&table, 0x3_0000), LEAF);
    assert_eq!(table.pages[2].row_count, 3);
    assert_eq!(at(&table, 0x4_0000), NOTHING);
    assert_eq!(table.lookup(0x5_0000), None);
    assert_eq!(table.lookup(0xffff), None);
}

#[test]
fn functions_in_any_order_and_on_top_of_each_other() {
    let wide = [0x0e, 40, 0x02, 0x20, 0x0e, 48];
    let table = table(&[
        (CODE + 0x100, CODE + 0x140, &wide),
        (CODE, CODE + 0x110, &[0x0e, 16]),
        (CODE + 0x20, CODE + 0x30, &[0x0e, 24]),
        (CODE + 0x100, CODE + 0x160, &[0x0e, 56]),
        // Dropped by the linker, without length, outside of the code, and over its end.
        (0, 0x50, &[0x0e, 64]),
        (CODE + 0x10, CODE + 0x10, &[0x0e, 64]),
        (CODE_END, CODE_END + 0x10, &[0x0e, 64]),
        (CODE_END - 0x10, CODE_END + 0x10, &[0x0e, 72]),
    ]);
    let offsets = [0, 0x20, 0x30, 0x10f, 0x110, 0x11f, 0x120, 0x13f, 0x140, 0x15f].map(|o| at(&table, CODE + o).1);
    assert_eq!(offsets, [16, 16, 16, 16, 40, 40, 48, 48, 56, 56]);
    assert_eq!(at(&table, CODE + 0x160), NOTHING);
    assert_eq!(at(&table, CODE_END - 1), (rule::RSP, 72, 0));
    assert_eq!(table.unreadable_entries, 0);
}

/// The rule that some instructions lead to.
fn rule_of(instructions: &[u8]) -> (u8, i32, u8) {
    at(&table(&[(CODE, CODE + 16, instructions)]), CODE)
}

#[test]
fn linkage_tables_of_each_make() {
    for threshold in [5, 9, 10, 11] {
        let plt = [0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + threshold, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(rule_of(&plt), (rule::PLT, i32::from(threshold), 0));
    }
}

#[test]
fn aligned_stacks() {
    // *(rbp - 8), rbp saved at rbp.
    assert_eq!(rule_of(&[0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0]), (rule::RBP_DEREF, -8 * 256, FP_AT_FP));
    // *(rsp + 40) + 8, rbp at CFA - 24.
    assert_eq!(rule_of(&[0x0f, 5, 0x77, 40, 0x06, 0x23, 8, 0x86, 3]), (rule::RSP_DEREF, 40 * 256 + 8, 3));
    assert_eq!(rule_of(&[0x0f, 5, 0x77, 0x78, 0x06, 0x23, 8]), (rule::RSP_DEREF, -8 * 256 + 8, 0));
}

#[test]
fn a_signal_frame() {
    let cfa = [0x0f, 4, 0x77, 0xa0, 0x01, 0x06];
    let saved = [0x10, 16, 3, 0x77, 0xa8, 0x01, 0x10, 6, 3, 0x77, 0xf8, 0];
    assert_eq!(rule_of(&[cfa.as_slice(), &saved].concat()), (rule::SIGNAL, 0, 0));
    // Other places are not a `ucontext`.
    let elsewhere = [0x10, 16, 3, 0x77, 0xb0, 0x01, 0x10, 6, 3, 0x77, 0xf8, 0];
    assert_eq!(rule_of(&[cfa.as_slice(), &elsewhere].concat()).0, rule::UNSUPPORTED_RETURN_ADDRESS);
}

#[test]
fn an_undefined_return_address_is_the_end() {
    assert_eq!(rule_of(&[0x07, 16]), (rule::END, 0, 0));
}

#[test]
fn a_return_address_may_be_in_a_register() {
    // As `vfork` has it, and `setjmp`.
    assert_eq!(rule_of(&[0x0e, 0, 0x09, 16, 5]), (rule::RETURN_ADDRESS_IN | register::RDI, 0, 0));
    assert_eq!(rule_of(&[0x0e, 8, 0x09, 16, 1]), (rule::RETURN_ADDRESS_IN | register::RDX, 8, 0));
    assert_eq!(rule_of(&[0x0d, 6, 0x09, 16, 3]).0, rule::UNSUPPORTED_RETURN_ADDRESS);
    assert_eq!(rule_of(&[0x09, 16, 17]).0, rule::UNSUPPORTED_RETURN_ADDRESS);
}

#[test]
fn frames_are_based_on_any_register() {
    let numbers = [register::RAX, register::RDX, register::RCX, register::RBX, register::RSI, register::RDI];
    let numbers = numbers.into_iter().enumerate().chain((8..16).zip(register::R8..));
    for (dwarf, number) in numbers {
        let dwarf = dwarf as u8;
        assert_eq!(rule_of(&[0x0c, dwarf, 24]), (rule::REGISTER | number, 24, 0), "{dwarf}");
        // register + 24; *(register + 16) + 8; *(rsp + 24 + 8 * register) + 8.
        let breg = 0x70 + dwarf;
        assert_eq!(rule_of(&[0x0f, 2, breg, 24]), (rule::REGISTER | number, 24, 0), "{dwarf}");
        assert_eq!(rule_of(&[0x0f, 5, breg, 16, 0x06, 0x23, 8]), (rule::DEREF | number, 16 << 8 | 8, 0), "{dwarf}");
        let indexed = [0x0f, 10, 0x77, 16, breg, 1, 0x38, 0x1e, 0x22, 0x06, 0x23, 8];
        assert_eq!(rule_of(&indexed), (rule::INDEXED | number, 24 << 8 | 8, 0), "{dwarf}");
    }
    assert_eq!(rule_of(&[0x0c, 17, 24]).0, rule::UNSUPPORTED_REGISTER);
}

/// Base and places of the registers but the frame pointer, for some instructions.
fn kept(instructions: &[u8]) -> (u8, [u8; 5]) {
    let saved = table(&[(CODE, CODE + 16, instructions)]).rule(CODE).unwrap().saved;
    (saved.base(true), [1, 2, 3, 4, 5].map(|slot| saved.place(slot)))
}

#[test]
fn registers_that_functions_keep_have_places() {
    const AT: u8 = Saved::HERE;
    const NOT: u8 = Saved::UNKNOWN;
    assert_eq!(kept(&[0x83, 2, 0x8c, 3, 0x8f, 126]), (base::CFA, [AT - 2, AT - 3, 0, 0, AT - 126]));
    // Too far, in another register, by a value, misaligned; of other registers nothing is kept.
    assert_eq!(kept(&[0x83, 0x80, 1, 0x09, 12, 0, 0x14, 13, 2, 0x8a, 4]), (base::CFA, [NOT, NOT, NOT, 0, 0]));
    // Where the frame pointer of a stack that was aligned says; one that is counted otherwise is lost.
    let aligned =
        [0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0, 0x10, 3, 2, 0x76, 0x68, 0x10, 15, 2, 0x76, 0x78, 0x8d, 4];
    assert_eq!(kept(&aligned), (base::RBP, [AT - 3, 0, NOT, 0, AT - 1]));
    // Of CFA = rsp + 64, rsp + 16 is 48 below.
    assert_eq!(kept(&[0x0e, 64, 0x10, 12, 2, 0x77, 16]), (base::CFA, [0, AT - 6, 0, 0, 0]));
    // ((CFA - 8) & -64) - 16, and the stack pointer after what the rule begins with was dropped.
    let rounded = [0x0c, 6, 16, 0x86, 2, 0x10, 14, 8, 0x38, 0x1c, 0x09, 0xc0, 0x1a, 0x09, 0xf0, 0x22];
    assert_eq!(kept(&rounded), (base::ALIGNED_64, [0, 0, 0, AT - 2, 0]));
    assert_eq!(kept(&[0x0c, 6, 16, 0x86, 2, 0x10, 14, 3, 0x13, 0x77, 24]), (base::RSP, [0, 0, 0, AT + 3, 0]));
}

#[test]
fn a_table_has_room_for_as_many_ways_of_saving_as_an_index_can_tell() {
    let ways: Vec<_> = (0..400u64).map(|way| [0x83, 2 + (way % 100) as u8, 0x8c, 2 + (way / 100) as u8]).collect();
    let functions = ways.iter().enumerate().map(|(at, way)| {
        let start = CODE + 16 * at as u64;
        (start, start + 16, way.as_slice())
    });
    let table = table(&functions.collect::<Vec<_>>());
    assert_eq!(table.saved.len(), 256);
    let place = |way: u64| table.rule(CODE + 16 * way).map(|rule| (rule.row.rule, rule.saved.place(1)));
    assert_eq!(place(7), Some((rule::RSP, Saved::HERE - 9)));
    assert_eq!(place(399), Some((rule::UNSUPPORTED_FRAME_POINTER, 0)));
}

#[test]
fn what_a_row_cannot_say_has_a_reason() {
    assert_eq!(rule_of(&[0x0d, 17]).0, rule::UNSUPPORTED_REGISTER);
    assert_eq!(rule_of(&[0x0e, 0x80, 0x80, 0x80, 0x80, 0x10]).0, rule::UNSUPPORTED_OFFSET);
    assert_eq!(rule_of(&[0x90, 2]).0, rule::UNSUPPORTED_RETURN_ADDRESS);
    assert_eq!(rule_of(&[0x08, 16]).0, rule::UNSUPPORTED_RETURN_ADDRESS);
    assert_eq!(rule_of(&[0x0f, 3, 0x77, 8, 0x1f]).0, rule::UNSUPPORTED_EXPRESSION);
    assert_eq!(
        rule_of(&[0x0f, 12, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30]).0,
        rule::UNSUPPORTED_EXPRESSION
    );
    for saved in [[0x86, 1].as_slice(), &[0x86, 0x80, 2], &[0x09, 6, 3], &[0x10, 6, 2, 0x71, 0], &[0x05, 6, 0x7e]] {
        let found = rule_of(saved).0;
        let fits = saved == [0x05, 6, 0x7e].as_slice();
        assert_eq!(found == rule::UNSUPPORTED_FRAME_POINTER, !fits, "{saved:x?}");
    }
}

#[test]
fn a_damaged_function_leaves_the_others() {
    let bad: [(&str, &[u8]); 5] = [
        ("unknown instruction", &[0x3f]),
        ("cut", &[0x0f, 0x70, 1]),
        ("nothing to restore", &[0x0b]),
        ("nested too deep", &[0x0a; 20]),
        ("back", &[0x44, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (what, instructions) in bad {
        let table = table(&[(CODE, CODE + 16, instructions), (CODE + 32, CODE + 48, &[])]);
        assert_eq!((at(&table, CODE), at(&table, CODE + 32)), (NOTHING, LEAF), "{what}");
        assert_eq!(table.unreadable_entries, 1, "{what}");
    }
}

#[test]
fn code_beyond_what_calls_reach_is_refused() {
    let section = frames(&[], &[(CODE, CODE + 16, &[])]);
    assert_eq!(Table::build(&*elf(CODE..u64::MAX, &section)), Err(Reason::TooLarge));
    assert_eq!(Table::build(&*elf(CODE..CODE + (5 << 32), &section)), Err(Reason::TooLarge));
    assert!(Table::build(&*elf(CODE..CODE + (3 << 30), &section)).is_ok());
    assert_eq!(Table::build(&*elf(CODE..CODE, &section)), Err(Reason::NoCode));
}

#[test]
fn more_rows_than_any_program_has_are_refused() {
    let rows: Vec<_> = (0..=MAX_ROWS).flat_map(|row| [0x41, 0x0e, row as u8 & 1]).collect();
    let section = frames(&[], &[(CODE, CODE + (1 << 30), &rows)]);
    assert_eq!(Table::build(&*elf(CODE..CODE + (1 << 30), &section)), Err(Reason::TooLarge));
}

#[test]
fn long_common_entries_cannot_be_run_without_end() {
    // Two that take turns in one place of the cache, each with 900 instructions, and many functions.
    let mut section = cie(&[0; 880]);
    let second = CIE_PERIOD;
    section.extend(cie(&[0; 98]));
    assert_eq!(section.len(), second);
    section.extend(cie(&[0; 880]));
    for number in 0..50_000 {
        let start = CODE + number;
        let common = [0, second][number as usize % 2];
        section.extend(fde(section.len(), common, start, start + 1, &[]));
    }
    let started = Instant::now();
    let table = Table::build(&*elf(CODE..CODE_END, &section)).unwrap();
    assert!(started.elapsed().as_secs() < 60);
    assert!(table.unreadable_entries > 1000, "{}", table.unreadable_entries);
}

/// Distance at which common entries share a place in the cache.
const CIE_PERIOD: usize = 64 * 8 * 2;

/// What the unwind information says; what instructions say depends on symbols as well.
fn said(table: &Table) -> Vec<(u16, u8, i32, Saved)> {
    let rows = table.rows.iter().filter(|row| !row.is_derived() && row.rule != rule::NONE);
    rows.map(|row| (row.pc, row.rule, row.cfa_offset, table.saved[usize::from(row.saved)])).collect()
}

#[test]
fn stripped_section_headers_make_no_difference() {
    for (path, bytes) in programs() {
        let whole = Table::build(&*bytes).unwrap();
        let mut stripped = bytes;
        stripped[40..48].fill(0); // e_shoff
        stripped[60..64].fill(0); // e_shnum, e_shstrndx
        let stripped = Table::build(&*stripped).unwrap();
        assert!(said(&stripped) == said(&whole), "{path}");
    }
}

#[test]
fn the_c_library_returns_from_signals_through_a_signal_frame() {
    for (path, bytes) in programs().into_iter().filter(|(path, _)| path.contains("libc.so")) {
        let table = Table::build(&*bytes).unwrap();
        assert_eq!(table.rows.iter().filter(|row| row.rule == rule::SIGNAL).count(), 1, "{path}");
    }
}
