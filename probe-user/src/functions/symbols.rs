//! The functions that an executable file's tables name: `.symtab`, `.dynsym`, Go's own table, and what debug files add.

use object::elf::{
    SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT, STT_TLS, Sym64,
};

use super::demangle::without_version;
use super::image::{Image, string_at};
use crate::gopclntab;

/// More symbols than this of one file are not looked at: a browser with all of its own has a million.
const MAX_SYMBOLS: usize = 4 << 20;

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A function.
    Function,
    /// A function that the loader calls to be told which one to use (`STT_GNU_IFUNC`).
    Indirect,
    /// Something in code that has no type: hand-written assembly.
    Untyped,
    /// Data.
    Data,
}

/// A symbol that the file defines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    pub address: u64,
    pub size: u64,
    pub sort: Sort,
    /// Seen by the linker.
    pub is_global: bool,
    name: Name,
}

/// Where a name is: the table of strings, the offset in it, its length.
#[derive(Clone, Copy, Debug)]
struct Name(u8, u32, u16);

/// All symbols of a file.
#[derive(Default)]
pub(crate) struct Symbols {
    /// In order of address.
    list: Vec<Symbol>,
    /// Functions that other files are to define.
    imports: Vec<Name>,
    strings: Vec<Vec<u8>>,
    /// How many were left out because there are too many.
    pub omitted: usize,
    /// The file has a full table of its own, so that debug files have nothing to add.
    pub is_complete: bool,
    /// A table could not be read.
    pub is_damaged: bool,
    /// Local symbols without a type are kept: functions of hand-written assembly, or labels within them.
    with_labels: bool,
}

impl Symbols {
    /// None yet; local symbols without a type will be kept.
    pub fn with_labels() -> Self {
        Self { with_labels: true, ..Self::default() }
    }

    /// Adds what the tables of a file name. Addresses are those of the file that was stripped, which a debug file shares.
    pub fn add(&mut self, image: &Image<'_>) {
        let tables = [SHT_SYMTAB, SHT_DYNSYM].map(|kind| image.sections.iter().find(|section| section.kind == kind));
        for section in tables.into_iter().flatten() {
            let entry = size_of::<Sym64<object::LittleEndian>>() as u64;
            let strings = image.sections.get(section.link as usize).and_then(|strings| image.data(strings));
            let symbols = image.table::<Sym64<object::LittleEndian>>(section.offset, section.size / entry);
            let (Some(strings), Some(symbols)) = (strings, symbols) else {
                self.is_damaged |= section.kind == SHT_SYMTAB && section.size > 0;
                continue;
            };
            let Some(table) = self.add_strings(strings) else { continue };
            // Names may share their ends; in a hostile file all are the same long one.
            let mut budget = self.strings[usize::from(table)].len().saturating_mul(2);
            let before = self.list.len();
            for symbol in symbols {
                self.add_symbol(&symbol, table, &mut budget);
            }
            self.is_complete |= section.kind == SHT_SYMTAB && self.list.len() > before;
        }
    }

    fn add_symbol(&mut self, symbol: &Sym64<object::LittleEndian>, table: u8, budget: &mut usize) {
        let endian = object::LittleEndian {};
        let offset = symbol.st_name.get(endian);
        let kind = symbol.st_info & 0xf;
        let Some(text) = string_at(&self.strings[usize::from(table)], offset as usize).filter(|_| offset != 0) else {
            return;
        };
        let (name, left) = (Name(table, offset, text.len() as u16), budget.checked_sub(text.len()));
        let Some(left) = left.filter(|_| self.list.len() + self.imports.len() < MAX_SYMBOLS) else {
            self.omitted += 1;
            return;
        };
        *budget = left;
        let is_global = symbol.st_info >> 4 != STB_LOCAL;
        if symbol.st_shndx.get(endian) == SHN_UNDEF {
            if matches!(kind, STT_FUNC | STT_NOTYPE | STT_GNU_IFUNC) {
                self.imports.push(name);
            }
            return;
        }
        let sort = match kind {
            STT_FUNC => Sort::Function,
            STT_GNU_IFUNC => Sort::Indirect,
            STT_OBJECT | STT_TLS => Sort::Data,
            // Local ones are labels within functions.
            STT_NOTYPE if is_global || self.with_labels && !text.starts_with(['.', '$']) => Sort::Untyped,
            _ => return,
        };
        let (address, size) = (symbol.st_value.get(endian), symbol.st_size.get(endian));
        self.list.push(Symbol { address, size, sort, is_global, name });
    }

