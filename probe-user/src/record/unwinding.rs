//! Unwind tables for what processes map: shared by all processes that map the same file, and bounded in memory, within
//! which the least recently used give way.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use anyhow::Result;

use super::builders::{Builders, Built, Ready};
use crate::kernel::{FileKey, FileTable, MappedRange, MappingTable, NO_TABLE, UnwindTables};
use crate::target::{Identity, Mappings, Module, ModuleKind};
use crate::unwind::Effort;

/// A table that no stack has needed for this long may be evicted.
const IDLE_NS: u64 = 10_000_000_000;
/// An evicted one is needed again when a stack had its code so recently.
const RECENT_NS: u64 = 2_000_000_000;
/// Eviction frees this part of the memory, so that it is not needed for each table.
const ROOM: usize = 8;

/// The tables in use and on their way.
pub struct Unwinding {
    builders: Builders,
    /// By the module's address, which its `Weak` keeps from being used again.
    modules: HashMap<usize, Entry>,
    /// What the tables shall be called that take the free places.
    free: Vec<u32>,
    pending: usize,
    /// Of these, such as take the place of others that are there.
    improving: usize,
    bytes: usize,
    memory: usize,
    refused: u64,
    /// Tables that were evicted or have better ones in their place, and are still in the kernel.
    evicted: Vec<u32>,
    /// Modules whose tables have better ones in their place, which processes are still to be told of.
    improved: HashSet<usize>,
    /// Pieces of files that the kernel knows, with their tables; what it has still to be told comes last.
    files: HashMap<FileKey, FileTable>,
    new_files: Vec<FileKey>,
}

struct Entry {
    module: Weak<Module>,
    state: State,
}

enum State {
    Requested,
    Ready(Ready),
    /// It has no unwind information.
    Without,
    /// No memory was left.
    Refused,
    /// Others needed its memory more.
    Evicted,
}

impl Unwinding {
    /// Starts the threads that build. `memory` bounds the tables in the kernel, in bytes.
    pub fn start(tables: &UnwindTables, memory: usize) -> Result<Self> {
        let builders = Builders::start(tables)?;
        let free = (0..UnwindTables::PLACES).rev().collect();
        Ok(Self {
            builders,
            modules: HashMap::new(),
            free,
            pending: 0,
            improving: 0,
            bytes: 0,
            memory,
            refused: 0,
            evicted: Vec::new(),
            improved: HashSet::new(),
            files: HashMap::new(),
            new_files: Vec::new(),
        })
    }

