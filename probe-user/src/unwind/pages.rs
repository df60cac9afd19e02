//! Lays the functions' rows out in pages.

use std::collections::HashMap;
use std::ops::Range;

use probe_ebpf::kept::Saved;
use probe_ebpf::table::{PAGE_BITS, Page, Row};

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
    table.saved.push(Saved::NOTHING);
    let indices = Indices { all: HashMap::from([(Saved::NOTHING, 0)]), recent: [(Saved::NOTHING, 0); RECENT] };
    let mut layout = Layout { table, in_force: Rule::NONE, row: Row::default(), indices };
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
    /// The last rule.
    in_force: Rule,
    /// And its row.
    row: Row,
    indices: Indices,
}

/// Where in the table what is saved stands.
struct Indices {
    all: HashMap<Saved, u8>,
    /// Those that were looked up lately, each in the place that its hash has: there are few, and rows without end.
    recent: [(Saved, u8); RECENT],
}

/// A power of two.
const RECENT: usize = 64;

impl Indices {
    fn get(&mut self, saved: Saved) -> Option<u8> {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let recent = &mut self.recent[(saved.0.wrapping_mul(FACTOR) >> (u64::BITS - RECENT.ilog2())) as usize];
        if recent.0 != saved {
            *recent = (saved, *self.all.get(&saved)?);
        }
        Some(recent.1)
    }
}

impl Layout {
    /// From `address` on, `rule` is in force.
    fn push(&mut self, address: u64, rule: Rule) -> Result<(), Reason> {
        self.open_pages(address)?;
        if rule == self.in_force {
            return Ok(());
        }
        let row = self.row_of(rule, address);
        let Table { pages, rows, .. } = &mut self.table;
        let first = pages.last().map_or(0, |page| page.first_row as usize);
        if rows.last().is_some_and(|last| rows.len() > first && last.pc == row.pc) {
            // The page's first row, repeated from the page before it: this one takes its place.
            rows.pop();
        }
        // After that, the row before may say the same.
        let is_same = |last: &Row| Row { pc: row.pc, ..*last } == row;
        if !rows.get(first..).and_then(|rows| rows.last()).is_some_and(is_same) {
            if rows.len() >= MAX_ROWS {
                return Err(Reason::TooLarge);
            }
            rows.push(row);
        }
        (self.in_force, self.row) = (rule, row);
        Ok(())
    }

    /// The row of a rule. Where there are too many ways of saving registers, of which compilers have a hundred in a file, the
    /// later ones are not known.
    fn row_of(&mut self, rule: Rule, address: u64) -> Row {
        if let Some(index) = self.indices.get(rule.saved) {
            return rule.at(address, index);
        }
        let [less, nothing] = rule.without_room();
        for rule in [rule, less] {
            if let Some(index) = self.indices.get(rule.saved) {
                return rule.at(address, index);
            }
            if let Ok(index) = u8::try_from(self.table.saved.len()) {
                self.indices.all.insert(rule.saved, index);
                self.table.saved.push(rule.saved);
                return rule.at(address, index);
            }
        }
        nothing.at(address, 0)
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
            rows.push(Row { pc: 0, ..self.row });
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
