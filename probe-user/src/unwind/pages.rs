//! Lays the functions' rows out in pages.

use std::ops::Range;

use probe_ebpf::table::{PAGE_BITS, Page};

use super::fragments::Fragments;
use super::rules::Rule;
use super::{MAX_PAGES, MAX_ROWS, Reason, Table};

/// Functions are aligned to 16 bytes; what is between two of them and shorter is padding, which is never executed.
const PADDING: u64 = 16;

/// The table of a file's functions. Where functions overlap, the one that begins first counts.
pub(super) fn lay_out(mut fragments: Fragments, code: &[Range<u64>]) -> Result<Table, Reason> {
    let (Some(first), Some(last)) = (code.first(), code.last()) else { return Err(Reason::NoCode) };
    let first_page = first.start >> PAGE_BITS;
    if ((last.end - 1) >> PAGE_BITS) - first_page >= MAX_PAGES {
        return Err(Reason::TooLarge);
    }
    let mut table = Table { first_page, unreadable_entries: fragments.unreadable, ..Table::default() };
    table.rows.reserve(fragments.rows().min(MAX_ROWS));
    let mut layout = Layout { table, in_force: Rule::NONE };
    let mut covered = first.start;
    fragments.sort();
    for &fragment in fragments.list() {
        if fragment.end <= covered {
            continue;
        }
        if fragment.start >= covered.saturating_add(PADDING) {
            layout.push(covered, Rule::NONE)?;
        }
        let mut hidden = None;
        for (address, rule) in fragments.rules(fragment) {
            if address < covered {
                hidden = Some(rule);
                continue;
            }
            if let Some(rule) = hidden.take()
                && address > covered
            {
                layout.push(covered, rule)?;
            }
            layout.push(address, rule)?;
        }
        if let Some(rule) = hidden {
            layout.push(covered, rule)?;
        }
        covered = fragment.end;
    }
    if covered < last.end {
        layout.push(covered, Rule::NONE)?;
    }
    layout.finish(last.end - 1)
}

/// A table that grows by ascending addresses.
struct Layout {
    table: Table,
    /// The rule of the last row.
    in_force: Rule,
}

impl Layout {
    /// From `address` on, `rule` is in force.
    fn push(&mut self, address: u64, rule: Rule) -> Result<(), Reason> {
        self.open_pages(address)?;
        if rule == self.in_force {
            return Ok(());
        }
        let row = rule.at(address);
        let Table { pages, rows, .. } = &mut self.table;
        let first = pages.last().map_or(0, |page| page.first_row as usize);
        if rows.last().is_some_and(|last| rows.len() > first && last.pc == row.pc) {
            // The page's first row, repeated from the page before it: this one takes its place.
            rows.pop();
        }
        // After that, the row before may say the same.
        if !rows.get(first..).and_then(|rows| rows.last()).is_some_and(|&last| Rule::of(last) == rule) {
            if rows.len() >= MAX_ROWS {
                return Err(Reason::TooLarge);
            }
            rows.push(row);
        }
        self.in_force = rule;
        Ok(())
    }

    /// Begins pages up to that of `address`, each with the rule in force.
    fn open_pages(&mut self, address: u64) -> Result<(), Reason> {
        let Table { pages, rows, first_page, .. } = &mut self.table;
        // The caller's addresses are in the code, whose pages were counted.
        while *first_page + pages.len() as u64 <= address >> PAGE_BITS {
            if rows.len() >= MAX_ROWS {
                return Err(Reason::TooLarge);
            }
            pages.push(Page { first_row: rows.len() as u32, row_count: 0 });
            rows.push(self.in_force.at(0));
        }
        Ok(())
    }

    /// The table, with pages up to that of `last`, the last address of the code.
    fn finish(mut self, last: u64) -> Result<Table, Reason> {
        self.open_pages(last)?;
        let Table { pages, rows, .. } = &mut self.table;
        let mut end = rows.len() as u32;
        for page in pages.iter_mut().rev() {
            page.row_count = end - page.first_row;
            end = page.first_row;
        }
        rows.shrink_to_fit();
        Ok(self.table)
    }
}
