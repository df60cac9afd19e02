//! From a frame to its caller: by the executable's unwind table where there is one, else by the frame pointer.

use core::ffi::c_void;
use core::hint::black_box;

use aya_ebpf::helpers::generated::bpf_loop;
use probe_ebpf::abi::{MAPPINGS_PER_BLOCK, MAX_MAPPING_BLOCKS, MappedRange, MappingKey, NO_TABLE};
use probe_ebpf::table::{self, BLOCK_ROWS, Block, Page, Row, rule};
use probe_ebpf::unwind::{self, End, Memory, Registers};

use crate::maps::{MAPPINGS, TABLES};

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
    pub tgid: u32,
    pub padding: u32,
}

impl Place {
    pub fn nowhere(tgid: u32) -> Self {
        Self { start: 1, end: 0, bias: 0, table: NO_TABLE, pages: 0, tgid, padding: 0 }
    }
}

/// How a step was made.
pub enum By {
    Table,
    /// A frame of a signal: the next address is no return address.
    Signal,
    FramePointer,
}

/// Replaces a frame's registers by its caller's. `pc` is the address to look up: the program counter of a leaf, a return
/// address less one above it.
#[inline(always)]
pub fn step(pc: u64, registers: &mut Registers, place: &mut Place, memory: &mut impl Memory) -> Result<By, End> {
    if pc.wrapping_sub(place.start) >= place.end.wrapping_sub(place.start) {
        find(pc, place);
    }
    if place.table != NO_TABLE
        && let Some(row) = row(place, pc.wrapping_sub(place.bias))
        && (rule::END..rule::UNSUPPORTED_EXPRESSION).contains(&row.rule)
    {
        let by = if row.caller_was_interrupted() { By::Signal } else { By::Table };
        return table::apply(row, registers, memory).map(|()| by);
    }
    unwind::step(registers, memory).map(|()| By::FramePointer)
}

/// Looks a mapping up; what is not mapped has no table.
#[inline(always)]
fn find(pc: u64, place: &mut Place) {
    let tgid = place.tgid;
    *place = Place::nowhere(tgid);
    let mut search = BlockOfMappings { pc, key: MappingKey { tgid, block: 0 } };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(MAX_MAPPING_BLOCKS, is_in_later_block as *mut c_void, (&raw mut search).cast(), 0) };
    // SAFETY: an entry that is updated meanwhile gives a wrong frame at worst, never a bad access.
    let Some(entry) = (unsafe { MAPPINGS.get(search.key) }) else { return };
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
        *place = Place { start, end, bias, table, pages, tgid, padding: 0 };
    }
}

#[repr(C)]
struct BlockOfMappings {
    pc: u64,
    key: MappingKey,
}

/// `bpf_loop`'s callback: moves to the next block of a process's mappings as long as the address is behind this one.
#[inline(never)]
extern "C" fn is_in_later_block(_index: u32, search: *mut BlockOfMappings) -> i64 {
    // SAFETY: the search of `find`, which waits for the loop.
    let search = unsafe { &mut *search };
    // SAFETY: as in `find`.
    match unsafe { MAPPINGS.get(search.key) } {
        Some(block) if search.pc >= block.next_start => {
            search.key.block += 1;
            0
        }
        _ => 1,
    }
}

/// A table: an entry for each of its pages first, then the rows, all of them words of eight bytes in blocks of
/// [`BLOCK_ROWS`]. `Page::first_row` counts from the beginning of the table.
#[inline(always)]
fn block(table: u32, number: u32) -> Option<&'static Block> {
    TABLES.get_value(table, &number)
}

/// The row in force at an address of an executable.
#[inline(always)]
fn row(place: &Place, address: u64) -> Option<Row> {
    let number = address >> 16;
    if number >= u64::from(place.pages) {
        return None;
    }
    let number = number as u32;
    let pages = core::ptr::from_ref(block(place.table, number / BLOCK_ROWS as u32)?).cast::<Page>();
    // SAFETY: rows and page entries have one size, so a block has as many of either.
    let page = unsafe { *pages.add(number as usize & (BLOCK_ROWS - 1)) };
    if page.row_count == 0 {
        return None;
    }
    let pc = address as u16;
    let end_row = page.first_row + page.row_count;
    let mut search = BlockOfRows {
        table: place.table,
        pc: pc.into(),
        low: page.first_row / BLOCK_ROWS as u32,
        high: (end_row - 1) / BLOCK_ROWS as u32,
    };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(BLOCK_SEARCH_STEPS, halve as *mut c_void, (&raw mut search).cast(), 0) };
    let begin = search.low * BLOCK_ROWS as u32;
    let from = page.first_row.saturating_sub(begin);
    let to = (end_row - begin).min(BLOCK_ROWS as u32);
    let block = block(place.table, search.low)?;
    let at = table::search_block(block, from as usize, to as usize, pc);
    Some(block.rows[at & (BLOCK_ROWS - 1)])
}

/// The search for the last block whose first row is at or below the address. The first block of a page may begin with rows
/// of the page before it, so it is never compared.
#[repr(C)]
struct BlockOfRows {
    table: u32,
    pc: u32,
    low: u32,
    high: u32,
}

/// `bpf_loop`'s callback: halves what is left of the blocks. Returns 1 when one is left.
#[inline(never)]
extern "C" fn halve(_index: u32, search: *mut BlockOfRows) -> i64 {
    // SAFETY: the search of `row`, which waits for the loop.
    let search = unsafe { &mut *search };
    if search.low >= search.high {
        return 1;
    }
    let middle = (search.low + search.high + 1) / 2;
    let Some(block) = block(search.table, middle) else { return 1 };
    if u32::from(block.rows[0].pc) <= search.pc {
        search.low = middle;
    } else {
        search.high = middle - 1;
    }
    0
}
