//! `ThreadClock`: the time that a thread has had on a processor, exact to the moment even while it runs; and the time that it
//! was ready and had to wait for one. What `/proc` tells of the first is as old as the last tick of the scheduler.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use perf_event::events::Software;
use perf_event::{Builder, Counter};

/// See the head of this file.
pub struct ThreadClock {
    /// `PERF_COUNT_SW_TASK_CLOCK`, since it was opened.
    on_cpu: Counter,
    /// `schedstat` of the thread: its second number is the time in the run queue (kernel: `proc_pid_schedstat`).
    schedule: File,
    folder: PathBuf,
}

/// What a thread has had since some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThreadTime {
    /// On a processor.
    pub on_cpu: Duration,
    /// Ready, without one.
    pub waiting: Duration,
}

impl ThreadClock {
    /// Of a thread of a process.
    pub fn of(pid: u32, tid: u32) -> io::Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}/task/{tid}"));
        let schedule = File::open(folder.join("schedstat"))?;
        let mut builder = Builder::new(Software::TASK_CLOCK);
        builder.observe_pid(tid.cast_signed()).any_cpu().include_kernel().include_hv().enabled(true);
        Ok(Self { on_cpu: builder.build()?, schedule, folder })
    }

    /// What it has had; of a thread that has ended, what it had then.
    pub fn read(&mut self) -> io::Result<ThreadTime> {
        let on_cpu = Duration::from_nanos(self.on_cpu.read()?);
        let mut text = [0; 64];
        let length = self.schedule.read_at(&mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        let waiting = text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok(ThreadTime { on_cpu, waiting: Duration::from_nanos(waiting) })
    }

    /// Whether the thread is still there.
    pub fn is_running(&self) -> bool {
        self.folder.exists()
    }
}
