//! Code that a program has copied to other memory at its own address, as remappers to huge pages do: the file that it came
//! from. What else a program makes executable (generated code) lies where no code of a file belongs.

use std::sync::Arc;

use super::mappings::Mapping;
use super::modules::{Module, Modules};

/// Memory that programs copy code to: anonymous, or of a file that is none (`mmap`, `memfd_create`, `shmat`).
const COPIES: [&str; 4] = ["/anon_hugepage", "/memfd:", "/dev/zero", "/SYSV"];

/// How far it is looked for a mapping of a file, in mappings: copies lie in one another's place.
const NEIGHBOURS: usize = 64;

/// Whether this may be a copy of code: it is executable, and of no file.
pub(super) fn may_be_copy(mapping: &Mapping) -> bool {
    let Mapping { inode, path, .. } = mapping;
    // As /proc/PID/maps and as the kernel's events have it; `prctl(PR_SET_VMA_ANON_NAME)` gives names.
    let is_anonymous = *inode == 0 && (path.is_empty() || path == "//anon" || path.starts_with("[anon:"));
    is_anonymous || COPIES.iter().any(|copy| path.starts_with(copy))
}

/// The file that a copy came from, and the offset of its beginning in that: the rest of the file is mapped around it.
/// `all` are the mappings of the process, in the order of addresses. Adds to `awaited` what has to be opened before that is known.
pub(super) fn home(
    copy: &Mapping,
    all: &[Mapping],
    pid: u32,
    modules: &mut Modules,
    awaited: &mut Vec<Arc<Module>>,
) -> Option<(Arc<Module>, u64)> {
    let is_file = |mapping: &&Mapping| mapping.inode != 0 && mapping.path.starts_with('/') && !may_be_copy(mapping);
    let (below, above) = all.split_at(all.partition_point(|mapping| mapping.start < copy.start));
    let before = below.iter().rev().take(NEIGHBOURS).find(is_file);
    let after = above.iter().take(NEIGHBOURS).filter(is_file).find(|mapping| mapping.start >= copy.end);
    [before, after].into_iter().flatten().find_map(|neighbour| {
        let module = modules.of(pid, neighbour);
        if module.opened().is_none() {
            awaited.push(module);
            return None;
        }
        let offset = module.offset_at(copy.start, neighbour.start, neighbour.file_offset)?;
        Some((module, offset))
    })
}

#[cfg(test)]
mod tests {
    use super::super::mappings::parse_all_maps;
    use super::*;

    #[test]
    fn the_code_of_a_file_is_told_from_generated_code() {
        let pid = std::process::id();
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let all: Vec<(Mapping, bool)> = parse_all_maps(&text).collect();
        let exe = std::env::current_exe().unwrap();
        let own = all.iter().find(|(mapping, executable)| *executable && mapping.path == exe.to_string_lossy());
        let own = own.unwrap().0.clone();
        let others: Vec<Mapping> = all.into_iter().map(|(mapping, _)| mapping).filter(|m| *m != own).collect();
        let mut modules = Modules::default();
        // As if a part of our own code was a copy.
        let copy = Mapping { start: own.start + 0x1000, file_offset: 0, inode: 0, path: String::new(), ..own.clone() };
        assert!(may_be_copy(&copy) && !may_be_copy(&own));
        // Held, or they would be opened again and again.
        let mut held = Vec::new();
        let mut home = |copy: &Mapping| {
            loop {
                let mut awaited = Vec::new();
                let found = home(copy, &others, pid, &mut modules, &mut awaited);
                if found.is_some() || awaited.is_empty() {
                    return found;
                }
                for module in &awaited {
                    module.wait();
                }
                held.extend(awaited);
            }
        };
        let (module, offset) = home(&copy).expect("found");
        assert_eq!((module.path.as_str(), offset), (own.path.as_str(), own.file_offset + 0x1000));
        // Generated code has its place behind the file, or far from any.
        let last = others.iter().filter(|m| m.path == own.path).map(|m| m.end).max().unwrap();
        for start in [last, 0x10000] {
            let code = Mapping { start, end: start + 0x1000, ..copy.clone() };
            assert!(home(&code).is_none(), "{start:#x}");
        }
    }
}
