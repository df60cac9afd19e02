//! Reads of a file what the analysis wants to know: its code and data, where functions begin, and which do not return.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
use object::elf::{
    FileHeader64, PF_X, PT_LOAD, ProgramHeader64, R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_IRELATIVE,
    R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE, SHF_ALLOC, SHF_EXECINSTR, SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB, STT_FUNC,
    STT_GNU_IFUNC, SectionHeader64,
};
use object::read::elf::{FileHeader, ProgramHeader, Rela as _, SectionHeader, SectionTable, Sym as _};
use object::{LittleEndian, ReadRef};

use super::callers;
use super::image::{Image, Piece};

type Header = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// More code without tables than this is not looked at: a browser has 150 MiB of code, with tables.
const MAX_BYTES: u64 = 64 << 20;
/// Of less, which is what the C runtime adds to every program, names are not looked at.
pub(in crate::unwind) const LEAST_NAMED: u64 = 512;
/// No linkage table is longer.
const MAX_STUBS: u64 = 1 << 20;
/// Functions are aligned to 16 bytes; what is between two of them and shorter is padding.
const PADDING: u64 = 16;

/// The file as the analysis sees it; `covered` is the code that has a table, in order of address. `None` where there is nothing
/// to do, or too much.
pub(super) fn read<'data, R: ReadRef<'data> + 'data>(data: R, covered: &[Range<u64>]) -> Option<Image<'data>> {
    let header = Header::parse(data).ok()?;
    let segments = header.program_headers(LE, data).ok()?;
    let loaded: Vec<(Range<u64>, u64)> = segments
        .iter()
        .filter(|segment| segment.p_type(LE) == PT_LOAD)
        .map(|segment| {
            let start = segment.p_vaddr(LE);
            (start..start.saturating_add(segment.p_filesz(LE)), segment.p_offset(LE))
        })
        .collect();
    let base = loaded.iter().map(|(range, _)| range.start).min()?;
    let read = move |address: u64, size: u64| {
        let (range, offset) = loaded.iter().find(|(range, _)| range.contains(&address))?;
        let inside = address - range.start;
        data.read_bytes_at(offset.checked_add(inside)?, size.min(range.end - address)).ok()
    };
    let sections = header.sections(LE, data).ok().filter(|sections| sections.len() > 1);
    let code = match &sections {
        Some(sections) => disjoint(sections.iter().filter_map(executable).collect()),
        None => disjoint(segments.iter().filter(|segment| segment.p_flags(LE) & PF_X != 0).map(range).collect()),
    };
    let gaps = gaps(&code, covered.iter().cloned());
    let bytes: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
    if !(1..=MAX_BYTES).contains(&bytes) {
        return None;
    }
    let gaps = gaps
        .into_iter()
        .filter_map(|gap| Some(Piece { start: gap.start, bytes: read(gap.start, gap.end - gap.start)? }));
    let gaps = gaps.filter(|gap| !gap.bytes.is_empty()).collect();
    let start = Some(header.e_entry.get(LE)).filter(|&start| start != 0);
    let mut image = Image {
        gaps,
        code,
        entries: Vec::new(),
        pointers: Vec::new(),
        taken: Vec::new(),
        start,
        endless: HashSet::new(),
        endless_slots: HashSet::new(),
        slots: HashMap::new(),
        base,
        read: Box::new(read),
    };
    if let Some(sections) = &sections.filter(|_| bytes >= LEAST_NAMED) {
        names(sections, data, &mut image);
    }
    if bytes >= LEAST_NAMED {
        let (calls, taken) = callers::find(&image, covered);
        image.entries.extend(calls);
        image.taken = taken;
    }
    Some(image)
}

fn executable(section: &SectionHeader64<LittleEndian>) -> Option<Range<u64>> {
    let flags = u64::from(SHF_ALLOC | SHF_EXECINSTR);
    let is_code = section.sh_flags(LE) & flags == flags && section.sh_type(LE) != SHT_NOBITS;
    let start = section.sh_addr(LE);
    is_code.then(|| start..start.saturating_add(section.sh_size(LE)))
}

fn range(segment: &ProgramHeader64<LittleEndian>) -> Range<u64> {
    let start = segment.p_vaddr(LE);
    start..start.saturating_add(segment.p_filesz(LE))
}

