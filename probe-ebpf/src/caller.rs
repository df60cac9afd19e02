//! From an address to its row in the unwind table of the executable that is mapped there.

use core::ffi::c_void;
use core::hint::black_box;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_loop;
use probe_ebpf::abi::{FileKey, MAPPINGS_PER_BLOCK, MAX_MAPPING_BLOCKS, MappedRange, MappingKey, NO_TABLE};
use probe_ebpf::call_site::Site;
use probe_ebpf::kept::Saved;
use probe_ebpf::table::{self, BLOCK_ROWS, PAGE_BITS, Page, Row, Rule};

use crate::file::Search;
use crate::forget::forget;
use crate::maps::{MAPPINGS, block};
use crate::{file, lender};

/// Steps of the search for a block: a page of 64 KiB has at most 65,536 rows, 512 blocks.
const BLOCK_SEARCH_STEPS: u32 = 10;

/// Where the last frame's code is mapped: the next one's is likely to be the same.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place {
    pub start: u64,
    pub end: u64,
    pub bias: u64,
    pub table: u32,
    pub pages: u32,
}

impl Place {
    const NOWHERE: Self = Self { start: 0, end: 0, bias: 0, table: NO_TABLE, pages: 0 };
}

/// What the search for a row needs, in memory that the verifier takes for unknown numbers: it then has no reason to follow
/// one search differently from another.
#[repr(C)]
pub struct Lookup {
    pub place: Place,
    pub pc: u64,
    mappings: MappingKey,
    pub file: FileKey,
    pub search: Search,
    /// The blocks of rows that are left; `low` may be the one.
    low: u32,
    high: u32,
    /// The last rule's index in `found`.
    at: usize,
    /// The last [`Site`] as a number: see [`forget`].
    site: u32,
    /// Rules found before on this CPU: stacks resemble each other, and a search is ten times dearer than a look.
    found: [Found; FOUND_ROWS],
}

/// A rule that was found for an address of a table.
#[repr(C)]
#[derive(Clone, Copy)]
struct Found {
    /// Complement of the table, in the upper half, and the address: never zero, as unused entries are.
    key: u64,
    rule: Rule,
    /// 1 if a call was seen to end there, or need not.
    is_behind_call: u64,
}

/// A power of two: more than the distinct frames in most stacks, less than the processor's nearest cache.
const FOUND_ROWS: usize = 512;
/// Bounds an index for the verifier.
const MASK: usize = FOUND_ROWS - 1;
/// The first of them stands for none.
const NONE: usize = 0;

impl Lookup {
    /// The rule that was found last; `Rule::default()` where there is none.
    #[inline(always)]
    pub fn rule(&self) -> Rule {
        self.found[self.at & MASK].rule
    }

    pub fn start(&mut self, tgid: u32) {
        self.place = Place::NOWHERE;
        self.mappings.tgid = tgid;
        self.found[NONE].is_behind_call = 1;
    }
}

/// What `bpf_loop` hands to its callbacks here: it has to be on the stack, what it points to has not.
#[repr(C)]
struct Context {
    lookup: *mut Lookup,
}

/// Finds the rule for an address, the program counter of a leaf or a return address less one above it: [`Lookup::rule`].
#[inline(always)]
pub fn find(pc: u64, lookup: &mut Lookup, task: *mut task_struct) {
    lookup.pc = pc;
    if pc.wrapping_sub(lookup.place.start) >= lookup.place.end.wrapping_sub(lookup.place.start) {
        find_place(lookup, task);
    }
    lookup.at = NONE;
    let Place { bias, table, pages, .. } = lookup.place;
    let address = pc.wrapping_sub(bias);
    if table == NO_TABLE || address >> PAGE_BITS >= u64::from(pages) {
        return;
    }
    let key = !(u64::from(table) << 32 | address & u64::from(u32::MAX));
    let at = (key.wrapping_mul(SPREAD) >> (u64::BITS - FOUND_ROWS.ilog2())) as usize & MASK;
    let at = if at == NONE { NONE + 1 } else { at };
    lookup.at = at;
    if lookup.found[at].key == key {
        return;
    }
    lookup.pc = address;
    let row = find_row(lookup).unwrap_or_default();
    let saved = if row.saved == 0 { None } else { find_saved(lookup, row.saved) };
    let rule = Rule { row, saved: saved.unwrap_or_default() };
    let plain = Rule { row: row.plain(), ..rule };
    lookup.found[at] = Found { key, rule, is_behind_call: (!plain.returns_behind_calls()).into() };
}

/// What the return address is for which the rule was just looked up, as far as the rule's code is only returned to where it
/// has called. `before` reads the eight bytes before it; where they cannot be read nothing is known against it. That it is
/// behind a call is remembered with the rule.
#[inline(always)]
pub fn site(lookup: &mut Lookup, address: u64, before: impl FnOnce() -> Option<u64>) -> Site {
    lookup.site = look_before(lookup, address, before) as u32;
    Site::of_number(forget(&lookup.site))
}

#[inline(always)]
fn look_before(lookup: &mut Lookup, address: u64, before: impl FnOnce() -> Option<u64>) -> Site {
    let found = &mut lookup.found[lookup.at & MASK];
    if found.is_behind_call != 0 {
        return Site::Call;
    }
    let site = before().map_or(Site::Call, |before| Site::of(address, before));
    found.is_behind_call = (site == Site::Call).into();
    site
}

