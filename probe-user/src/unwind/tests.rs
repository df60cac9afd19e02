//! Tables of this machine's programs, against gimli's own answers; hostile files; and a walk up our own stack.

use std::path::Path;
use std::time::Instant;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindSection, X86_64,
};
use object::{Object, ObjectSection};
use probe_ebpf::kept::base;
use probe_ebpf::table::{Row, rule, search_block};

use super::*;

mod compiled;
mod damage;
mod made;
mod walk;

/// Programs and libraries that are there.
fn programs() -> Vec<(String, Vec<u8>)> {
    let own = std::env::current_exe().unwrap();
    let paths = [
        own.to_str().unwrap(),
        "/usr/bin/python3",
        "/usr/bin/node",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/libc.so.6",
        "/lib/x86_64-linux-gnu/libcrypto.so.3",
        "/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/lib64/ld-linux-x86-64.so.2",
    ];
    let paths = paths.into_iter().filter(|path| Path::new(path).exists());
    paths.map(|path| (path.to_owned(), std::fs::read(path).unwrap())).collect()
}

fn section<'data>(file: &object::File<'data>, name: &str) -> Option<(u64, &'data [u8])> {
    let section = file.section_by_name(name)?;
    Some((section.address(), section.data().unwrap()))
}

/// gimli's own search and evaluation.
struct Reference<'data> {
    eh_frame: EhFrame<EndianSlice<'data, LittleEndian>>,
    header: gimli::ParsedEhFrameHdr<EndianSlice<'data, LittleEndian>>,
    bases: BaseAddresses,
    context: UnwindContext<usize>,
}

impl<'data> Reference<'data> {
    fn of(file: &object::File<'data>) -> Self {
        let (address, bytes) = section(file, ".eh_frame").unwrap();
        let (header_address, header) = section(file, ".eh_frame_hdr").unwrap();
        let bases = BaseAddresses::default().set_eh_frame(address).set_eh_frame_hdr(header_address);
        let header = EhFrameHdr::from(EndianSlice::new(header, LittleEndian)).parse(&bases, 8).unwrap();
        Self { eh_frame: EhFrame::new(bytes, LittleEndian), header, bases, context: UnwindContext::new() }
    }

    /// The starts and ends of some functions.
    fn functions(&self, every: usize) -> Vec<(u64, u64)> {
        let table = self.header.table().unwrap();
        let entries = table.iter(&self.bases).enumerate().filter(|(at, _)| at % every == 0);
        let starts = entries.map(|(_, entry)| entry.unwrap().0.pointer());
        let end = |start| self.fde(start).map(|fde| (fde.initial_address(), fde.end_address()));
        starts.filter_map(end).collect()
    }

    fn fde(&self, address: u64) -> Option<gimli::FrameDescriptionEntry<EndianSlice<'data, LittleEndian>>> {
        let table = self.header.table().unwrap();
        table.fde_for_address(&self.eh_frame, &self.bases, address, EhFrame::cie_from_offset).ok()
    }

    /// What a table's rule must be like.
    fn agrees(&mut self, address: u64, Rule { row, saved }: Rule) -> Result<(), String> {
        let Some(fde) = self.fde(address) else {
            // Padding may go on with what was in force.
            let padding = (1..16).any(|back| self.fde(address - back).is_some());
            return if row.rule == rule::NONE || row.is_derived() || padding { Ok(()) } else { Err("no FDE".into()) };
        };
        let truth = fde.unwind_info_for_address(&self.eh_frame, &self.bases, &mut self.context, address).unwrap();
        // The registers that functions keep, where their places are counted from the CFA.
        let is_saved = |(slot, number): (usize, u16)| match truth.register(Register(number)) {
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => saved.place(slot) == 0,
            Some(RegisterRule::Offset(offset @ -1016..=-16)) => {
                i64::from(saved.place(slot)) == i64::from(Saved::HERE) + offset / 8 || saved.base(slot > 0) != base::CFA
            }
            Some(_) => true,
        };
        let are_saved = [6, 3, 12, 13, 14, 15].into_iter().enumerate().all(is_saved);
        let wanted = match (truth.cfa(), truth.register(X86_64::RA)) {
            (_, Some(RegisterRule::Undefined)) => row.rule == rule::END,
            (CfaRule::RegisterAndOffset { register, offset }, Some(RegisterRule::Offset(-8))) => {
                let rule = match *register {
                    X86_64::RSP => row.rule == rule::RSP,
                    X86_64::RBP => row.rule == rule::RBP,
                    _ => row.rule & 0xf0 == rule::REGISTER,
                };
                rule && i64::from(row.cfa_offset) == *offset && are_saved
            }
            (CfaRule::Expression(_), _) => {
                [rule::PLT, rule::SIGNAL, rule::RSP_DEREF, rule::RBP_DEREF].contains(&row.rule)
                    || [rule::DEREF, rule::INDEXED].contains(&(row.rule & 0xf0))
            }
            (_, return_address) => {
                row.rule == rule::UNSUPPORTED_RETURN_ADDRESS
                    || matches!(return_address, Some(RegisterRule::Register(_)))
                        && row.rule & 0xf0 == rule::RETURN_ADDRESS_IN
            }
        };
        let is_unusual = row.rule == rule::UNSUPPORTED_FRAME_POINTER;
        if wanted || is_unusual { Ok(()) } else { Err(format!("{:?} {:?}", truth.cfa(), truth.register(X86_64::RBP))) }
    }
}

