//! Names for the addresses of one module, by blazesym: ELF symbols, DWARF lines and inlined functions, debug files by
//! build id or debug link, MiniDebugInfo, kallsyms.

use std::path::PathBuf;

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

/// Names offsets in the file of a module: by its debug file where one is installed, and what that does not name by the
/// file itself.
pub fn module(symbolizer: &Symbolizer, module: &Module, offsets: &[u64]) -> Vec<Named> {
    let mut named: Vec<Named> = vec![Err("file unreadable"); offsets.len()];
    for path in [debug_file(&module.build_id), module.open_path()].into_iter().flatten() {
        let open: Vec<usize> = (0..offsets.len()).filter(|&index| named[index].is_err()).collect();
        // Offsets that no segment holds have no address.
        let addresses: Vec<Option<u64>> = open.iter().map(|&index| module.virtual_address(offsets[index])).collect();
        let known: Vec<u64> = addresses.iter().copied().flatten().collect();
        let source = Source::Elf(Elf::new(path));
        let found = symbolizer.symbolize(&source, Input::VirtOffset(&known));
        let mut found = answers(found, known.len(), "file unreadable").into_iter();
        for (index, address) in open.into_iter().zip(addresses) {
            named[index] = match address {
                Some(_) => found.next().unwrap_or(Err("no symbol")),
                None => Err("address in no segment"),
            };
        }
    }
    named
}

/// Where distributions install the debug file of a build id. blazesym looks there as well, but only for a file that also
/// has a debug link.
fn debug_file(build_id: &str) -> Option<PathBuf> {
    let (folder, file) = build_id.split_at_checked(2).filter(|(_, file)| !file.is_empty())?;
    let path = PathBuf::from(format!("/usr/lib/debug/.build-id/{folder}/{file}.debug"));
    path.exists().then_some(path)
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
