//! The sources of names of one module, each by itself, the best first: the debug information of its debug files, its own,
//! and the tables of symbols of all of them. What is wrong with one takes nothing away from the others, and is told.

use std::cell::OnceCell;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::dwarf::{Dwarf, readable};
use super::named::Named;
use super::profile::Line;
use crate::functions::{Image, Symbols, mini, separate};
use crate::gopclntab;
use crate::target::Module;
use crate::unwind;

/// How much of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Depth {
    /// Debug information, the file's own and from elsewhere, and symbols.
    Full,
    /// Its own symbols.
    Symbols,
}

impl Depth {
    /// A word for it.
    pub fn what(self) -> &'static str {
        match self {
            Self::Full => "debug information",
            Self::Symbols => "symbols",
        }
    }
}

/// What names a module.
pub struct Sources {
    debug: Vec<Dwarf>,
    symbols: Symbols,
    /// Where its functions are, by its unwind information: virtual addresses.
    functions: OnceCell<Vec<Range<u64>>>,
    /// What was wrong with a source.
    problem: Option<&'static str>,
}

impl Sources {
    /// Finds and reads them.
    pub fn of(module: &Module, depth: Depth) -> Self {
        let symbols = Symbols::with_labels();
        let mut sources = Self { debug: Vec::new(), symbols, functions: OnceCell::new(), problem: None };
        let Some(file) = module.file() else {
            sources.problem = Some("file unreadable");
            return sources;
        };
        match Image::open(file) {
            Ok(image) => sources.read(module, &image, depth),
            Err(_) => sources.problem = Some("file unreadable"),
        }
        sources
    }

    fn read(&mut self, module: &Module, image: &Image<'_>, depth: Depth) {
        self.symbols.add(image);
        if self.symbols.add_go(image) == Err(gopclntab::Missing::Layout) {
            self.problem = Some("Go's table of functions has an unknown layout");
        }
        if depth == Depth::Full {
            self.read_debug(module, image);
        }
        self.symbols.finish();
    }

    fn read_debug(&mut self, module: &Module, image: &Image<'_>) {
        let is_complete = self.symbols.is_complete;
        let separate = separate(module, image, &[PathBuf::from("/")]);
        self.problem = separate.problem.or(self.problem);
        for file in separate.files.iter().chain(module.file()) {
            match Dwarf::open(file, module) {
                Some(Ok(debug)) => {
                    // Who has its own needs no other.
                    self.problem = debug.problem();
                    self.debug.push(debug);
                }
                Some(Err(problem)) => drop(self.problem.get_or_insert(problem)),
                None => {}
            }
        }
        if !is_complete {
            for file in &separate.files {
                let before = self.symbols.iter().count();
                if let Ok(image) = Image::open(file) {
                    self.symbols.add(&image);
                }
                if self.symbols.iter().count() == before && self.debug.is_empty() {
                    self.problem.get_or_insert("the debug file has no names");
                }
            }
            if let Some(mini) = mini(image) {
                self.symbols.add(&mini);
            }
        }
    }

    /// What an address of the file is called.
    pub fn name(&self, module: &Module, address: u64) -> Named {
        let mut problem = self.problem;
        for debug in &self.debug {
            match debug.find(address) {
                Ok(Some(told)) => {
                    let mut lines = told.lines;
                    problem = told.problem;
                    if let Some(last) = lines.last_mut().filter(|line| line.function.is_empty()) {
                        let Some(name) = self.symbol(module, address) else { continue };
                        last.function = name;
                    }
                    lines.retain(|line| !line.function.is_empty());
                    return Named { lines, start: None, problem };
                }
                Ok(None) => {}
                Err(reason) => problem = Some(reason),
            }
        }
        match self.symbol(module, address) {
            Some(function) => Named { lines: vec![Line { function, ..Line::default() }], start: None, problem },
            None => {
                let start = self.function(module, address).map(|range| range.start);
                Named { lines: Vec::new(), start, problem: Some(problem.unwrap_or("no symbol")) }
            }
        }
    }

    fn symbol(&self, module: &Module, address: u64) -> Option<String> {
        let function = self.function(module, address);
        let from = function.as_ref().map(|range| range.start);
        if let Some(name) = self.symbols.naming(address, from) {
            return Some(readable(name));
        }
        is_signal_return(module, from?).then(|| "__restore_rt".to_owned())
    }

    /// The function around an address.
    fn function(&self, module: &Module, address: u64) -> Option<Range<u64>> {
        let functions = self.functions.get_or_init(|| module.file().map(unwind::functions).unwrap_or_default());
        let end = functions.partition_point(|range| range.start <= address);
        functions[..end].last().filter(|range| range.contains(&address)).cloned()
    }
}

/// True for the code to which a signal handler returns (`mov $15, %rax; syscall`), which has no name in a stripped C library.
/// Its unwind information begins a byte before it, so that those who look a return address up find it.
fn is_signal_return(module: &Module, start: u64) -> bool {
    const CODE: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let read = || Image::open(module.file()?).ok()?.code(start, 1 + CODE.len() as u64);
    read().is_some_and(|bytes| bytes.starts_with(CODE) || bytes[1..].starts_with(CODE))
}