/// The registers that a row says are saved: the table has these words behind those of its pages.
#[inline(always)]
fn find_saved(lookup: &Lookup, index: u8) -> Option<Saved> {
    let at = lookup.place.pages.wrapping_add(index.into());
    let words = core::ptr::from_ref(block(lookup.place.table, at / BLOCK_ROWS as u32)?).cast::<Saved>();
    // SAFETY: rows and these words have one size, so a block has as many of either.
    Some(unsafe { *words.add(at as usize & (BLOCK_ROWS - 1)) })
}

/// Multiplying by it spreads neighbours: the fractional part of the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Looks a mapping up; what is not mapped has no table.
#[inline(always)]
fn find_place(lookup: &mut Lookup, task: *mut task_struct) {
    if find_mapping(lookup) == 0
        && let Some(lender) = lender::of(lookup.mappings.tgid)
    {
        lookup.mappings.tgid = lender;
        find_mapping(lookup);
    }
    if lookup.place.end == 0 {
        file::find(lookup, task);
    }
}

/// Looks a mapping up in those of one process. Returns 0 if nothing is known of any of them.
#[inline(never)]
fn find_mapping(lookup: &mut Lookup) -> u64 {
    lookup.place = Place::NOWHERE;
    lookup.mappings.block = 0;
    let mut context = Context { lookup };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(MAX_MAPPING_BLOCKS, is_in_later_block as *mut c_void, (&raw mut context).cast(), 0) };
    // SAFETY: an entry that is updated meanwhile gives a wrong frame at worst, never a bad access.
    let Some(entry) = (unsafe { MAPPINGS.get(lookup.mappings) }) else { return u64::from(lookup.mappings.block) };
    let pc = lookup.pc;
    // The last range that starts at or below the address, by halving, without branches as in `table::search_block`.
    let mut at = 0;
    let mut half = MAPPINGS_PER_BLOCK / 2;
    while half > 0 {
        let start = entry.ranges[(at + half) & (MAPPINGS_PER_BLOCK - 1)].start;
        let below = !(black_box(pc.wrapping_sub(start)) as i64 >> 63);
        at += half & below as usize;
        half /= 2;
    }
    let MappedRange { start, end, bias, table, pages } = entry.ranges[at & (MAPPINGS_PER_BLOCK - 1)];
    if start <= pc && pc < end {
        lookup.place = Place { start, end, bias, table, pages };
    }
    1
}

/// `bpf_loop`'s callback: moves to the next block of a process's mappings as long as the address is behind this one.
#[inline(never)]
extern "C" fn is_in_later_block(_index: u32, context: *mut Context) -> i64 {
    // SAFETY: the lookup of `find_place`, which waits for the loop.
    let lookup = unsafe { &mut *(*context).lookup };
    // SAFETY: as in `find_place`.
    match unsafe { MAPPINGS.get(lookup.mappings) } {
        Some(block) if lookup.pc >= block.next_start => {
            lookup.mappings.block += 1;
            0
        }
        _ => 1,
    }
}

/// Searches the row in force at the address of an executable that is in `lookup.pc`. Its table has an entry for each of its pages first, then what rows
/// say of saved registers, then the rows, all of them words of eight bytes in blocks of [`BLOCK_ROWS`]; [`Page::first_row`] counts from the beginning of the table.
#[inline(always)]
fn find_row(lookup: &mut Lookup) -> Option<Row> {
    let (table, address) = (lookup.place.table, lookup.pc);
    let number = (address >> PAGE_BITS) as u32;
    let pages = core::ptr::from_ref(block(table, number / BLOCK_ROWS as u32)?).cast::<Page>();
    // SAFETY: rows and page entries have one size, so a block has as many of either.
    let Page { first_row, row_count } = unsafe { *pages.add(number as usize & (BLOCK_ROWS - 1)) };
    if row_count == 0 {
        return None;
    }
    let end_row = first_row + row_count;
    lookup.low = first_row / BLOCK_ROWS as u32;
    lookup.high = (end_row - 1) / BLOCK_ROWS as u32;
    let mut context = Context { lookup };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(BLOCK_SEARCH_STEPS, halve as *mut c_void, (&raw mut context).cast(), 0) };
    let low = lookup.low;
    let begin = low * BLOCK_ROWS as u32;
    // Below zero where the page begins in an earlier block: the sign says so.
    let from = black_box(first_row.wrapping_sub(begin)) as i32;
    let from = from & !(from >> 31);
    let to = black_box(end_row.wrapping_sub(begin)) as i32;
    let block = block(table, low)?;
    let at = table::search_block(block, from as usize, to as usize, address as u16);
    Some(block.rows[at & (BLOCK_ROWS - 1)])
}

/// `bpf_loop`'s callback: halves what is left of the blocks, in search of the last one whose first row is at or below the
/// address. The first block of a page may begin with rows of the page before it, so it is never compared. Returns 1 when
/// one is left.
#[inline(never)]
extern "C" fn halve(_index: u32, context: *mut Context) -> i64 {
    // SAFETY: the lookup of `find_row`, which waits for the loop.
    let lookup = unsafe { &mut *(*context).lookup };
    if lookup.low >= lookup.high {
        return 1;
    }
    let middle = (lookup.low + lookup.high + 1) / 2;
    let Some(block) = block(lookup.place.table, middle) else { return 1 };
    if u32::from(block.rows[0].pc) <= lookup.pc as u32 & 0xffff {
        lookup.low = middle;
    } else {
        lookup.high = middle - 1;
    }
    0
}
