//! Names for the addresses of one module, or of the kernel.

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};

use super::dwarf::readable;
use super::named::Named;
use super::profile::Line;
use super::sources::{Depth, Sources};
use crate::target::{Module, PerfMap};

/// Names kernel addresses.
pub fn kernel(symbolizer: &Symbolizer, addresses: &[u64]) -> Vec<Named> {
    let source = Source::Kernel(Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() });
    match symbolizer.symbolize(&source, Input::AbsAddr(addresses)) {
        Ok(symbols) => symbols.into_iter().map(answer).collect(),
        Err(error) => {
            tracing::debug!(%error, "kernel symbols cannot be read");
            vec![Named::unknown("kernel symbols unreadable"); addresses.len()]
        }
    }
}

fn answer(symbolized: Symbolized<'_>) -> Named {
    match symbolized {
        Symbolized::Sym(symbol) => {
            Named { lines: vec![Line { function: readable(&symbol.name), ..Line::default() }], ..Named::default() }
        }
        Symbolized::Unknown(_) => Named::unknown("no symbol"),
    }
}

/// Names code that its program has generated, at addresses in memory, by the program's perf map. It is read anew each time:
/// it grows.
pub fn generated(module: &Module, addresses: &[u64]) -> Vec<Named> {
    let Some(map) = module.perf_map().map(PerfMap::read) else {
        return vec![Named::unknown("code without a file"); addresses.len()];
    };
    let reason = match map.unreadable {
        0 => "generated code that the perf map does not name",
        _ => "generated code; the perf map has lines that cannot be read",
    };
    let name = |&address: &u64| match map.name(address) {
        Some(name) => Named { lines: vec![Line { function: name.to_owned(), ..Line::default() }], ..Named::default() },
        None => Named::unknown(reason),
    };
    addresses.iter().map(name).collect()
}

/// Names offsets in the file of a module.
pub fn file(module: &Module, offsets: &[u64], depth: Depth) -> Vec<Named> {
    let sources = Sources::of(module, depth);
    let name = |&offset: &u64| {
        // Offsets that no segment holds have no address.
        let Some(address) = module.virtual_address(offset) else {
            return Named::unknown(if module.file().is_none() { "file unreadable" } else { "address in no segment" });
        };
        let named = sources.name(module, address);
        let start = named.start.and_then(|start| offset.checked_sub(address.checked_sub(start)?));
        Named { start, ..named }
    };
    offsets.iter().map(name).collect()
}
