//! `ProcFiles`: what `/proc` says of a process that is looked at again and again. Its files are opened once and stay open,
//! which saves half of each reading; and they are of that process, whoever has its pid later.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::LazyLock;

use rustix::process::{Resource, getrlimit};

use super::read_small;
use super::stat::{Stat, page_size};
use super::usage::{StorageBytes, Task, TaskFields};

/// What nearly all of these files fit into.
const PIECE: usize = 4096;
/// Most threads of a process that are looked at; the rest of one with more is left out.
const MAX_THREADS: usize = 16 * 1024;
/// Of how many threads of a process files stay open: each takes some 5 KiB of the kernel's memory.
const MAX_KEPT_THREADS: usize = 64;

/// Files are kept with descriptors below this: the other half of those that we may have is for others.
static MAX_KEPT: LazyLock<u64> = LazyLock::new(|| getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2);

/// See the head of this file.
#[derive(Debug)]
pub struct ProcFiles {
    pid: u32,
    stat: Kept,
    statm: Kept,
    io: Kept,
    descriptors: Kept,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    tid: u32,
    schedstat: Kept,
    status: Kept,
    stat: Kept,
}

impl ProcFiles {
    /// Those of a process; nothing is opened before it is asked for.
    pub fn of(pid: u32) -> Self {
        let [stat, statm, io, descriptors] = [(); 4].map(|()| Kept::default());
        Self { pid, stat, statm, io, descriptors, threads: Vec::new() }
    }

    /// See [`Stat::read`].
    pub fn stat(&mut self) -> Option<Stat> {
        let stat = self.stat.read(|| format!("/proc/{}/stat", self.pid), |text| Stat::parse(text, page_size()))?;
        let rss_bytes = if stat.is_ended() { super::resident_bytes(self.pid).unwrap_or(0) } else { stat.rss_bytes };
        (!stat.is_over()).then_some(Stat { rss_bytes, ..stat })
    }

    /// See [`super::resident_bytes`].
    pub fn resident_bytes(&mut self) -> Option<u64> {
        let bytes = self.statm.read(|| format!("/proc/{}/statm", self.pid), super::memory::resident)?;
        // Of a process whose main thread has ended it says nothing.
        if bytes > 0 { Some(bytes) } else { super::resident_bytes(self.pid) }
    }

    /// `None` when it is gone, may not be looked at, or the kernel does not count.
    pub fn storage(&mut self) -> Option<StorageBytes> {
        self.io.read(|| format!("/proc/{}/io", self.pid), StorageBytes::parse)
    }

    /// How many file descriptors a process has open; `None` when it is gone or may not be looked at.
    pub fn open_files(&mut self) -> Option<u64> {
        let pid = self.pid;
        let folder = || super::folder(pid).join("fd");
        let size = self.descriptors.with(
            || OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder()).ok(),
            |file| Some(file.metadata().ok()?.len()),
        )?;
        // Since Linux 6.2 the folder's size says it.
        if size > 0 { Some(size) } else { Some(std::fs::read_dir(folder()).ok()?.count() as u64) }
    }

    /// Its threads, of which there are `count` as far as is known; empty when it is gone.
    pub fn tasks(&mut self, wanted: TaskFields, count: u64) -> Vec<Task> {
        let expected = usize::try_from(count).unwrap_or(MAX_THREADS).min(MAX_THREADS);
        let tasks = if self.threads.len() == expected { self.read_threads(wanted) } else { Vec::new() };
        if !tasks.is_empty() && tasks.len() == expected {
            return tasks;
        }
        self.list_threads();
        // One that has ended meanwhile is left out.
        self.read_threads(wanted)
    }

    fn list_threads(&mut self) {
        let entries = std::fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let tids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut new: BTreeSet<u32> = tids.take(MAX_THREADS).collect();
        // What is left over is new.
        self.threads.retain(|thread| new.remove(&thread.tid));
        self.threads.extend(new.into_iter().map(Thread::of));
    }

    fn read_threads(&mut self, wanted: TaskFields) -> Vec<Task> {
        let (pid, are_kept) = (self.pid, self.threads.len() <= MAX_KEPT_THREADS);
        let read = |thread: &mut Thread| {
            let task = thread.read(pid, wanted);
            if !are_kept {
                *thread = Thread::of(thread.tid);
            }
            task
        };
        self.threads.iter_mut().filter_map(read).collect()
    }
}

