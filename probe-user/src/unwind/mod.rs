//! Unwind tables: what an executable's `.eh_frame` (or `.debug_frame`, or Go's own table) says of its code, as rows that a
//! kernel program searches and steps by (`probe_ebpf::table`). Files are hostile: work and memory are linear in their size
//! and bounded by the limits here, and nothing in them makes this panic.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::{ReadCache, ReadRef};
use probe_ebpf::kept::Saved;
use probe_ebpf::table::{BLOCK_ROWS, Block, PAGE_BITS, Page, Row, Rule};
use serde::{Deserialize, Serialize};

use self::fragments::Fragments;
use self::rules::Rule as RowRule;

pub mod derive;
mod fragments;
mod golang;
mod packed;
mod pages;
mod rules;
mod sections;
mod state;
#[cfg(test)]
mod tests;
mod trampolines;

pub use packed::{Build, Packed};

/// Sections larger than this are not read: ten times a browser's.
const MAX_SECTION_BYTES: u64 = 128 << 20;
/// More rows than this (32 MiB) are no table: a browser has a million.
const MAX_ROWS: usize = 4 << 20;
/// An executable's code lies within 4 GiB: x86-64 calls reach no further than 2.
const MAX_PAGES: u64 = 1 << 16;

/// Where the functions of an open ELF file are, as far as its `.eh_frame` tells: virtual addresses, in order. Stripped files
/// have it as well.
pub fn functions(file: &File) -> Vec<Range<u64>> {
    sections::read(&ReadCache::new(file)).map(|sections| sections.functions()).unwrap_or_default()
}

/// How much is done for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effort {
    /// What the file says. Rows are derived only where that takes no time, or where there is nothing else.
    Quick,
    /// All rows that can be derived as well: a second or two for the largest files.
    Full,
}

/// How to unwind from every address of an executable file's code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// One per 64 KiB from [`Self::first_page`] on, without holes.
    pub pages: Vec<Page>,
    /// Virtual address of the first page, shifted right by [`PAGE_BITS`]. Addresses are the file's own, as in its
    /// program headers.
    pub first_page: u64,
    /// The rows of all pages, in order.
    pub rows: Vec<Row>,
    /// What [`Row::saved`] stands for.
    pub saved: Vec<Saved>,
    /// Entries of the file's unwind information that could not be read; their code is without rows.
    pub unreadable_entries: u32,
    /// There is code left for which rows may be derived, with [`Effort::Full`].
    pub is_partial: bool,
}

