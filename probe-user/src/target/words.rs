//! `Memory`: words of a process's memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// A process's memory, to be read while the process runs on.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// `None` without the privilege, or if there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        File::open(super::folder(pid).join("mem")).ok().map(Self)
    }

    /// The word at an address; `None` where none is mapped.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_words_are_read() {
        let memory = Memory::of(std::process::id()).unwrap();
        let word = Box::new(0x1234_5678_9abc_def0_u64);
        assert_eq!(memory.word(&raw const *word as u64), Some(*word));
        assert_eq!(memory.word(8), None);
        assert!(Memory::of(u32::MAX).is_none());
    }
}
