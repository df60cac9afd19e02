//! Unwind tables for what processes map: built off the hot path by a few threads, shared by all processes that map the
//! same file, bounded in memory.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::kernel::{MappedRange, NO_TABLE, UnwindTables};
use crate::target::{Mappings, Module};
use crate::unwind::Table;

/// Threads that build. Publishing a table waits for the kernel, so that more of them than CPUs help.
const BUILDERS: usize = 8;

/// The tables in use and on their way.
pub struct Unwinding {
    requests: Sender<Request>,
    built: Receiver<Built>,
    /// By the module's address, which its `Weak` keeps from being used again.
    modules: HashMap<usize, Entry>,
    /// What the tables shall be called that take the free places.
    free: Vec<u32>,
    pending: usize,
    bytes: usize,
    memory: usize,
    refused: u64,
}

struct Entry {
    module: Weak<Module>,
    state: State,
}

enum State {
    Requested,
    Ready(Ready),
    /// It has no unwind information, or no memory was left.
    Without,
}

#[derive(Clone, Copy)]
struct Ready {
    /// As in [`MappedRange::table`].
    table: u32,
    /// Number of its first page of 64 KiB.
    first_page: u64,
    pages: u32,
    bytes: usize,
}

struct Request {
    module: Arc<Module>,
    table: u32,
}

struct Built {
    module: Arc<Module>,
    table: u32,
    result: Result<Ready>,
}

impl Unwinding {
    /// Starts the threads that build. `memory` bounds the tables in the kernel, in bytes.
    pub fn start(tables: &UnwindTables, memory: usize) -> Result<Self> {
        // Both queues hold at most one entry for each place, of which there are a fixed number.
        let (requests, inbox) = channel::<Request>();
        let (outbox, built) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..BUILDERS {
            let (inbox, outbox, mut tables) = (inbox.clone(), outbox.clone(), tables.try_clone()?);
            std::thread::Builder::new().name("unwind".into()).spawn(move || {
                loop {
                    let request = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Request { module, table }) = request else { return };
                    let result = build(&module, table, &mut tables);
                    if outbox.send(Built { module, table, result }).is_err() {
                        return;
                    }
                }
            })?;
        }
        let free = (0..UnwindTables::PLACES).rev().collect();
        Ok(Self { requests, built, modules: HashMap::new(), free, pending: 0, bytes: 0, memory, refused: 0 })
    }

    /// What the kernel is to know of a process's mappings, and whether all of their tables are there. Tables that are not
    /// are asked for.
    pub fn ranges(&mut self, mappings: &Mappings) -> (Vec<MappedRange>, bool) {
        let mut complete = true;
        let mut ranges = Vec::with_capacity(mappings.len());
        for (start, end, file_offset, module) in mappings.iter() {
            // The search in the kernel goes by the signs of differences, which the vsyscall page would upset.
            if end > MappedRange::UNUSED.start {
                continue;
            }
            let mut range = MappedRange { start, end, bias: 0, table: NO_TABLE, pages: 0 };
            match self.state(module) {
                Some(State::Ready(ready)) => {
                    if let Some(bias) = module.bias(start, file_offset) {
                        range.bias = bias.wrapping_add(ready.first_page << 16);
                        (range.table, range.pages) = (ready.table, ready.pages);
                    }
                }
                Some(State::Requested) => complete = false,
                Some(State::Without) | None => {}
            }
            ranges.push(range);
        }
        (ranges, complete)
    }

    fn state(&mut self, module: &Arc<Module>) -> Option<&State> {
        module.file()?;
        let key = Arc::as_ptr(module) as usize;
        if !self.modules.contains_key(&key) {
            let state = match self.free.pop() {
                Some(table) if self.bytes < self.memory => {
                    self.pending += 1;
                    // The builders live as long as this does.
                    let _ = self.requests.send(Request { module: module.clone(), table });
                    State::Requested
                }
                table => {
                    self.free.extend(table);
                    self.refused += 1;
                    State::Without
                }
            };
            self.modules.insert(key, Entry { module: Arc::downgrade(module), state });
        }
        self.modules.get(&key).map(|entry| &entry.state)
    }

    /// Takes what has been built since the last call; true if there was anything.
    pub fn take_built(&mut self) -> bool {
        let mut any = false;
        while let Ok(Built { module, table, result }) = self.built.try_recv() {
            any = true;
            self.pending -= 1;
            let state = match result {
                Ok(ready) => {
                    self.bytes += ready.bytes;
                    State::Ready(ready)
                }
                Err(error) => {
                    tracing::debug!(path = module.path, error = format!("{error:#}"), "no unwind table");
                    self.free.push(table);
                    State::Without
                }
            };
            if let Some(entry) = self.modules.get_mut(&(Arc::as_ptr(&module) as usize)) {
                entry.state = state;
            }
        }
        any
    }

    /// How many tables are on their way.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Forgets the tables of modules that nobody maps and no stack refers to.
    pub fn sweep(&mut self) {
        let (free, bytes) = (&mut self.free, &mut self.bytes);
        self.modules.retain(|_, entry| {
            let used = entry.module.strong_count() > 0;
            if !used && let State::Ready(ready) = entry.state {
                // The kernel frees the table when another one takes its place.
                free.insert(0, next_in_place(ready.table));
                *bytes -= ready.bytes;
            }
            used
        });
    }

    /// Executables that were refused a table because the bound on memory was reached.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Tables in the kernel.
    pub fn tables(&self) -> usize {
        self.modules.values().filter(|entry| matches!(entry.state, State::Ready(_))).count()
    }

    /// Bytes of tables in the kernel.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn build(module: &Module, table: u32, tables: &mut UnwindTables) -> Result<Ready> {
    let file = module.file().context("its file is not open")?;
    let begin = Instant::now();
    let built = Table::of_file(file)?;
    let made = begin.elapsed();
    let bytes = tables.put(table % UnwindTables::PLACES, &words(&built))?;
    let (made_us, put_us) = (made.as_micros() as u64, (begin.elapsed() - made).as_micros() as u64);
    tracing::debug!(path = module.path, bytes, made_us, put_us, "an unwind table");
    Ok(Ready { table, first_page: built.first_page, pages: built.pages.len() as u32, bytes })
}

/// What the next table in the same place is called.
fn next_in_place(table: u32) -> u32 {
    // One bit less than there is, so that it never is `NO_TABLE`.
    table.wrapping_add(UnwindTables::PLACES) & i32::MAX as u32
}

/// A table as the kernel reads it: an entry for each page, then the rows.
fn words(table: &Table) -> Vec<u64> {
    let pages = table.pages.iter().map(|page| {
        let first_row = page.first_row + table.pages.len() as u32;
        u64::from(first_row) | u64::from(page.row_count) << 32
    });
    let rows = table.rows.iter().map(|row| {
        let (rule, fp) = (u64::from(row.rule) << 16, u64::from(row.fp) << 24);
        u64::from(row.pc) | rule | fp | u64::from(row.cfa_offset as u32) << 32
    });
    pages.chain(rows).collect()
}
