//! Executable mappings and execs as they are made, on the whole host: `PERF_RECORD_MMAP2` and `PERF_RECORD_COMM` of a perf
//! event on each CPU, which unlike a BPF program learns the whole path, and needs no function tracer in the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use perf_event::data::Record;
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag, Sampler};
use rustix::event::epoll;

use super::Event;
use crate::target::Mapping;

/// Buffer of one CPU in bytes, a power of two: some 600 records between two reads.
const BUFFER_BYTES: usize = 128 * 1024;
/// Kinds of records (include/uapi/linux/perf_event.h).
const PERF_RECORD_COMM: u32 = 3;
const PERF_RECORD_MMAP2: u32 = 10;
/// `PERF_RECORD_MISC_COMM_EXEC` (include/uapi/linux/perf_event.h): the name changed because of an exec.
const COMM_EXEC: u16 = 1 << 13;

/// How often a second somebody is woken for nothing: new code is to be known at once, but what a host maps is up to others.
const WAKES: u32 = 50;
const SECOND_NS: u64 = 1_000_000_000;

/// The perf events.
pub struct MappingEvents {
    samplers: Vec<Sampler>,
    lost: u64,
    /// Readable when there is something in the buffer of any.
    alarm: OwnedFd,
    /// The second in which somebody was woken last, and how often for nothing.
    woken: (u64, u32),
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
                .comm(true)
                .comm_exec(true)
                // The time is the last word of every record, by the clock of the kernel programs.
                .sample_id_all(true)
                .wakeup_watermark(1)
                .sample(SampleFlag::TIME)
                .clockid(Clock::MONOTONIC)
                .include_kernel()
                .include_hv()
                .enabled(true)
                .build()?
                .sampled(BUFFER_BYTES)
        };
        let cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
        let samplers = cpus.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let alarm = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for sampler in &samplers {
            #[expect(unsafe_code, reason = "the library lends no descriptor")]
            // SAFETY: it is open as long as the sampler is.
            let fd = unsafe { BorrowedFd::borrow_raw(sampler.as_raw_fd()) };
            epoll::add(&alarm, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Self { samplers, lost: 0, alarm, woken: (0, 0) })
    }

    /// Becomes readable when there is something to read; `None` if that was so too often in this second.
    pub fn alarm(&self, now_ns: u64) -> Option<BorrowedFd<'_>> {
        let (second, wakes) = self.woken;
        (second != now_ns / SECOND_NS || wakes < WAKES).then(|| self.alarm.as_fd())
    }

    /// The alarm has woken somebody.
    pub fn has_woken(&mut self, now_ns: u64) {
        let second = now_ns / SECOND_NS;
        let wakes = if self.woken.0 == second { self.woken.1 } else { 0 };
        self.woken = (second, wakes + 1);
    }

    /// That was not for nothing.
    pub fn has_helped(&mut self) {
        self.woken.1 = self.woken.1.saturating_sub(1);
    }

    /// Adds what happened since the last call to the processes that are meant, with its time.
    pub fn read(&mut self, is_meant: impl Fn(u32) -> bool, into: &mut Vec<(u64, Event)>) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                let bytes = record.to_contiguous();
                // Most are of others. The body of both records begins with the process (perf_event_open(2)).
                let is_of_process = matches!(record.ty(), PERF_RECORD_COMM | PERF_RECORD_MMAP2);
                let pid = || bytes.first_chunk::<4>().map_or(0, |word| u32::from_ne_bytes(*word));
                if is_of_process && !is_meant(pid()) {
                    continue;
                }
                let time_ns = bytes.last_chunk::<8>().map_or(0, |word| u64::from_ne_bytes(*word));
                let is_exec = record.misc() & COMM_EXEC != 0;
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
                        into.push((time_ns, Event::Map { pid: mapped.pid, time_ns, mapping }));
                    }
                    Ok(Record::Comm(comm)) if is_exec => into.push((time_ns, Event::NewImage { pid: comm.pid })),
                    Ok(Record::Lost(lost)) => self.lost += lost.lost,
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "a perf record is not understood"),
                }
            }
        }
    }

    /// Records that found a buffer full.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