    /// Adds the functions of Go's own table, which is in stripped programs as well.
    pub fn add_go(&mut self, image: &Image<'_>) -> Result<(), gopclntab::Missing> {
        let go = gopclntab::Found::in_file(image)?;
        let Some(table) = go.table() else { return Ok(()) };
        let (mut strings, mut found) = (Vec::new(), Vec::new());
        for number in 0..table.functions.min(MAX_SYMBOLS as u32) {
            let Some(function) = table.function(number) else { break };
            let Some(name) = string_at(function.name, 0).filter(|name| !name.is_empty()) else { continue };
            // Names overlap in a hostile table: together they may not be much more than the table.
            if strings.len() + name.len() > go.size().saturating_mul(2) {
                break;
            }
            let place = (strings.len() as u32, name.len() as u16);
            found.push((place, function.start, function.end.saturating_sub(function.start)));
            strings.extend(name.bytes().chain([0]));
        }
        let Some(table) = self.add_strings(strings) else { return Ok(()) };
        let symbol = |((name, length), address, size)| {
            let name = Name(table, name, length);
            Symbol { address, size, sort: Sort::Function, is_global: true, name }
        };
        self.list.extend(found.into_iter().map(symbol));
        Ok(())
    }

    fn add_strings(&mut self, strings: Vec<u8>) -> Option<u8> {
        let table = u8::try_from(self.strings.len()).ok()?;
        self.strings.push(strings);
        Some(table)
    }

    /// Puts them in order; to be called once, after all were added.
    pub fn finish(&mut self) {
        let strings = &self.strings;
        let name = |symbol: &Symbol| text(strings, symbol.name);
        // The linker's size comes before that of Go's table, which has the padding in it.
        let key = |s: &Symbol| (s.address, s.sort == Sort::Data, s.size == 0, s.size);
        self.list.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| name(a).cmp(name(b))));
        self.list.dedup_by(|a, b| a.address == b.address && a.sort == b.sort && name(a) == name(b));
    }

    /// All of them, in order of address.
    pub fn iter(&self) -> impl Iterator<Item = (&Symbol, &str)> {
        self.list.iter().map(|symbol| (symbol, text(&self.strings, symbol.name)))
    }

    /// Those at one address.
    pub fn at(&self, address: u64) -> impl Iterator<Item = (&Symbol, &str)> {
        let from = self.list.partition_point(|symbol| symbol.address < address);
        let there = self.list[from..].iter().take_while(move |symbol| symbol.address == address);
        there.map(|symbol| (symbol, text(&self.strings, symbol.name)))
    }

    /// The function around an address.
    pub fn around(&self, address: u64) -> Option<(&Symbol, &str)> {
        /// Functions overlap only where a linker folded them.
        const LOOK_BACK: usize = 64;
        let end = self.list.partition_point(|symbol| symbol.address <= address);
        let before = self.list[end.saturating_sub(LOOK_BACK)..end].iter().rev();
        let mut around = before
            .filter(|s| s.sort != Sort::Data && address - s.address < s.size.max(u64::from(s.address == address)));
        around.next().map(|symbol| (symbol, text(&self.strings, symbol.name)))
    }

    /// The name for the code at an address: of the function around it, else of what precedes it without saying how long it
    /// is. `from` is where the function around it begins as far as that is known by other means.
    pub fn naming(&self, address: u64, from: Option<u64>) -> Option<&str> {
        let start = match self.around(address) {
            Some((symbol, _)) => symbol.address,
            None => {
                let end = self.list.partition_point(|symbol| symbol.address <= address);
                let last = self.list[..end].iter().rev().find(|symbol| symbol.sort != Sort::Data)?;
                let is_open = last.size == 0 && self.is_complete && from.is_none_or(|from| last.address >= from);
                is_open.then_some(last.address)?
            }
        };
        // What people call, rather than what the library calls itself.
        let rank = |(symbol, name): &(&Symbol, &str)| {
            (symbol.sort == Sort::Untyped, !symbol.is_global, name.len() - name.trim_start_matches('_').len())
        };
        let there = self.at(start).filter(|(symbol, _)| symbol.sort != Sort::Data);
        there.min_by_key(rank).map(|(_, name)| without_version(name))
    }

    /// Names of functions that other files are to define.
    pub fn imports(&self) -> impl Iterator<Item = &str> {
        self.imports.iter().map(|&name| text(&self.strings, name))
    }
}

fn text(strings: &[Vec<u8>], Name(table, offset, length): Name) -> &str {
    let bytes = strings.get(usize::from(table)).and_then(|strings| strings.get(offset as usize..));
    // It was looked at when it was added.
    bytes.and_then(|bytes| std::str::from_utf8(bytes.get(..usize::from(length))?).ok()).unwrap_or_default()
}
