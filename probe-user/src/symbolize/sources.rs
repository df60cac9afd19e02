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
        if image.is_damaged {
            self.problem = Some("the file is damaged");
        }
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
            match mini(image) {
                Some(Some(mini)) => self.symbols.add(&mini),
                Some(None) => drop(self.problem.get_or_insert("the compressed symbols (.gnu_debugdata) are damaged")),
                None => {}
            }
        }
        if self.symbols.is_damaged {
            self.problem.get_or_insert("the table of symbols is damaged");
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
                    if let Some(last) = lines.last_mut() {
                        let symbol = self.symbol(module, address);
                        match symbol.filter(|symbol| last.function.is_empty() || is_fuller(symbol, &last.function)) {
                            Some(name) => last.function = name,
                            None if last.function.is_empty() => continue,
                            None => {}
                        }
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

/// Whether a symbol tells more of a function than debug information, which has no name for the linker of what is not seen outside
/// of its file: `a::(anonymous namespace)::S::operator bool() const` of `operator bool`.
fn is_fuller(symbol: &str, name: &str) -> bool {
    !name.contains("::")
        && symbol.match_indices(name).any(|(at, _)| {
            let (before, after) = (&symbol[..at], &symbol[at + name.len()..]);
            // The types of parameters may have the name in them as well.
            let is_in_scope = before.matches('(').count() == before.matches(')').count();
            before.ends_with("::") && is_in_scope && (after.is_empty() || after.starts_with(['(', '<', ' ']))
        })
}

/// True for the code to which a signal handler returns (`mov $15, %rax; syscall`), which has no name in a stripped C library.
/// Its unwind information begins a byte before it, so that those who look a return address up find it.
fn is_signal_return(module: &Module, start: u64) -> bool {
    const CODE: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let read = || Image::open(module.file()?).ok()?.code(start, 1 + CODE.len() as u64);
    read().is_some_and(|bytes| bytes.starts_with(CODE) || bytes[1..].starts_with(CODE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_give_scopes_to_short_names() {
        assert!(is_fuller("a::(anonymous namespace)::S::operator bool() const", "operator bool"));
        assert!(is_fuller("main::{lambda()#1}::operator()() const", "operator()") && is_fuller("N<int>::run()", "run"));
        assert!(!is_fuller("over(int)", "over") && !is_fuller("work.isra.0", "work") && !is_fuller("main", "main"));
        assert!(!is_fuller("f(a::run)", "run") && !is_fuller("a::runs()", "run") && !is_fuller("a::b::f()", "b::f"));
    }
}
