//! Names for the addresses of one module, or of the kernel.

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolized};

use super::dwarf::readable;
use super::names::{Named, Names};
use super::profile::Line;
use crate::target::Module;

/// Names kernel addresses.
pub fn kernel(names: &Names, addresses: &[u64]) -> Vec<Named> {
    let source = Source::Kernel(Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() });
    match names.kernel.symbolize(&source, Input::AbsAddr(addresses)) {
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

/// Names offsets in the file of a module.
pub fn module(names: &Names, module: &Module, offsets: &[u64]) -> Vec<Named> {
    let sources = names.sources(module);
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
