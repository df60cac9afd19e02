//! Sees in a process's memory whether probes are there: the kernel tells when they are gone for good, which is later.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::set::Wanted;
use crate::target::{Mapping, parse_maps};

/// The instruction that a probe puts in the place of another: int3.
const TRAP: u8 = 0xcc;

/// Places in a process.
pub(super) struct Traps {
    memory: File,
    addresses: Vec<u64>,
}

impl Traps {
    /// Where a process has these probes; `None` where that cannot be told.
    pub fn of(pid: u32, wanted: &[Wanted]) -> Option<Self> {
        let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
        let maps: Vec<Mapping> = parse_maps(&String::from_utf8_lossy(&maps)).collect();
        let mut addresses = Vec::with_capacity(wanted.len());
        for alike in wanted.chunk_by(|one, other| one.file == other.file) {
            let file = fs::metadata(&alike.first()?.file).ok()?;
            let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
            let maps = maps.iter().filter(|mapping| (mapping.device, mapping.inode) == (device, file.ino()));
            let maps: Vec<&Mapping> = maps.collect();
            addresses.extend(alike.iter().filter_map(|wanted| {
                let inside = |mapping: &&&Mapping| {
                    (mapping.file_offset..mapping.file_offset + (mapping.end - mapping.start)).contains(&wanted.offset)
                };
                maps.iter().find(inside).map(|mapping| mapping.start + (wanted.offset - mapping.file_offset))
            }));
        }
        (!addresses.is_empty()).then_some(Self { memory, addresses })
    }

    /// True while one of them is there; `None` if the process is gone.
    pub fn are_there(&self) -> Option<bool> {
        for &address in &self.addresses {
            let mut byte = [0];
            self.memory.read_exact_at(&mut byte, address).ok()?;
            if byte == [TRAP] {
                return Some(true);
            }
        }
        Some(false)
    }
}