    /// What the kernel is to know of a process's mappings, and whether all of their tables are there. Tables that are not
    /// are asked for.
    pub fn ranges(&mut self, mappings: &Mappings) -> (Vec<MappedRange>, bool) {
        let (mut complete, mut found) = (true, Vec::new());
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
                        let file =
                            FileTable { start: start.wrapping_sub(range.bias), table: ready.table, pages: ready.pages };
                        found.extend(module.identity().map(|identity| (file_key(identity, file_offset), file)));
                    }
                }
                Some(State::Requested) => complete = false,
                Some(State::Without | State::Refused | State::Evicted) | None => {}
            }
            ranges.push(range);
        }
        for (key, file) in found {
            if self.files.insert(key, file) != Some(file) {
                self.new_files.push(key);
            }
        }
        (ranges, complete)
    }

    /// Tells the kernel of files whose tables are there, and are not any more.
    pub fn tell_files(&mut self, kernel: &mut MappingTable) {
        for key in self.new_files.drain(..) {
            if let Some(&file) = self.files.get(&key) {
                kernel.set_file(key, file);
            }
        }
        let tables = self.modules.values().filter_map(|entry| match entry.state {
            State::Ready(ready) => Some(ready.table),
            _ => None,
        });
        let tables: HashSet<u32> = tables.collect();
        self.files.retain(|&key, file| {
            let is_there = tables.contains(&file.table);
            if !is_there {
                kernel.remove_file(key);
            }
            is_there
        });
    }

    fn state(&mut self, module: &Arc<Module>) -> Option<&State> {
        // A file that is still being opened is waited for by who builds its table.
        if module.kind == ModuleKind::Anonymous || module.opened().is_some_and(|opened| !opened.is_file()) {
            return None;
        }
        let key = Arc::as_ptr(module) as usize;
        if !self.modules.contains_key(&key) {
            let state = if self.request(module, Effort::Quick) {
                State::Requested
            } else {
                self.refused += 1;
                State::Refused
            };
            self.modules.insert(key, Entry { module: Arc::downgrade(module), state });
        }
        self.modules.get(&key).map(|entry| &entry.state)
    }

    /// Asks for a table; false if there is no memory for it.
    fn request(&mut self, module: &Arc<Module>, effort: Effort) -> bool {
        if self.bytes >= self.memory {
            return false;
        }
        let Some(table) = self.free.pop() else { return false };
        self.pending += 1;
        self.improving += usize::from(effort == Effort::Full);
        self.builders.build(module.clone(), table, effort);
        true
    }

    /// True if some executable has no table for lack of memory.
    pub fn is_short(&self) -> bool {
        self.modules.values().any(|entry| matches!(entry.state, State::Refused | State::Evicted))
    }

    /// Makes room, where memory is short, by evicting the least recently used tables, and asks for those that are needed
    /// more. `used_ns` is when each module was last seen in a stack, `now_ns` the present, both `CLOCK_MONOTONIC`. Returns
    /// true if what the kernel knows of mappings has to change.
    pub fn make_room(&mut self, used_ns: &HashMap<usize, u64>, now_ns: u64) -> bool {
        let last_used = |key: &usize| used_ns.get(key).copied().unwrap_or(0);
        let is_wanted = |key: &usize, state: &State| match state {
            State::Refused => true,
            State::Evicted => now_ns.saturating_sub(last_used(key)) < RECENT_NS,
            State::Requested | State::Ready(_) | State::Without => false,
        };
        let wanted: Vec<(usize, Arc<Module>)> = self
            .modules
            .iter()
            .filter(|(key, entry)| is_wanted(key, &entry.state))
            .filter_map(|(&key, entry)| Some((key, entry.module.upgrade()?)))
            .collect();
        if wanted.is_empty() {
            return false;
        }
        let tables = self.modules.iter().filter_map(|(&key, entry)| match entry.state {
            State::Ready(ready) => Some((key, ready.bytes, last_used(&key))),
            _ => None,
        });
        let excess = self.bytes.saturating_sub(self.memory - self.memory / ROOM);
        let victims = victims(tables.collect(), excess, now_ns.saturating_sub(IDLE_NS));
        for key in &victims {
            let Some(entry) = self.modules.get_mut(key) else { continue };
            if let State::Ready(ready) = std::mem::replace(&mut entry.state, State::Evicted) {
                self.bytes -= ready.bytes;
                self.evicted.push(ready.table);
            }
        }
        let mut any = !victims.is_empty();
        for (key, module) in wanted {
            if !self.request(&module, Effort::Quick) {
                break;
            }
            any = true;
            if let Some(entry) = self.modules.get_mut(&key) {
                entry.state = State::Requested;
            }
        }
        tracing::debug!(evicted = victims.len(), bytes = self.bytes, "unwind tables are short of memory");
        any
    }

    /// Frees the tables that were evicted or replaced. To be called when no mapping refers to them any more.
    pub fn free_evicted(&mut self) {
        for table in self.evicted.drain(..) {
            self.builders.clear(table);
        }
    }

    /// Takes what has been built since the last call; true if there was anything.
    pub fn take_built(&mut self) -> bool {
        let mut any = false;
        while let Some(built) = self.builders.next() {
            let (module, table, effort, result) = match built {
                Built::Table { module, table, effort, result } => (module, table, effort, result),
                Built::Place { table } => {
                    self.free.push(table);
                    continue;
                }
            };
            self.pending -= 1;
            if effort == Effort::Full {
                self.improving -= 1;
                self.improve(&module, table, result);
                continue;
            }
            any = true;
            let is_partial = result.as_ref().is_ok_and(|ready| ready.is_partial);
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
                if is_partial {
                    self.request(&module, Effort::Full);
                }
            }
        }
        any
    }

    /// Takes a table that is better than the one which is there.
    fn improve(&mut self, module: &Arc<Module>, table: u32, result: Result<Ready>) {
        let key = Arc::as_ptr(module) as usize;
        let state = self.modules.get_mut(&key).map(|entry| &mut entry.state);
        match (result, state) {
            (Ok(better), Some(State::Ready(ready))) => {
                let before = std::mem::replace(ready, better);
                self.bytes = self.bytes - before.bytes + better.bytes;
                self.evicted.push(before.table);
                self.improved.insert(key);
            }
            // Others needed the memory more meanwhile.
            (Ok(better), _) => self.builders.clear(better.table),
            (Err(error), _) => {
                tracing::debug!(path = module.path, error = format!("{error:#}"), "no derived rows");
                self.free.push(table);
            }
        }
    }

    /// Modules, by their addresses, that have better tables since the last call: who maps one of them has to be told. Until then the
    /// former tables stay.
    pub fn take_improved(&mut self) -> HashSet<usize> {
        std::mem::take(&mut self.improved)
    }

    /// How many tables are on their way that are the first of their modules.
    pub fn pending(&self) -> usize {
        self.pending - self.improving
    }

    /// How many are on their way that are better than those which are there.
    pub fn improving(&self) -> usize {
        self.improving
    }

    /// Forgets the tables of modules that nobody maps and no stack refers to.
    pub fn sweep(&mut self) {
        let (builders, bytes) = (&self.builders, &mut self.bytes);
        self.modules.retain(|_, entry| {
            let used = entry.module.strong_count() > 0;
            if !used && let State::Ready(ready) = entry.state {
                builders.clear(ready.table);
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

/// How the kernel knows a piece of a file.
fn file_key(identity: Identity, file_offset: u64) -> FileKey {
    let (device, inode, changed_ns) = identity.of_kernel();
    FileKey { inode, changed_ns, file_offset, device, zero: 0 }
}

/// Which tables to evict: the least recently used, of those that were not used since `idle_ns`, until `excess` bytes are
/// free. Takes key, bytes and time of last use of each.
fn victims(mut tables: Vec<(usize, usize, u64)>, excess: usize, idle_ns: u64) -> Vec<usize> {
    tables.sort_by_key(|&(_, _, used_ns)| used_ns);
    let mut freed = 0;
    let idle = tables.into_iter().take_while(|&(_, bytes, used_ns)| {
        let is_needed = freed < excess;
        freed += bytes;
        is_needed && used_ns < idle_ns
    });
    idle.map(|(key, ..)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_tables_go_and_no_more_than_needed() {
        let tables = vec![(1, 100, 50), (2, 100, 10), (3, 100, 30), (4, 100, 99)];
        assert_eq!(victims(tables.clone(), 150, 90), [2, 3]);
        assert_eq!(victims(tables.clone(), 1000, 90), [2, 3, 1], "what is in use stays");
        assert_eq!(victims(tables, 0, 90), [0; 0]);
    }
}
