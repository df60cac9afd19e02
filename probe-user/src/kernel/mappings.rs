//! Executable mappings as they are made, on the whole host: `PERF_RECORD_MMAP2` of a perf event on each CPU, which unlike a
//! BPF program learns the whole path, and needs no function tracer in the kernel.

use std::io;
use std::os::unix::ffi::OsStrExt;

use perf_event::data::Record;
use perf_event::events::Software;
use perf_event::{Builder, Sampler};

use crate::target::Mapping;

/// Buffer of one CPU in bytes, a power of two: some 600 records between two reads.
const BUFFER_BYTES: usize = 128 * 1024;

/// The perf events.
pub struct MappingEvents {
    samplers: Vec<Sampler>,
    lost: u64,
}

impl MappingEvents {
    /// Opens one on each CPU.
    pub fn open() -> io::Result<Self> {
        let open = |cpu: u32| {
            Builder::new(Software::DUMMY)
                .any_pid()
                .one_cpu(cpu as usize)
                .mmap(true)
                .mmap2(true)
                .include_kernel()
                .include_hv()
                .enabled(true)
                .build()?
                .sampled(BUFFER_BYTES)
        };
        let cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
        Ok(Self { samplers: cpus.into_iter().map(open).collect::<io::Result<_>>()?, lost: 0 })
    }

    /// Hands over what was mapped since the last call, in the order of each CPU.
    pub fn read(&mut self, mut handle: impl FnMut(u32, Mapping)) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                match record.parse_record() {
                    Ok(Record::Mmap2(mapped)) => {
                        let mapping = Mapping {
                            start: mapped.addr,
                            end: mapped.addr.saturating_add(mapped.len),
                            file_offset: mapped.pgoff,
                            device: (mapped.maj().unwrap_or(0), mapped.min().unwrap_or(0)),
                            inode: mapped.ino().unwrap_or(0),
                            path: String::from_utf8_lossy(mapped.filename_os().as_bytes()).into_owned(),
                        };
                        handle(mapped.pid, mapping);
                    }
                    Ok(Record::Lost(lost)) => self.lost += lost.lost,
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "a perf record is not understood"),
                }
            }
        }
    }

    /// Mappings that found a buffer full.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
