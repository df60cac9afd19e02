//! What the analysis sees of a file: the code that no table covers, what may be read beside it, and where functions are known to
//! begin.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Consecutive code without a table, at its virtual address.
#[derive(Clone, Debug)]
pub(super) struct Piece<'data> {
    pub start: u64,
    pub bytes: &'data [u8],
}

/// See the head of this file.
pub(super) struct Image<'data> {
    /// Code to derive rows for: sorted, not overlapping.
    pub gaps: Vec<Piece<'data>>,
    /// All executable code.
    pub code: Vec<Range<u64>>,
    /// First instructions of functions.
    pub entries: Vec<u64>,
    /// What code with a table takes the address of: functions, or their constants.
    pub taken: Vec<u64>,
    /// What data points to: functions, or labels in them.
    pub pointers: Vec<u64>,
    /// Where the program begins: there is no caller.
    pub start: Option<u64>,
    /// Functions, or stubs that lead to them, which do not return.
    pub endless: HashSet<u64>,
    /// Words of memory that point to such functions.
    pub endless_slots: HashSet<u64>,
    /// Words of linkage tables that point to functions of the file, and these.
    pub slots: HashMap<u64, u64>,
    /// The lowest address.
    pub base: u64,
    /// Reads what is mapped from the file at an address, at most so many bytes.
    pub read: Box<dyn Fn(u64, u64) -> Option<&'data [u8]> + 'data>,
}

impl<'data> Piece<'data> {
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// The bytes from an address on; none outside.
    pub fn from(&self, address: u64) -> &'data [u8] {
        let offset = address.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.bytes.get(offset..)).unwrap_or_default()
    }
}

impl<'data> Image<'data> {
    /// The code without a table that an address is in.
    pub fn gap(&self, address: u64) -> Option<&Piece<'data>> {
        let after = self.gaps.partition_point(|gap| gap.start <= address);
        self.gaps.get(after.checked_sub(1)?).filter(|gap| address < gap.end())
    }

    /// Whether it is code, with a table or without.
    pub fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Whether code says that it has no caller, as the ABI wants it to: it makes the frame pointer zero before anything else. Or
    /// it hands its stack pointer to a function at once, as the dynamic linker's beginning does: whoever has a caller has to
    /// align the stack before.
    pub fn is_first_frame(&self, start: u64) -> bool {
        let bytes = self.gap(start).map_or(&[][..], |gap| gap.from(start));
        let bytes = bytes.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(bytes);
        [&[0x31, 0xed][..], &[0x48, 0x31, 0xed], &[0x48, 0x89, 0xe7, 0xe8]]
            .iter()
            .any(|zeroes| bytes.starts_with(zeroes))
    }

    /// Bytes of code that a table does not cover.
    pub fn bytes(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.bytes.len() as u64).sum()
    }
}
