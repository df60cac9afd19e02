//! A process's executable mappings: from an address to a module and an offset in its file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::modules::{Module, ModuleKind};

/// One executable mapping, as `/proc/PID/maps` or a kernel event describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset of `start` in the file, in bytes.
    pub file_offset: u64,
    /// Device (major, minor).
    pub device: (u32, u32),
    /// Inode; 0 for anonymous memory.
    pub inode: u64,
    /// Path, a name in brackets, or empty.
    pub path: String,
}

/// The executable mappings in the text of `/proc/PID/maps` (Documentation/filesystems/proc.rst). A line that is not
/// understood (the file may end anywhere) is passed over.
pub fn parse_maps(text: &str) -> impl Iterator<Item = Mapping> {
    parse_all_maps(text).filter_map(|(mapping, executable)| executable.then_some(mapping))
}

/// All mappings in that text, with whether they are executable.
pub(super) fn parse_all_maps(text: &str) -> impl Iterator<Item = (Mapping, bool)> {
    text.lines().filter_map(|line| {
        let mut fields = line.splitn(6, ' ');
        let (range, permissions) = (fields.next()?, fields.next()?);
        let executable = permissions.as_bytes().get(2) == Some(&b'x');
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = range.split_once('-')?;
        let file_offset = hex(fields.next()?)?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let inode = fields.next()?.parse().ok()?;
        let path = fields.next().unwrap_or_default().trim_start();
        let mapping = Mapping {
            start: hex(start)?,
            end: hex(end)?,
            file_offset,
            device: (hex(major)? as u32, hex(minor)? as u32),
            inode,
            path: unescape(path),
        };
        Some((mapping, executable))
    })
}

/// The kernel writes a newline in a path as `\012`. Everything else that is not printable is ours to make harmless, but a
/// path must stay what it is as long as it is used to open the file: only display sanitizes.
fn unescape(path: &str) -> String {
    path.replace("\\012", "\n")
}

/// Executable mappings by address.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    by_start: BTreeMap<u64, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    end: u64,
    file_offset: u64,
    module: Arc<Module>,
}

impl Mappings {
    /// Adds a mapping; what it overlaps is gone, as `mmap` has it. Returns of that what was other code: addresses have
    /// changed their meaning.
    pub fn insert(&mut self, mapping: &Mapping, module: Arc<Module>) -> Vec<Arc<Module>> {
        if mapping.start >= mapping.end {
            return Vec::new();
        }
        let replaced = self.other_code(mapping.start, mapping.end, mapping.file_offset, &module);
        let overlapped: Vec<u64> = self.overlapping(mapping.start, mapping.end).map(|(start, _)| start).collect();
        for start in overlapped {
            let Some(old) = self.by_start.remove(&start) else { continue };
            if start < mapping.start {
                self.by_start.insert(start, Entry { end: mapping.start, ..old.clone() });
            }
            if old.end > mapping.end {
                let file_offset = old.file_offset + (mapping.end - start);
                self.by_start.insert(mapping.end, Entry { file_offset, ..old });
            }
        }
        let entry = Entry { end: mapping.end, file_offset: mapping.file_offset, module };
        self.by_start.insert(mapping.start, entry);
        replaced
    }

