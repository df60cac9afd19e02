//! What Go's own table of functions says of unwinding: how far each function has moved the stack pointer, and which ones
//! leave the stack. A program's `.debug_frame` says less (nothing of the frame pointer) and is gone when it is stripped.

use std::ops::Range;

use super::fragments::Fragments;
use super::rules::Rule;
use super::{MAX_ROWS, Reason};
use crate::gopclntab::{Found, Function, Table};

/// Flags of a function (src/internal/abi/symtab.go).
mod flag {
    /// Nothing calls it: a thread or a goroutine begins there.
    pub const TOP_FRAME: u8 = 1;
    /// It sets the stack pointer, to one that the table does not know.
    pub const SP_WRITE: u8 = 2;
}

/// The first function of a signal handler. No Go function calls it, but its stack does go on: to what was interrupted.
const SIGNAL_ENTRY: &[u8] = b"runtime.sigtramp";
/// And what handlers return to.
const SIGNAL_RETURN: &[u8] = b"runtime.sigreturn";
/// A function makes its frame by its first instruction, of at most so many bytes.
const LONGEST_PUSH: u32 = 7;

/// Adds the functions that lie in the file's code. A damaged table adds none or some.
pub(super) fn add(found: &Found<'_>, code: &[Range<u64>], fragments: &mut Fragments) -> Result<(), Reason> {
    let Some(table) = found.table() else { return Ok(()) };
    // Functions may share what says how they move the stack pointer; the work is linear nevertheless.
    let mut budget = found.size().saturating_mul(16);
    for number in 0..table.functions {
        let Some(function) = table.function(number) else { break };
        let Some(range) = code.iter().find(|range| range.contains(&function.start)) else { continue };
        let mut end = function.end.min(range.end);
        if function.start == 0 || function.start >= end {
            continue;
        }
        if function.name.starts_with(SIGNAL_RETURN) {
            fragments.add_signal_return(&(function.start..end), code);
            continue;
        }
        // The byte before a return from signals is looked up for it; nothing is executed there.
        if table.function(number + 1).is_some_and(|next| next.name.starts_with(SIGNAL_RETURN)) {
            end -= 1;
        }
        let rules = rules_of(&table, &function, &mut budget);
        if fragments.rows() + rules.len() > MAX_ROWS {
            return Err(Reason::TooLarge);
        }
        fragments.add_rules(function.start, end, rules);
    }
    Ok(())
}

/// The rules of a function with the offsets from which they hold.
fn rules_of(table: &Table<'_>, function: &Function<'_>, budget: &mut usize) -> Vec<(u32, Rule)> {
    if function.flags & flag::TOP_FRAME != 0 && !function.name.starts_with(SIGNAL_ENTRY) {
        return vec![(0, Rule::END)];
    }
    let size = function.end - function.start;
    let mut deltas = Deltas { bytes: table.deltas(function), pc: 0, delta: -1, is_first: true };
    let deltas: Vec<(u32, i32)> = std::iter::from_fn(|| {
        *budget = budget.checked_sub(1)?;
        deltas.next().filter(|&(from, _)| u64::from(from) < size)
    })
    .collect();
    let has_frame = deltas.get(1).is_some_and(|&(from, delta)| from <= LONGEST_PUSH && delta >= 8);
    let rule = |delta| match function.flags & flag::SP_WRITE != 0 {
        _ if delta < 0 => Rule::NONE,
        false => Rule::go_frame(delta),
        // It runs others on a stack that begins with it: `runtime.systemstack`, `runtime.mcall`, `runtime.asmcgocall`.
        true if !has_frame && !function.name.starts_with(b"runtime.mcall\0") => Rule::FROM_OTHER_STACK,
        true if !has_frame => Rule::END,
        // The frame pointer still is on the stack that it leaves for a while: `runtime.nanotime1`, which asks the vDSO.
        true if delta >= 8 => Rule::FROM_OTHER_STACK,
        true => Rule::go_frame(delta),
    };
    let mut rules: Vec<(u32, Rule)> = deltas.into_iter().map(|(from, delta)| (from, rule(delta))).collect();
    rules.dedup_by_key(|(_, rule)| *rule);
    rules
}

/// Reads a table of stack pointers: pairs of a signed difference of the value and an unsigned one of the address up to
/// which it holds, as variable-length integers.
struct Deltas<'data> {
    bytes: &'data [u8],
    pc: u32,
    delta: i32,
    is_first: bool,
}

