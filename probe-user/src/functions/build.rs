//! From an address in a file to a place for a probe, or to the reason why it is none.

use object::elf::EM_X86_64;

use super::code;
use super::demangle::{CloneKind, Cloned, demangle, without_version};
use super::extent;
use super::file::{Loaded, Searched};
use super::image::Image;
use super::place::{Kind, Place, Reason, Refusal};
use super::symbols::{Sort, Symbol};
use super::usdt::Probe;
use crate::text::sanitize;

/// So many aliases are kept; C++ constructors have three, a linker that folds functions makes hundreds.
const MAX_ALIASES: usize = 16;
/// Longer resolvers of indirect functions are cut.
const MAX_RESOLVER: u64 = 4096;
/// The instruction of that name: no other has it within.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// No instruction of x86-64 is longer.
const LONGEST_INSTRUCTION: u64 = 15;

/// Makes places of one file.
pub(super) struct Builder<'file> {
    file: &'file Searched,
    image: &'file Image<'file>,
    loaded: &'file Loaded,
}

type Built = Result<Place, Refusal>;

impl<'file> Builder<'file> {
    pub fn new(file: &'file Searched, image: &'file Image<'file>, loaded: &'file Loaded) -> Self {
        Self { file, image, loaded }
    }

    /// The place of a function that symbols name, or of an instruction in it.
    pub fn function(&self, matched: &[(&Symbol, &str)], offset: u64) -> Option<Built> {
        let rank = |(symbol, name): &&(&Symbol, &str)| {
            let clone = Cloned::of(name);
            (symbol.sort == Sort::Data, symbol.size == 0, clone.base.len() < name.len(), !symbol.is_global, name.len())
        };
        let &(symbol, name) = matched.iter().min_by_key(rank)?;
        let mut place = self.place(symbol.address, Some((symbol, name)), Kind::Entry);
        Some(match self.problem_of(symbol, name) {
            Some(reason) => Err(refusal(place, reason)),
            None if offset == 0 => self.checked(place),
            None if offset >= symbol.size => Err(refusal(place, Reason::BehindEnd(symbol.size))),
            None => {
                place.kind = Kind::Instruction(Some(offset));
                place.address = symbol.address.saturating_add(offset);
                self.checked(place)
            }
        })
    }

    fn problem_of(&self, symbol: &Symbol, name: &str) -> Option<Reason> {
        match symbol.sort {
            Sort::Data => Some(Reason::Data),
            _ if self.image.offset_of(symbol.address, true).is_none() => Some(Reason::NotExecutable),
            Sort::Indirect => Some(Reason::Indirect(self.implementations(symbol, name))),
            _ if symbol.size == 0 => Some(Reason::NoSize),
            _ if Cloned::of(name).kind == CloneKind::Cold => Some(Reason::ColdPart),
            _ => None,
        }
    }

    /// The place of an address.
    pub fn address(&self, address: u64) -> Built {
        let named = self.loaded.symbols.around(address).filter(|(symbol, _)| symbol.sort != Sort::Indirect);
        let mut place = self.place(address, named, Kind::Instruction(None));
        let around = match named {
            Some((symbol, _)) => Some((symbol.address, symbol.size)),
            None => extent::around(self.image, address),
        };
        if let Some((start, size)) = around {
            place.size = size;
            place.kind =
                if start == address && size > 0 { Kind::Entry } else { Kind::Instruction(Some(address - start)) };
        }
        self.checked(place)
    }

    /// The place of a static tracepoint.
    pub fn usdt(&self, probe: Probe) -> Built {
        let around = self.loaded.symbols.around(probe.address);
        let kind = Kind::Usdt {
            provider: sanitize(&probe.provider),
            name: sanitize(&probe.name),
            semaphore: probe.semaphore.and_then(|address| Some(self.image.offset_of(address, false)?.0)),
            arguments: probe.arguments,
        };
        self.checked(self.place(probe.address, around, kind))
    }

    /// What a resolver chooses among: the functions of which it takes the address.
    fn implementations(&self, resolver: &Symbol, name: &str) -> Vec<Place> {
        if self.image.machine != EM_X86_64 {
            return Vec::new();
        }
        let Some(bytes) = self.image.code(resolver.address, resolver.size.min(MAX_RESOLVER)) else {
            return Vec::new();
        };
        let symbols = &self.loaded.symbols;
        let is_function = |address| {
            let is_named = symbols.at(address).any(|(symbol, _)| symbol.sort == Sort::Function);
            is_named || !symbols.is_complete && self.image.offset_of(address, true).is_some()
        };
        let addresses = code::code_pointers(&bytes, resolver.address, is_function);
        // One may have the resolver's name as well, which would lead back to it.
        let is_other = |text: &str| without_version(text) != without_version(name);
        let place = |address| {
            let there = symbols.at(address).filter(|(symbol, text)| symbol.sort == Sort::Function && is_other(text));
            let named: Vec<_> = there.collect();
            if named.is_empty() { self.address(address).ok() } else { self.function(&named, 0)?.ok() }
        };
        addresses.into_iter().filter_map(place).collect()
    }

    fn place(&self, address: u64, symbol: Option<(&Symbol, &str)>, kind: Kind) -> Place {
        let name = symbol.map_or("", |(_, name)| name);
        let mut aliases: Vec<String> = Vec::new();
        for (other, alias) in symbol.into_iter().flat_map(|(symbol, _)| self.loaded.symbols.at(symbol.address)) {
            let alias = without_version(alias);
            let is_new = alias != without_version(name) && !aliases.iter().any(|known| known == alias);
            if is_new && other.sort != Sort::Data && aliases.len() < MAX_ALIASES {
                aliases.push(sanitize(alias));
            }
        }
        Place {
            module: self.file.module.clone(),
            symbol: sanitize(name),
            name: sanitize(&demangle(name).unwrap_or_else(|| without_version(name).to_owned())),
            aliases,
            address,
            file_offset: 0,
            size: symbol.map_or(0, |(symbol, _)| symbol.size),
            kind,
            is_go: self.loaded.is_go,
            imported_by: None,
        }
    }

    /// Fills in the file offset, and makes sure that a probe may be set.
    fn checked(&self, mut place: Place) -> Built {
        let Some((offset, available)) = self.image.offset_of(place.address, true) else {
            return Err(refusal(place, Reason::NotExecutable));
        };
        place.file_offset = offset;
        let Some(bytes) = self.image.bytes(offset, available.min(LONGEST_INSTRUCTION)) else {
            return Err(refusal(place, Reason::NotExecutable));
        };
        if self.image.machine != EM_X86_64 {
            return Ok(place);
        }
        // What every way into code begins with that is compiled for indirect branch tracking begins an instruction.
        if matches!(place.kind, Kind::Instruction(None)) && !bytes.starts_with(&ENDBR64) {
            return Err(refusal(place, Reason::Unknown));
        }
        if let Kind::Instruction(Some(inside)) = place.kind {
            let start = place.address - inside;
            let code = self.image.code(start, place.size.min(code::MAX_FUNCTION)).unwrap_or_default();
            if !code::is_boundary(&code, inside) {
                return Err(refusal(place, Reason::WithinInstruction));
            }
        }
        match code::refused(&bytes) {
            Some(reason) => Err(refusal(place, Reason::Instruction(reason))),
            None => Ok(place),
        }
    }
}

fn refusal(place: Place, reason: Reason) -> Refusal {
    let name = if place.name.is_empty() { format!("{:#x}", place.address) } else { place.name };
    Refusal { module: place.module, name, address: place.address, reason }
}
