//! How often probes are hit, by their numbers: read some hundred times a second, so all by one system call.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_cmd;

/// The kernel's counters.
pub(super) struct Hits {
    map: MapData,
    cpus: usize,
    /// By number and CPU: what was read last.
    values: Vec<u64>,
    keys: Vec<u32>,
}

/// The part of `union bpf_attr` that `BPF_MAP_LOOKUP_BATCH` reads and writes (include/uapi/linux/bpf.h).
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl Hits {
    pub fn new(map: Map) -> Result<Self> {
        let Map::PerCpuArray(map) = map else { bail!("hits are not counted by CPU") };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
        let numbers = map.info()?.max_entries() as usize;
        Ok(Self { map, cpus, values: vec![0; numbers * cpus], keys: vec![0; numbers] })
    }

    /// Hits since the beginning, by number.
    pub fn read(&mut self) -> Result<Vec<u64>> {
        let mut next = 0u32;
        let mut batch = LookupBatch {
            in_batch: 0,
            out_batch: (&raw mut next) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.keys.len() as u32,
            map_fd: self.map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        #[expect(unsafe_code, reason = "the kernel boundary: aya has no such call")]
        // SAFETY: the kernel writes `count` keys, and a value of every CPU for each, where there is room for them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                bpf_cmd::BPF_MAP_LOOKUP_BATCH as libc::c_long,
                &raw mut batch,
                size_of::<LookupBatch>(),
            )
        };
        let error = io::Error::last_os_error();
        // "No such entry" says that these were all.
        if result < 0 && error.raw_os_error() != Some(libc::ENOENT) {
            return Err(error).context("cannot read how often probes are hit");
        }
        Ok(self.values.chunks(self.cpus).map(|cpus| cpus.iter().sum()).collect())
    }
}