impl Table {
    /// The table of an ELF file.
    pub fn build<'data>(data: impl ReadRef<'data> + 'data) -> Result<Self, Reason> {
        Self::make(data, Effort::Full, |range| {
            Some(data.read_bytes_at(range.start, range.end - range.start).ok()?.to_vec())
        })
    }

    /// The table of an open ELF file. What is read of it is forgotten afterwards.
    pub fn of_file(file: &File, effort: Effort) -> Result<Self, Reason> {
        Self::make(&ReadCache::new(file), effort, |range| {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
            file.read_exact_at(&mut bytes, range.start).ok()?;
            Some(bytes)
        })
    }

    fn make<'data>(
        data: impl ReadRef<'data> + 'data,
        effort: Effort,
        mut read_code: impl FnMut(Range<u64>) -> Option<Vec<u8>>,
    ) -> Result<Self, Reason> {
        let sections = sections::read(data)?;
        let mut fragments = Fragments::default();
        sections.frames(&mut fragments)?;
        if sections.is_self_contained && !fragments.has_signal_frame {
            for (offset, code) in &sections.searched {
                let size = code.end - code.start;
                let read = |range: Range<u64>| read_code(offset + range.start..offset + range.end);
                for found in trampolines::signal_returns(code.start, size, read) {
                    fragments.add_signal_return(&found, &sections.code);
                }
            }
        }
        add_fiber_begins(&sections, &mut fragments, read_code);
        let is_partial = effort == Effort::Quick && takes_long(&sections, &mut fragments);
        if !is_partial {
            derive::add(data, &mut fragments);
        }
        if sections.is_empty() && fragments.list().is_empty() {
            return Err(Reason::NoUnwindInfo);
        }
        Ok(Self { is_partial, ..pages::lay_out(fragments, &sections.code)? })
    }

    /// The rule for a virtual address of the file; `None` outside its pages. It may say that there is no information.
    pub fn rule(&self, address: u64) -> Option<Rule> {
        let row = self.lookup(address)?;
        Some(Rule { row, saved: self.saved.get(usize::from(row.saved)).copied().unwrap_or_default() })
    }

    /// The row for a virtual address of the file.
    pub fn lookup(&self, address: u64) -> Option<Row> {
        let page = self.pages.get(usize::try_from((address >> PAGE_BITS).checked_sub(self.first_page)?).ok()?)?;
        let rows = self.rows.get(page.first_row as usize..)?.get(..page.row_count as usize)?;
        let after = rows.partition_point(|row| row.pc <= address as u16);
        rows.get(after.checked_sub(1)?).copied()
    }

    /// The rows as they travel; the last block is filled up with rows of zeros.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = Block> {
        self.rows.chunks(BLOCK_ROWS).map(|rows| {
            let mut block = Block { rows: [Row::default(); BLOCK_ROWS] };
            block.rows[..rows.len()].copy_from_slice(rows);
            block
        })
    }

    /// Bytes of all that.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.pages) + size_of_val(&*self.saved)
    }
}

/// True if a file has much code, some of it without a table: to derive the rest all of it is looked through.
fn takes_long(sections: &sections::Sections<'_>, fragments: &mut Fragments) -> bool {
    fragments.sort();
    let size = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    let is_covered = size(&fragments.gaps(&sections.code)) < derive::LEAST_NAMED;
    size(&sections.code) > QUICKLY_DERIVED && !is_covered && !fragments.list().is_empty()
}

/// Adds the code in which fibers begin, where the file says nothing of it.
fn add_fiber_begins(
    sections: &sections::Sections<'_>,
    fragments: &mut Fragments,
    mut read_code: impl FnMut(Range<u64>) -> Option<Vec<u8>>,
) {
    fragments.sort();
    let mut budget = MAX_SEARCHED;
    for gap in fragments.gaps(&sections.code) {
        let Some((offset, code)) = sections.searched.iter().find(|(_, code)| code.contains(&gap.start)) else {
            continue;
        };
        let size = gap.end.min(code.end) - gap.start;
        let Some(left) = budget.checked_sub(size) else { break };
        budget = left;
        // What is between two functions is shorter.
        if size < MIN_SEARCHED {
            continue;
        }
        let from = offset + (gap.start - code.start);
        let Some(bytes) = read_code(from..from + size) else { continue };
        for begin in trampolines::fiber_begins(gap.start, &bytes) {
            fragments.add_rules(begin.start, begin.end, vec![(0, RowRule::END)]);
        }
    }
}

/// Bytes of code through which it takes no longer than to read the tables.
const QUICKLY_DERIVED: u64 = 2 << 20;
/// Bytes of code without unwind information that are searched for where fibers begin.
const MAX_SEARCHED: u64 = 16 << 20;
/// Shorter pieces are not searched: `make_fcontext` has 60 bytes.
const MIN_SEARCHED: u64 = 48;

/// Why a file has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not an ELF file, or a damaged one.
    NotElf,
    /// Not for x86-64.
    Machine,
    /// It has no code that is loaded.
    NoCode,
    /// Neither `.eh_frame` nor `.debug_frame`.
    NoUnwindInfo,
    /// Beyond the limits of size.
    TooLarge,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotElf => "not an ELF file",
            Self::Machine => "not for x86-64",
            Self::NoCode => "no code",
            Self::NoUnwindInfo => "no unwind information",
            Self::TooLarge => "too much unwind information",
        })
    }
}

impl std::error::Error for Reason {}
