//! What processes have mapped, for unwinding.

use super::assert_packed;

/// Executables whose unwind tables are in the kernel at once, a power of two.
pub const MAX_TABLES: u32 = 4096;
/// Executable mappings in a [`MappingBlock`]; most processes have fewer.
pub const MAPPINGS_PER_BLOCK: usize = 32;
/// Blocks of one process: 1,024 mappings. What lies behind them is unwound by frame pointers.
pub const MAX_MAPPING_BLOCKS: u32 = 32;
/// Blocks of all processes.
pub const MAX_BLOCKS: u32 = 4096;
/// [`MappedRange::table`] of code without unwind table.
pub const NO_TABLE: u32 = u32::MAX;

/// Where a process's blocks of mappings are found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MappingKey {
    /// Process.
    pub tgid: u32,
    /// Blocks count from 0, in the order of addresses.
    pub block: u32,
}

/// An executable mapping.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedRange {
    /// First address; `i64::MAX` in an unused entry, so that a block is always sorted and signs of differences tell.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// An address in memory less this is the address that the executable's table speaks of, which counts from the first
    /// page that has code.
    pub bias: u64,
    /// Its unwind table, or [`NO_TABLE`]: the index in the lower bits, below [`MAX_TABLES`]; above them a number that
    /// changes when another table takes the place, so that rows of the former one are not taken for its own.
    pub table: u32,
    /// Pages in that table.
    pub pages: u32,
}

impl MappedRange {
    /// An unused entry.
    pub const UNUSED: Self = Self { start: i64::MAX as u64, end: i64::MAX as u64, bias: 0, table: NO_TABLE, pages: 0 };
}

/// A piece of a file as it was: what a mapping that user space has not told of is recognised by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// `inode.i_ino`
    pub inode: u64,
    /// When the inode was changed, in nanoseconds since 1970.
    pub changed_ns: u64,
    /// Where in the file the mapping begins, in bytes.
    pub file_offset: u64,
    /// `super_block.s_dev`: the minor number in the lower 20 bits, the major one above them.
    pub device: u32,
    /// Always zero.
    pub zero: u32,
}

/// By which table such a piece is unwound.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTable {
    /// Where the mapping begins less this is [`MappedRange::bias`].
    pub start: u64,
    /// As in [`MappedRange`].
    pub table: u32,
    /// As in [`MappedRange`].
    pub pages: u32,
}

/// Pieces of files that are known: most files have one that is executable.
pub const MAX_FILES: u32 = 2 * MAX_TABLES;

/// Some mappings of a process, sorted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MappingBlock {
    /// Start of the first mapping in the next block; `u64::MAX` in the last one.
    pub next_start: u64,
    /// The mappings.
    pub ranges: [MappedRange; MAPPINGS_PER_BLOCK],
}

assert_packed! {
    MappingKey { tgid, block }
    FileKey { inode, changed_ns, file_offset, device, zero }
    FileTable { start, table, pages }
    MappedRange { start, end, bias, table, pages }
    MappingBlock { next_start, ranges }
}