impl Deltas<'_> {
    /// The next value, and the offset in the function from which it holds.
    fn next(&mut self) -> Option<(u32, i32)> {
        let change = self.integer()?;
        if change == 0 && !self.is_first {
            return None;
        }
        self.is_first = false;
        // Zigzag: the sign is the lowest bit.
        self.delta = self.delta.wrapping_add((change >> 1) as i32 ^ -((change & 1) as i32));
        let from = self.pc;
        self.pc = self.pc.checked_add(self.integer()?)?;
        Some((from, self.delta))
    }

    fn integer(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::gopclntab::{self, GO_1_18, GO_1_20};

    /// A file that has nothing but the table.
    struct Only<'data>(&'data [u8]);

    impl<'data> gopclntab::File<'data> for Only<'data> {
        fn section(&self, name: &str) -> Option<(u64, Cow<'data, [u8]>)> {
            (name == ".gopclntab").then_some((0, Cow::Borrowed(self.0)))
        }

        fn relocations(&self) -> Vec<object::elf::Rela64<object::LittleEndian>> {
            Vec::new()
        }
    }

    const TEXT: u64 = 0x40_1000;
    /// Bytes of code of each function.
    const SIZE: u32 = 0x40;

    /// A table of functions: name, flags, stack pointers.
    fn table(version: u32, functions: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let entry_bytes = if version == GO_1_18 { 40 } else { 44 };
        let (mut names, mut deltas, mut index, mut entries) = (vec![0], vec![0], Vec::new(), Vec::new());
        let entries_at = functions.len() * 8 + 4;
        for (number, (name, flags, pairs)) in functions.iter().enumerate() {
            index.extend((number as u32 * SIZE).to_le_bytes());
            index.extend(((entries_at + entries.len()) as u32).to_le_bytes());
            let mut entry = vec![0; entry_bytes];
            entry[4..8].copy_from_slice(&(names.len() as u32).to_le_bytes());
            entry[16..20].copy_from_slice(&(deltas.len() as u32).to_le_bytes());
            entry[entry_bytes - 3] = *flags;
            entries.extend(entry);
            names.extend(name.bytes().chain([0]));
            deltas.extend(pairs.iter().chain(&[0]));
        }
        index.extend((functions.len() as u32 * SIZE).to_le_bytes());
        let (names_at, deltas_at) = (72, 72 + names.len());
        let index_at = deltas_at + deltas.len();
        let header = [functions.len() as u64, 0, TEXT, names_at, 0, 0, deltas_at as u64, index_at as u64];
        let mut bytes = version.to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        bytes.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        [bytes, names, deltas, index, entries].concat()
    }

    /// The rules of each function.
    fn rules(bytes: &[u8]) -> Vec<Vec<(u64, Rule)>> {
        let mut fragments = Fragments::default();
        let code = Range { start: TEXT, end: TEXT + 0x1000 };
        if let Ok(found) = Found::in_file(&Only(bytes)) {
            add(&found, &[code], &mut fragments).unwrap();
        }
        let of = |fragment| fragments.rules(fragment).map(|(address, rule)| (address - TEXT, rule)).collect();
        fragments.list().iter().map(|&fragment| of(fragment)).collect()
    }

    /// From 0 to 24 bytes after 4 bytes of code, back after 8 more; the numbers are zigzag.
    const FRAME: &[u8] = &[2, 4, 48, 8, 47, 52];
    /// None ever.
    const NO_FRAME: &[u8] = &[2, 64];

    #[test]
    fn functions_move_the_stack_pointer_and_keep_the_frame_pointer() {
        for version in [GO_1_18, GO_1_20] {
            let bytes = table(version, &[("main.main", 0, FRAME), ("memmove", 4, NO_FRAME)]);
            let frames = [(0, Rule::go_frame(0)), (4, Rule::go_frame(24)), (12, Rule::go_frame(0))];
            assert_eq!(rules(&bytes), [frames.to_vec(), vec![(0x40, Rule::go_frame(0))]], "{version:x}");
        }
    }

    #[test]
    fn functions_that_leave_their_stack_are_known() {
        let functions: [(&str, u8, &[u8]); 6] = [
            ("runtime.goexit", flag::TOP_FRAME, NO_FRAME),
            ("runtime.systemstack", flag::SP_WRITE, NO_FRAME),
            ("runtime.mcall", flag::SP_WRITE, NO_FRAME),
            ("runtime.nanotime1", flag::SP_WRITE, FRAME),
            ("runtime.sigtramp", flag::TOP_FRAME, NO_FRAME),
            ("runtime.sigreturn__sigaction", 0, NO_FRAME),
        ];
        let all = rules(&table(GO_1_20, &functions));
        assert_eq!(all[0], [(0, Rule::END)]);
        assert_eq!(all[1], [(0x40, Rule::FROM_OTHER_STACK)]);
        assert_eq!(all[2], [(0x80, Rule::END)]);
        assert_eq!(all[3][1], (0xc4, Rule::FROM_OTHER_STACK));
        assert_eq!(all[4], [(0x100, Rule::go_frame(0))]);
        assert_eq!(all[5], [(0x13f, Rule::SIGNAL)]);
    }

    #[test]
    fn damage_and_other_versions_are_survived() {
        let whole = table(GO_1_20, &[("main.main", 0, FRAME), ("memmove", 4, NO_FRAME)]);
        for at in 0..whole.len() {
            assert!(rules(&whole[..at]).len() <= 2);
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                assert!(rules(&bytes).iter().flatten().count() <= 8);
            }
        }
        assert!(rules(&table(0xffff_fffb, &[("main.main", 0, FRAME)])).is_empty());
    }
}
