//! What a process uses beside CPU and memory: storage, and what its threads do. The parsers are pure.

/// What a process has read from storage and written to it in its life, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageBytes {
    /// Fetched from storage.
    pub read: u64,
    /// Sent to storage, or to be sent: counted when the page cache is dirtied.
    pub written: u64,
}

impl StorageBytes {
    /// Parses the text of `/proc/PID/io`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |key| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
        Some(Self { read: number("read_bytes:")?, written: number("write_bytes:")? })
    }
}

/// What is asked of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskFields {
    /// Time on a CPU and waiting for one.
    pub schedule: bool,
    /// Is it blocked?
    pub blocked: bool,
    /// Context switches.
    pub switches: bool,
}

/// A thread; what was not asked for, or could not be read, is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub tid: u32,
    /// Time on a CPU, in nanoseconds.
    pub run_ns: u64,
    /// Time ready to run but without a CPU, in nanoseconds.
    pub queued_ns: u64,
    /// It is in uninterruptible sleep.
    pub is_blocked: bool,
    /// How often it began to wait.
    pub voluntary: u64,
    /// How often it was put aside.
    pub involuntary: u64,
}

impl Task {
    /// Takes what `/proc/PID/task/TID/schedstat` says, `0 3175851 1`: on a CPU, waiting for one, how often.
    pub(super) fn add_schedstat(&mut self, text: &str) -> Option<()> {
        let mut numbers = text.split_ascii_whitespace().map_while(|word| word.parse().ok());
        (self.run_ns, self.queued_ns) = (numbers.next()?, numbers.next()?);
        Some(())
    }

    /// Takes the context switches of `status`.
    pub(super) fn add_status(&mut self, text: &str) -> Option<()> {
        let number = |key| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
        self.voluntary = number("voluntary_ctxt_switches:")?;
        self.involuntary = number("nonvoluntary_ctxt_switches:")?;
        Some(())
    }

    /// Takes the state of `stat`.
    pub(super) fn add_stat(&mut self, text: &str) -> Option<()> {
        // The state follows the name, which may hold anything.
        self.is_blocked = text.get(text.rfind(')')? + 1..)?.trim_start().starts_with('D');
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_counted_in_bytes() {
        let text = "rchar: 6976\nwchar: 0\nsyscr: 10\nsyscw: 0\nread_bytes: 4096\nwrite_bytes: 512\ncancelled_write_bytes: 0\n";
        assert_eq!(StorageBytes::parse(text), Some(StorageBytes { read: 4096, written: 512 }));
        assert_eq!(StorageBytes::parse("rchar: 1"), None);
    }

    #[test]
    fn a_thread_is_in_three_files() {
        let mut task = Task::default();
        assert!(task.add_schedstat("70 3175851 1\n").is_some() && task.add_schedstat("70").is_none());
        assert!(task.add_status("Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n").is_some());
        assert!(task.add_stat("7 (a) S b) D 1").is_some());
        let expected =
            Task { run_ns: 70, queued_ns: 3_175_851, is_blocked: true, voluntary: 5, involuntary: 6, tid: 0 };
        assert_eq!(task, expected);
    }
}