    /// What is at some of these addresses: where it starts, and what it is.
    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let below_end = self.by_start.range(..end).rev();
        below_end.take_while(move |(_, entry)| entry.end > start).map(|(&start, entry)| (start, entry))
    }

    /// The code at some of these addresses that is another than a module's from `file_offset` on.
    pub fn other_code(&self, start: u64, end: u64, file_offset: u64, module: &Arc<Module>) -> Vec<Arc<Module>> {
        let is_other = |(known_start, known): &(u64, &Entry)| {
            let is_moved = known.file_offset.wrapping_sub(*known_start) != file_offset.wrapping_sub(start);
            !Arc::ptr_eq(&known.module, module) || is_moved && module.kind != ModuleKind::Anonymous
        };
        self.overlapping(start, end).filter(is_other).map(|(_, known)| known.module.clone()).collect()
    }

    /// Whether there is code of a file at some of these addresses.
    pub fn has_file_in(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).any(|(_, entry)| entry.module.kind == ModuleKind::File)
    }

    /// The module at an address, and the offset in its file (the address itself in anonymous memory).
    pub fn locate(&self, address: u64) -> Option<(&Arc<Module>, u64)> {
        let (&start, entry) = self.by_start.range(..=address).next_back()?;
        if address >= entry.end {
            return None;
        }
        let offset = match entry.module.kind {
            ModuleKind::Anonymous => address,
            ModuleKind::File | ModuleKind::Vdso => entry.file_offset + (address - start),
        };
        Some((&entry.module, offset))
    }

    /// All of them in the order of addresses: start, end, file offset of the start, module.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, u64, &Arc<Module>)> {
        self.by_start.iter().map(|(&start, entry)| (start, entry.end, entry.file_offset, &entry.module))
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// True when nothing is mapped: a kernel thread, or a process that could not be read.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::modules::Modules;
    use super::*;

    const MAPS: &str = "\
55d0c0a00000-55d0c0a28000 r--p 00000000 fe:00 1311 /usr/bin/cat
55d0c0a28000-55d0c0a2d000 r-xp 00002000 fe:00 1311                       /usr/bin/cat
7f10c0000000-7f10c0001000 rwxp 00000000 00:00 0
7f10d0000000-7f10d0002000 r-xp 00001000 00:01 42                         /tmp/a b\\012c (deleted)
7ffd1f5f2000-7ffd1f5f4000 r-xp 00000000 00:00 0                          [vdso]
nonsense
7ffd1f5f2000-7ffd1f5";

    #[test]
    fn executable_mappings_are_read_and_nonsense_is_passed_over() {
        let maps: Vec<Mapping> = parse_maps(MAPS).collect();
        let paths: Vec<&str> = maps.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(paths, ["/usr/bin/cat", "", "/tmp/a b\nc (deleted)", "[vdso]"]);
        assert_eq!((maps[0].start, maps[0].file_offset, maps[0].device), (0x55d0_c0a2_8000, 0x2000, (0xfe, 0)));
        assert_eq!(maps[0].inode, 1311);
    }

    fn file(inode: u64) -> (Mapping, Arc<Module>) {
        let mapping = Mapping { inode, path: format!("/nowhere/{inode}"), ..Mapping::default() };
        let module = Modules::default().of(u32::MAX, &mapping);
        (mapping, module)
    }

    #[test]
    fn a_new_mapping_replaces_what_it_overlaps() {
        let mut mappings = Mappings::default();
        let (mut old, old_module) = file(1);
        (old.start, old.end, old.file_offset) = (0x1000, 0x9000, 0x100);
        mappings.insert(&old, old_module);
        let (mut new, new_module) = file(2);
        (new.start, new.end) = (0x3000, 0x5000);
        let replaced = mappings.insert(&new, new_module.clone());
        assert_eq!(replaced.iter().map(|module| module.path.as_str()).collect::<Vec<_>>(), ["/nowhere/1"]);
        assert!(mappings.insert(&new, new_module.clone()).is_empty(), "the same again");
        let moved = Mapping { file_offset: 0x1000, ..new.clone() };
        assert_eq!(mappings.insert(&moved, new_module.clone()).len(), 1, "the same file, but other code of it");
        mappings.insert(&new, new_module);
        let at = |address| mappings.locate(address).map(|(module, offset)| (module.path.as_str(), offset));
        assert_eq!(at(0x0fff), None);
        assert_eq!(at(0x2fff), Some(("/nowhere/1", 0x20ff)));
        assert_eq!(at(0x3001), Some(("/nowhere/2", 0x1)));
        assert_eq!(at(0x5000), Some(("/nowhere/1", 0x4100)));
        assert_eq!(at(0x9000), None);
        assert_eq!(mappings.len(), 3);
    }
}
