//! How often probes are hit, by their numbers: read some hundred times a second, so without a system call, from memory that
//! is shared with the kernel.

use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// Counters of eight bytes in a line of the processor's cache: two CPUs never write to the same one.
const IN_LINE: u32 = 8;

/// How many counters each CPU has, for so many functions.
pub(super) fn per_cpu(functions: u32) -> u32 {
    functions.max(1).next_multiple_of(IN_LINE)
}

/// How many there are, for all CPUs that there may ever be.
pub(super) fn entries(per_cpu: u32) -> Result<u32> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
    per_cpu.checked_mul(u32::try_from(cpus)?).context("too many functions for so many CPUs")
}

/// The kernel's counters.
pub(super) struct Hits {
    /// What the memory belongs to.
    _map: MapData,
    memory: NonNull<AtomicU64>,
    count: usize,
    per_cpu: usize,
}

#[expect(unsafe_code, reason = "memory that is shared with the kernel")]
// SAFETY: nothing in it belongs to a thread; the memory is only read, by atomic loads.
unsafe impl Send for Hits {}

impl Hits {
    /// Of a map with [`entries`] counters.
    pub fn new(map: Map, per_cpu: u32) -> Result<Self> {
        let Map::Array(map) = map else { bail!("hits are not counted in an array") };
        let count = map.info()?.max_entries() as usize;
        #[expect(unsafe_code, reason = "the kernel boundary: aya does not map this")]
        // SAFETY: a new mapping, as long as the map's values, of eight bytes each.
        let memory =
            unsafe { mmap(std::ptr::null_mut(), bytes(count), ProtFlags::READ, MapFlags::SHARED, map.fd().as_fd(), 0) };
        let memory = memory.context("cannot map how often probes are hit")?;
        let memory = NonNull::new(memory.cast()).context("a mapping at address 0")?;
        Ok(Self { _map: map, memory, count, per_cpu: per_cpu as usize })
    }

    /// Hits since the beginning, by number, in the place of what was there.
    pub fn read(&self, hits: &mut Vec<u64>) {
        #[expect(unsafe_code, reason = "memory that is shared with the kernel")]
        // SAFETY: as many counters as the mapping holds, which lives as long as this; it begins at a page.
        let all = unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.count) };
        hits.clear();
        hits.resize(self.per_cpu, 0);
        for of_cpu in all.chunks(self.per_cpu) {
            for (hits, counter) in hits.iter_mut().zip(of_cpu) {
                *hits += counter.load(Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Hits {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "memory that is shared with the kernel")]
        // SAFETY: what was mapped; nobody has a reference into it any more.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), bytes(self.count)) };
    }
}

/// Of a mapping, which consists of pages.
fn bytes(count: usize) -> usize {
    (count * size_of::<u64>()).next_multiple_of(page_size())
}