/// Sorted; what overlaps an earlier one is cut off.
fn disjoint(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut end = 0;
    for range in &mut ranges {
        range.start = range.start.max(end);
        end = end.max(range.end);
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Functions by their symbols, and pointers to them by relocations.
fn names<'data, R: ReadRef<'data>>(sections: &SectionTable<'data, Header, R>, data: R, image: &mut Image<'data>) {
    let mut entries = BTreeSet::new();
    for kind in [SHT_SYMTAB, SHT_DYNSYM] {
        let Ok(symbols) = sections.symbols(LE, data, kind) else { continue };
        for symbol in symbols.iter().filter(|symbol| matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC)) {
            let name = symbol.name(LE, symbols.strings()).unwrap_or_default();
            let address = symbol.st_value(LE);
            // The part of a function that the compiler moved away is no function.
            if address != 0 && !is_part(name) {
                entries.insert(address);
                if is_endless(name) {
                    image.endless.insert(address);
                }
            }
        }
    }
    // Nothing writes to these once the program runs.
    let tables: Vec<Range<u64>> = sections
        .iter()
        .filter(|section| sections.section_name(LE, section).is_ok_and(|name| name.starts_with(b".got")))
        .map(|section| section.sh_addr(LE)..section.sh_addr(LE).saturating_add(section.sh_size(LE)))
        .collect();
    let (mut slots, mut pointers) = (HashMap::new(), BTreeSet::new());
    for section in sections.iter() {
        let Ok(Some((relocations, link))) = section.rela(LE, data) else { continue };
        let symbols = sections.symbol_table_by_index(LE, data, link).ok();
        for relocation in relocations {
            match relocation.r_type(LE, false) {
                R_X86_64_RELATIVE | R_X86_64_IRELATIVE => {
                    let pointer = relocation.r_addend(LE) as u64;
                    pointers.insert(pointer);
                    if tables.iter().any(|table| table.contains(&relocation.r_offset(LE))) {
                        image.slots.insert(relocation.r_offset(LE), pointer);
                    }
                }
                R_X86_64_JUMP_SLOT | R_X86_64_GLOB_DAT | R_X86_64_64 => {
                    let symbol = relocation.symbol(LE, false);
                    let symbol = symbols
                        .as_ref()
                        .zip(symbol)
                        .and_then(|(table, index)| table.symbol(index).ok()?.name(LE, table.strings()).ok());
                    if let Some(name) = symbol.filter(|name| is_endless(name)) {
                        slots.insert(relocation.r_offset(LE), name);
                    }
                }
                _ => {}
            }
        }
    }
    image.endless_slots = slots.into_keys().collect();
    entries.retain(|&entry| image.gap(entry).is_some());
    pointers.retain(|pointer| image.gap(*pointer).is_some() && !entries.contains(pointer));
    image.entries = entries.into_iter().collect();
    image.pointers = pointers.into_iter().collect();
    let stubs = stubs(sections, data, image);
    image.endless.extend(stubs);
}

/// Stubs of linkage tables that lead to functions which do not return.
fn stubs<'data, R: ReadRef<'data>>(
    sections: &SectionTable<'data, Header, R>,
    data: R,
    image: &Image<'data>,
) -> HashSet<u64> {
    let mut found = HashSet::new();
    if image.endless_slots.is_empty() {
        return found;
    }
    for section in sections.iter() {
        let name = sections.section_name(LE, section).unwrap_or_default();
        if !name.starts_with(b".plt") || section.sh_size(LE) > MAX_STUBS {
            continue;
        }
        let Ok(bytes) = section.data(LE, data) else { continue };
        let mut decoder = Decoder::with_ip(64, bytes, section.sh_addr(LE), DecoderOptions::NONE);
        while decoder.can_decode() {
            let i = decoder.decode();
            let is_jump = i.flow_control() == FlowControl::IndirectBranch && i.op0_kind() == OpKind::Memory;
            if is_jump && i.is_ip_rel_memory_operand() && image.endless_slots.contains(&i.ip_rel_memory_address()) {
                // Stubs are aligned to 16 bytes, or to 8 where they are that short.
                found.insert(i.ip() & !7);
                found.insert(i.ip() & !15);
            }
        }
    }
    found
}

/// What some ranges, in order of address, leave of the code.
fn gaps(code: &[Range<u64>], covered: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut covered = covered.peekable();
    for piece in code {
        let mut from = piece.start;
        while let Some(range) = covered.next_if(|range| range.start < piece.end) {
            if range.start >= from.saturating_add(PADDING) {
                gaps.push(from..range.start);
            }
            from = from.max(range.end);
        }
        if piece.end >= from.saturating_add(PADDING) {
            gaps.push(from..piece.end);
        }
    }
    gaps
}

/// A part of a function: `f.cold`, `f.part.0.cold.1`. Entries of other clones (`f.part.0`, `f.constprop.0`) are functions.
fn is_part(name: &[u8]) -> bool {
    contains(name, b".cold") || contains(name, b".unlikely")
}

fn contains(name: &[u8], what: &[u8]) -> bool {
    name.windows(what.len()).any(|window| window == what)
}

/// Whether a function of this name does not return, in C libraries, C++'s and the compiler's runtimes.
fn is_endless(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 38] = [
        b"abort",
        b"exit",
        b"_exit",
        b"_Exit",
        b"quick_exit",
        b"__assert_fail",
        b"__assert_perror_fail",
        b"__assert",
        b"__assert_rtn",
        b"__stack_chk_fail",
        b"__stack_chk_fail_local",
        b"__fortify_fail",
        b"__chk_fail",
        b"longjmp",
        b"_longjmp",
        b"siglongjmp",
        b"__longjmp_chk",
        b"__libc_fatal",
        b"__libc_start_main",
        b"pthread_exit",
        b"err",
        b"errx",
        b"verr",
        b"verrx",
        b"__cxa_throw",
        b"__cxa_rethrow",
        b"__cxa_bad_cast",
        b"__cxa_bad_typeid",
        b"__cxa_throw_bad_array_new_length",
        b"__cxa_pure_virtual",
        b"__cxa_deleted_virtual",
        b"__cxa_call_terminate",
        b"_Unwind_Resume",
        b"__cxa_call_unexpected",
        b"thrd_exit",
        b"_ZSt9terminatev",
        b"_ZSt10unexpectedv",
        b"__clang_call_terminate",
    ];
    // `std::__throw_…` of libstdc++ and libc++.
    let throws = name.starts_with(b"_ZSt") && contains(name, b"__throw_")
        || name.starts_with(b"_ZNSt3__1") && contains(name, b"__throw_");
    throws || NAMES.contains(&name) || contains(name, b"g_assertion_message")
}
