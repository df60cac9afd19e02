//! Names for the addresses of one module, by blazesym: ELF symbols, DWARF lines and inlined functions, debug files by
//! build id or debug link, MiniDebugInfo, kallsyms.

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Elf, Kernel, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use super::profile::Line;
use crate::target::Module;
use crate::text::sanitize;

/// What is known of an address: its lines (innermost first), or why there are none.
pub type Named = Result<Vec<Line>, &'static str>;

/// Names kernel addresses.
pub fn kernel(symbolizer: &Symbolizer, addresses: &[u64]) -> Vec<Named> {
    let source = Source::Kernel(Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() });
    answers(symbolizer.symbolize(&source, Input::AbsAddr(addresses)), addresses.len(), "kernel symbols unreadable")
}

/// Names offsets in the file of a module.
pub fn module(symbolizer: &Symbolizer, module: &Module, offsets: &[u64]) -> Vec<Named> {
    let Some(path) = module.open_path() else {
        return vec![Err("file unreadable"); offsets.len()];
    };
    // Offsets that no segment holds have no address; they keep their place in the answer.
    let addresses: Vec<Option<u64>> = offsets.iter().map(|&offset| module.virtual_address(offset)).collect();
    let known: Vec<u64> = addresses.iter().copied().flatten().collect();
    let source = Source::Elf(Elf::new(path));
    let mut named =
        answers(symbolizer.symbolize(&source, Input::VirtOffset(&known)), known.len(), "file unreadable").into_iter();
    let mut next = |address: Option<u64>| match address {
        Some(_) => named.next().unwrap_or(Err("no symbol")),
        None => Err("address in no segment"),
    };
    addresses.into_iter().map(&mut next).collect()
}

fn answers(result: blazesym::Result<Vec<Symbolized<'_>>>, count: usize, failure: &'static str) -> Vec<Named> {
    match result {
        Ok(symbols) => symbols.into_iter().map(answer).collect(),
        Err(error) => {
            tracing::debug!(%error, "symbols cannot be read");
            vec![Err(failure); count]
        }
    }
}

fn answer(symbolized: Symbolized<'_>) -> Named {
    match symbolized {
        Symbolized::Sym(symbol) => Ok(lines(&symbol)),
        Symbolized::Unknown(_) => Err("no symbol"),
    }
}

/// blazesym lists a function and then what is inlined into it, each with the position of the code inside it.
fn lines(symbol: &Sym<'_>) -> Vec<Line> {
    let mut lines = vec![line(&symbol.name, symbol.code_info.as_deref())];
    lines.extend(symbol.inlined.iter().map(|inlined| line(&inlined.name, inlined.code_info.as_ref())));
    lines.reverse();
    lines
}

fn line(name: &str, code: Option<&CodeInfo<'_>>) -> Line {
    Line {
        function: sanitize(name),
        file: code.map_or_else(String::new, |code| sanitize(&code.to_path().to_string_lossy())),
        line: code.and_then(|code| code.line).unwrap_or(0),
    }
}