impl Thread {
    fn of(tid: u32) -> Self {
        let [schedstat, status, stat] = [(); 3].map(|()| Kept::default());
        Self { tid, schedstat, status, stat }
    }

    fn read(&mut self, pid: u32, wanted: TaskFields) -> Option<Task> {
        let tid = self.tid;
        let path = |name: &'static str| move || format!("/proc/{pid}/task/{tid}/{name}");
        let mut task = Task { tid, ..Task::default() };
        if wanted.schedule {
            self.schedstat.read(path("schedstat"), |text| task.add_schedstat(text))?;
        }
        if wanted.switches {
            self.status.read(path("status"), |text| task.add_status(text))?;
        }
        if wanted.blocked {
            self.stat.read(path("stat"), |text| task.add_stat(text))?;
        }
        Some(task)
    }
}

/// A file that stays open, if there is room.
#[derive(Debug, Default)]
struct Kept(Option<File>);

impl Kept {
    /// What it says now. A file that cannot be read is opened anew the next time.
    fn read<T>(&mut self, path: impl Fn() -> String, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut piece = [0; PIECE];
        let read = |file: &File| file.read_at(&mut piece, 0).ok();
        let count = self.with(|| File::open(path()).ok(), read)?;
        if count == PIECE {
            return parse(&read_small(path())?);
        }
        parse(&String::from_utf8_lossy(piece.get(..count)?))
    }

    fn with<T>(&mut self, open: impl FnOnce() -> Option<File>, read: impl FnOnce(&File) -> Option<T>) -> Option<T> {
        let file = match self.0.take() {
            Some(file) => file,
            None => open()?,
        };
        let value = read(&file)?;
        if u64::try_from(file.as_raw_fd()).is_ok_and(|number| number < *MAX_KEPT) {
            self.0 = Some(file);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_is_read_again_and_again() {
        let mut files = ProcFiles::of(std::process::id());
        for _ in 0..3 {
            let stat = files.stat().expect("alive");
            assert!(stat.threads >= 1 && stat.rss_bytes > 0, "{stat:?}");
            assert!(files.resident_bytes().expect("alive") > 100_000);
        }
        assert!(files.stat.0.is_some(), "it stays open");
        assert!(ProcFiles::of(u32::MAX).stat().is_none());
    }

    #[test]
    fn this_process_opens_files() {
        let mut files = ProcFiles::of(std::process::id());
        let before = files.open_files().expect("alive");
        let more: Vec<_> = (0..50).map(|_| File::open("/dev/null").expect("opens")).collect();
        // Other tests open and close files meanwhile.
        let after = files.open_files().expect("alive");
        assert!(after >= before + 30, "{before}, {after}");
        drop(more);
        assert_eq!(ProcFiles::of(u32::MAX).open_files(), None);
    }

    #[test]
    fn this_process_has_threads_that_run_and_wait() {
        let mut files = ProcFiles::of(std::process::id());
        let all = TaskFields { schedule: true, blocked: true, switches: true };
        let first = files.tasks(all, 1);
        assert!(!first.is_empty());
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let waits = std::thread::spawn(move || told.recv().is_err());
        let burn = std::time::Instant::now();
        while burn.elapsed().as_millis() < 30 {}
        let count = files.stat().expect("alive").threads;
        let tasks = files.tasks(all, count);
        assert!(tasks.len() >= 2, "{tasks:?}");
        assert!(tasks.iter().any(|task| task.run_ns > 10_000_000), "{tasks:?}");
        assert!(tasks.iter().any(|task| task.voluntary > 0), "{tasks:?}");
        drop(tell);
        assert!(waits.join().expect("no panic"));
        assert!(ProcFiles::of(u32::MAX).tasks(all, 3).is_empty());
    }

    #[test]
    fn a_process_that_has_ended_is_gone() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("runs");
        let mut files = ProcFiles::of(child.id());
        assert!(files.stat().is_some() && files.storage().is_some() && files.open_files().is_some());
        drop(child.stdin.take());
        child.wait().expect("ends");
        assert!(files.stat().is_none() && files.resident_bytes().is_none() && files.open_files().is_none());
        assert!(files.tasks(TaskFields { schedule: true, ..TaskFields::default() }, 1).is_empty());
    }
}
