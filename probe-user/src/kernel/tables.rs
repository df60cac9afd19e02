//! Unwind tables and mappings on their way into the kernel.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use aya::maps::of_maps::ArrayOfMaps;
use aya::maps::{Array, HashMap, Map, MapData};
use probe_ebpf::abi::{
    FileKey, FileTable, MAPPINGS_PER_BLOCK, MAX_MAPPING_BLOCKS, MAX_TABLES, MappedRange, MappingBlock, MappingKey,
};
use probe_ebpf::table::BLOCK_ROWS;

use super::boundary::OfKernel;

/// `BPF_F_INNER_MAP` (include/uapi/linux/bpf.h): the inner maps differ in size.
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// Words of one value of an inner map.
type Words = [u64; BLOCK_ROWS];

/// The executable mappings of processes, as the kernel programs see them.
pub struct MappingTable {
    mappings: HashMap<MapData, OfKernel<MappingKey>, OfKernel<MappingBlock>>,
    /// How many mappings of each process the kernel knows.
    known: std::collections::HashMap<u32, usize>,
    files: HashMap<MapData, OfKernel<FileKey>, OfKernel<FileTable>>,
}

/// The unwind tables, as the kernel programs see them. Each thread that fills places has one of its own, because filling
/// one waits for a grace period (some 10 ms), which several can do at once.
pub struct UnwindTables {
    tables: ArrayOfMaps<MapData, Array<MapData, Words>>,
    fd: OwnedFd,
}

impl UnwindTables {
    pub(super) fn new(map: Map) -> Result<Self> {
        let Map::ArrayOfMaps(data) = map else { bail!("the map of unwind tables is of another kind") };
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { tables: ArrayOfMaps::try_from(Map::ArrayOfMaps(data))?, fd })
    }

    /// Another handle, for another thread.
    pub fn try_clone(&self) -> Result<Self> {
        Self::new(Map::ArrayOfMaps(MapData::from_fd(self.fd.try_clone()?)?))
    }

    /// Places there are.
    pub const PLACES: u32 = MAX_TABLES;

    /// Writes a table's words and puts it in its place, below [`Self::PLACES`]. Returns what it occupies, in bytes.
    pub fn put(&mut self, place: u32, words: &[u64]) -> Result<usize> {
        let blocks = words.len().div_ceil(BLOCK_ROWS).max(1);
        let mut map: Array<MapData, Words> =
            Array::create(blocks as u32, BPF_F_INNER_MAP).context("cannot make a map for an unwind table")?;
        for (index, chunk) in words.chunks(BLOCK_ROWS).enumerate() {
            let mut block = [0; BLOCK_ROWS];
            block[..chunk.len()].copy_from_slice(chunk);
            map.set(index as u32, block, 0).context("cannot write an unwind table")?;
        }
        self.tables.set(place, &map, 0).context("cannot publish an unwind table")?;
        Ok(blocks * size_of::<Words>())
    }
}

impl UnwindTables {
    /// Frees what is in a place. No mapping refers to it any more.
    pub fn clear(&mut self, place: u32) -> Result<()> {
        let empty: Array<MapData, Words> =
            Array::create(1, BPF_F_INNER_MAP).context("cannot make a map for an empty place")?;
        self.tables.set(place, &empty, 0).context("cannot free an unwind table")
    }
}

impl MappingTable {
    pub(super) fn new(mappings: Map, files: Map) -> Result<Self> {
        let (mappings, files) = (HashMap::try_from(mappings)?, HashMap::try_from(files)?);
        Ok(Self { mappings, known: std::collections::HashMap::new(), files })
    }

    /// Tells the kernel by which table a piece of a file is unwound where it does not know what a process has mapped. What does
    /// not fit is left out.
    pub fn set_file(&mut self, file: FileKey, table: FileTable) {
        let _ = self.files.insert(OfKernel(file), OfKernel(table), 0);
    }

    /// Forgets a piece of a file.
    pub fn remove_file(&mut self, file: FileKey) {
        let _ = self.files.remove(&OfKernel(file));
    }

    /// Tells the kernel the executable mappings of a process, which must be sorted by address. Those beyond what it can
    /// hold are left out; their number is returned.
    pub fn set_mappings(&mut self, tgid: u32, ranges: &[MappedRange]) -> Result<usize> {
        let fits = MAPPINGS_PER_BLOCK * MAX_MAPPING_BLOCKS as usize;
        let (kept, left_out) = ranges.split_at(ranges.len().min(fits));
        let blocks: Vec<&[MappedRange]> = kept.chunks(MAPPINGS_PER_BLOCK).collect();
        let before = self.known.insert(tgid, kept.len()).unwrap_or(0);
        for index in update_order(blocks.len(), kept.len() >= before) {
            let next_start = blocks.get(index + 1).map_or(u64::MAX, |next| next[0].start);
            let mut block = MappingBlock { next_start, ranges: [MappedRange::UNUSED; MAPPINGS_PER_BLOCK] };
            block.ranges[..blocks[index].len()].copy_from_slice(blocks[index]);
            let key = OfKernel(MappingKey { tgid, block: index as u32 });
            self.mappings.insert(key, OfKernel(block), 0).context("the table of mappings is full")?;
        }
        self.remove_from(tgid, blocks.len() as u32);
        Ok(left_out.len())
    }

    /// Forgets a process.
    pub fn remove_mappings(&mut self, tgid: u32) {
        if self.known.remove(&tgid).is_some() {
            self.remove_from(tgid, 0);
        }
    }

    fn remove_from(&mut self, tgid: u32, first: u32) {
        for block in first..MAX_MAPPING_BLOCKS {
            if self.mappings.remove(&OfKernel(MappingKey { tgid, block })).is_err() {
                break;
            }
        }
    }
}

/// The order in which blocks are replaced so that a sampler in between, who sees new ones beside old ones, still finds each
/// mapping that stays. We may be kept waiting between two of them for as long as a busy machine likes. Mappings move to
/// later blocks when others come, so the last block is the first; and the other way round when others go.
fn update_order(blocks: usize, is_growing: bool) -> impl Iterator<Item = usize> {
    (0..blocks).map(move |step| if is_growing { blocks - 1 - step } else { step })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mappings by their starts, in blocks of two.
    fn blocks(starts: &[u64]) -> Vec<(&[u64], u64)> {
        let chunks: Vec<&[u64]> = starts.chunks(2).collect();
        let next = |index: usize| chunks.get(index + 1).map_or(u64::MAX, |next| next[0]);
        chunks.iter().enumerate().map(|(index, &chunk)| (chunk, next(index))).collect()
    }

    #[test]
    fn mappings_that_stay_are_found_while_blocks_are_replaced() {
        let (few, many): (&[u64], &[u64]) = (&[1, 3, 5, 7, 9], &[1, 2, 3, 5, 6, 7, 8, 9]);
        for (before, after) in [(few, many), (many, few)] {
            let (old, new) = (blocks(before), blocks(after));
            let mut now = old.clone();
            for index in update_order(new.len(), after.len() >= before.len()) {
                now.resize(now.len().max(index + 1), (&[], u64::MAX));
                now[index] = new[index];
                for start in before.iter().filter(|start| after.contains(start)) {
                    let (found, _) = now.iter().find(|(_, next)| start < next).unwrap();
                    assert!(found.contains(start), "{start} while block {index} of {after:?} is new");
                }
            }
        }
    }
}