#[test]
fn rows_say_what_gimli_says() {
    let mut compared = 0;
    for (path, bytes) in programs() {
        let file = object::File::parse(&*bytes).unwrap();
        if file.section_by_name(".eh_frame_hdr").is_none() {
            continue;
        }
        let table = Table::build(&*bytes).unwrap();
        let mut reference = Reference::of(&file);
        // The same in each run, so that a failure can be repeated.
        let mut random = fastrand::Rng::with_seed(0x5eed);
        let functions = reference.functions(if bytes.len() > 10_000_000 { 101 } else { 7 });
        for (start, end) in functions {
            let inside = (0..8).map(|_| random.u64(start..end));
            for address in [start, end - 1, end, end + 15].into_iter().chain(inside.collect::<Vec<_>>()) {
                let Some(rule) = table.rule(address) else { continue };
                if let Err(truth) = reference.agrees(address, rule) {
                    panic!("{path} {address:#x}: {rule:?}, but {truth}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared}");
}

/// The search as the kernel does it: the block with the last row that is not behind, then within the block.
fn search_as_the_kernel(blocks: &[Block], page: Page, pc: u16) -> Row {
    let (first, end) = (page.first_row as usize, (page.first_row + page.row_count) as usize);
    let (mut block, last) = (first / BLOCK_ROWS, (end - 1) / BLOCK_ROWS);
    while block < last && blocks[block + 1].rows[0].pc <= pc {
        block += 1;
    }
    let from = first.saturating_sub(block * BLOCK_ROWS);
    let to = (end - block * BLOCK_ROWS).min(BLOCK_ROWS);
    blocks[block].rows[search_block(&blocks[block], from, to, pc)]
}

#[test]
fn every_page_is_searched_alone() {
    for (path, bytes) in programs() {
        let table = Table::build(&*bytes).unwrap();
        let blocks: Vec<_> = table.blocks().collect();
        let mut in_force = None;
        let mut next = 0;
        for (number, page) in table.pages.iter().enumerate() {
            assert_eq!(page.first_row, next, "{path}: dense");
            next += page.row_count;
            let rows = &table.rows[page.first_row as usize..next as usize];
            assert_eq!(rows[0].pc, 0, "{path}: the beginning is covered");
            assert!(rows.is_sorted_by(|a, b| a.pc < b.pc), "{path}: sorted");
            let same = |pair: &[Row]| Row { pc: 0, ..pair[0] } == Row { pc: 0, ..pair[1] };
            assert!(!rows.windows(2).any(same), "{path}: merged");
            let start = (table.first_page + number as u64) << PAGE_BITS;
            for (at, row) in rows.iter().enumerate() {
                let end = rows.get(at + 1).map_or(u16::MAX, |next| next.pc - 1);
                for pc in [row.pc, end] {
                    assert_eq!(table.lookup(start | u64::from(pc)), Some(*row), "{path} {start:#x} {pc:#x}");
                    assert_eq!(search_as_the_kernel(&blocks, *page, pc), *row, "{path} {start:#x} {pc:#x}");
                }
            }
            in_force = rows.last();
        }
        assert_eq!(next as usize, table.rows.len());
        assert!(in_force.is_some());
        assert_eq!(table.lookup((table.first_page + table.pages.len() as u64) << PAGE_BITS), None);
        assert_eq!(table.lookup(table.first_page.checked_sub(1).map_or(u64::MAX, |page| page << PAGE_BITS)), None);
    }
}

#[test]
fn almost_all_rows_can_be_followed() {
    for (path, bytes) in programs() {
        let file = object::File::parse(&*bytes).unwrap();
        let size = section(&file, ".eh_frame").unwrap().1.len();
        let started = Instant::now();
        let table = Table::build(&*bytes).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let share = |kinds: &[u8]| {
            table.rows.iter().filter(|row| kinds.contains(&row.rule)).count() as f64 / table.rows.len() as f64
        };
        let unsupported = share(&[9, 10, 11, 12, 13]);
        println!(
            "{path}: {} rows, {} pages, {} bytes of {size} in .eh_frame; {:.0} MB/s; none {:.2} %, unsupported {:.3} % \
             (expression {:.3}, register {:.3}, fp {:.3})",
            table.rows.len(),
            table.pages.len(),
            table.bytes(),
            size as f64 / seconds / 1e6,
            100. * share(&[rule::NONE]),
            100. * unsupported,
            100. * share(&[rule::UNSUPPORTED_EXPRESSION]),
            100. * share(&[rule::UNSUPPORTED_REGISTER]),
            100. * share(&[rule::UNSUPPORTED_FRAME_POINTER]),
        );
        // `setjmp` and its like, which go to other stacks, are a few rows in any C library.
        assert!(unsupported < 0.0001 || unsupported * table.rows.len() as f64 <= 8.0, "{path}: {unsupported}");
        assert_eq!(table.unreadable_entries, 0, "{path}");
    }
}
