//! `Packed`: a table as the kernel reads it, built by a reader and checked here.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use probe_ebpf::table::{DERIVED, PAGE_BITS, rule};
use serde::{Deserialize, Serialize};

use super::{Effort, MAX_PAGES, MAX_ROWS, Table};
use crate::reader::{self, Access, Done, Job};
use crate::target::{Module, Told};

const WORD: usize = size_of::<u64>();

/// An entry for each page, what rows say of saved registers, then the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// See [`Table::first_page`].
    pub first_page: u64,
    /// Number of pages.
    pub pages: u32,
    /// All of them.
    pub words: Vec<u64>,
    /// See [`Table::is_partial`].
    pub is_partial: bool,
}

impl Packed {
    /// The table of a module. Waits until its file is open and a reader has read it.
    pub fn of_module(module: &Module, effort: Effort) -> Result<Self> {
        let (told, file) = module.tell();
        let file = file.context("its file is not open")?;
        let Done { answer, bytes, .. } = reader::ask(Build { told, effort }, &[file], Build::TIME)?;
        match answer {
            Ok((first_page, pages, is_partial)) => Ok(Self { is_partial, ..Self::checked(first_page, pages, &bytes)? }),
            Err(reason) => bail!(reason),
        }
    }

    /// How many bytes of code have a row that tables say, and how many one that was derived from instructions.
    pub fn covered(&self) -> (u64, u64) {
        let (mut by_table, mut derived) = (0, 0);
        for page in &self.words[..self.pages as usize] {
            let (first, count) = (*page as u32 as usize, (*page >> 32) as usize);
            let rows = &self.words[first..first + count];
            let ends = rows.iter().skip(1).map(|row| u64::from(*row as u16)).chain([1 << PAGE_BITS]);
            for (row, end) in rows.iter().zip(ends) {
                let (pc, rule) = (u64::from(*row as u16), (*row >> 16) as u8);
                match rule {
                    rule::NONE => {}
                    rule if rule & DERIVED != 0 => derived += end.saturating_sub(pc),
                    _ => by_table += end.saturating_sub(pc),
                }
            }
        }
        (by_table, derived)
    }

    fn of_table(table: &Table) -> Self {
        let pages = table.pages.iter().map(|page| {
            let first_row = page.first_row + (table.pages.len() + table.saved.len()) as u32;
            u64::from(first_row) | u64::from(page.row_count) << 32
        });
        let rows = table.rows.iter().map(|row| {
            let (rule, saved) = (u64::from(row.rule) << 16, u64::from(row.saved) << 24);
            u64::from(row.pc) | rule | saved | u64::from(row.cfa_offset as u32) << 32
        });
        let saved = table.saved.iter().map(|saved| saved.0);
        let words = pages.chain(saved).chain(rows).collect();
        let (first_page, pages) = (table.first_page, table.pages.len() as u32);
        Self { first_page, pages, words, is_partial: table.is_partial }
    }

    /// What a reader has sent, if it is a table: who has read a hostile file is not believed.
    fn checked(first_page: u64, pages: u32, bytes: &[u8]) -> Result<Self> {
        let words: Vec<u64> = bytes.as_chunks::<WORD>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let rows = words.len().checked_sub(pages as usize).context("a table of fewer words than pages")?;
        ensure!(u64::from(pages) <= MAX_PAGES && rows <= MAX_ROWS, "a table of {pages} pages and {rows} rows");
        let is_inside = |page: &u64| {
            let (first, count) = (*page as u32 as usize, (*page >> 32) as usize);
            first >= pages as usize && first.saturating_add(count) <= words.len()
        };
        ensure!(words[..pages as usize].iter().all(is_inside), "a table with a page outside of it");
        Ok(Self { first_page, pages, words, is_partial: false })
    }
}

/// To build the table of a module.
#[derive(Debug, Serialize, Deserialize)]
pub struct Build {
    told: Told,
    effort: Effort,
}

impl Job for Build {
    const NAME: &'static str = "table";
    const ACCESS: Access = Access::Read;
    const TIME: Duration = Duration::from_secs(10);
    /// A browser's sections and rows take a tenth of it.
    const MEMORY: u64 = 512 << 20;
    /// First page, number of pages and whether it is partial, or why there is no table.
    type Answer = Result<(u64, u32, bool), String>;

    fn run(self, files: Vec<OwnedFd>) -> Done<Self::Answer> {
        let Some(handle) = files.into_iter().next() else { return Done::answer(Err("no file".into())) };
        let module = Module::of_told(self.told, handle);
        let table = module.file().ok_or_else(|| "the file cannot be opened".to_owned());
        let table =
            table.and_then(|file: &File| Table::of_file(file, self.effort).map_err(|reason| reason.to_string()));
        match table.map(|table| Packed::of_table(&table)) {
            Ok(Packed { first_page, pages, words, is_partial }) => Done {
                answer: Ok((first_page, pages, is_partial)),
                bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
                files: Vec::new(),
            },
            Err(reason) => Done::answer(Err(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was_built() {
        let module = Module::open(Path::new("/proc/self/exe")).expect("opens");
        let table = Table::of_file(module.file().expect("open"), Effort::Full).expect("has one");
        let packed = Packed::of_module(&module, Effort::Full).expect("has one");
        assert_eq!(packed, Packed::of_table(&table));
        assert_eq!(packed.words.len(), table.pages.len() + table.saved.len() + table.rows.len());
    }

    #[test]
    fn rows_that_take_long_to_derive_come_with_more_effort_only() {
        // The C library is small; this program, with its assembly, is not.
        let of =
            |path, effort| Packed::of_module(&Module::open(Path::new(path)).expect("opens"), effort).expect("has one");
        let quick = of("/proc/self/exe", Effort::Quick);
        let full = of("/proc/self/exe", Effort::Full);
        assert!(quick.is_partial && !full.is_partial);
        let ((by_table, few), (also_by_table, derived)) = (quick.covered(), full.covered());
        assert!(also_by_table.abs_diff(by_table) < by_table / 1000, "{also_by_table} is not {by_table}");
        assert!(few < derived && derived < by_table / 10, "{few} {derived} {by_table}");
        assert_eq!((quick.first_page, quick.pages), (full.first_page, full.pages));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let page = |first: u64, count: u64| first | count << 32;
        assert!(Packed::checked(0, 1, &bytes(&[page(1, 2), 7, 8])).is_ok());
        for (pages, words) in [
            (1, vec![page(1, 3), 7, 8]),
            (1, vec![page(0, 1), 7]),
            (2, vec![page(2, 0)]),
            (1, vec![page(u64::from(u32::MAX), 1), 0]),
            (u32::MAX, vec![]),
        ] {
            assert!(Packed::checked(0, pages, &bytes(&words)).is_err(), "{pages} {words:x?}");
        }
    }
}
