//! A process that is kept alive.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process};

use super::heart::Beat;

/// Shortest and longest time until a process that ended is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A process that was well for so long has failed for another reason than the time before.
const RECOVERED: Duration = Duration::from_secs(60);
/// A process that has not said for so long that it is alive hangs.
const HANGS: Duration = Duration::from_secs(60);
/// One that starts may take longer: the kernel verifies its programs, on a slow machine for minutes.
const STARTS: Duration = Duration::from_secs(300);
/// How many heaps glibc has for the threads of a process.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Ward {
    pub(super) name: &'static str,
    arguments: Vec<OsString>,
    process: Option<(Child, ChildStdout)>,
    line: Vec<u8>,
    /// It runs, and said that it works.
    pub(super) is_ready: bool,
    /// It has been ready once.
    pub(super) was_ready: bool,
    /// It was asked to check another configuration or to go on by it, and has not answered.
    pub(super) is_asked: bool,
    /// What it has checked.
    pub(super) prepared: Option<u64>,
    since: Instant,
    pub(super) beat: Instant,
    failures: u32,
    again: Option<Instant>,
}

impl Ward {
    /// A process that is to run this program with these arguments.
    pub(super) fn new(name: &'static str, arguments: Vec<OsString>) -> Self {
        let now = Instant::now();
        Self {
            name,
            arguments,
            process: None,
            line: Vec::new(),
            is_ready: false,
            was_ready: false,
            is_asked: false,
            prepared: None,
            since: now,
            beat: now,
            failures: 0,
            again: Some(now),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// What it says can be read here.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|(_, pipe)| pipe.as_fd())
    }

    /// When it is to be started again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Starts it if it is time for that. That it cannot be started is taken as if it had failed at once.
    pub(super) fn start_if_due(&mut self, now: Instant) {
        if self.again.is_none_or(|again| again > now) {
            return;
        }
        self.again = None;
        (self.since, self.beat) = (now, now);
        if let Err(error) = self.start() {
            tracing::error!("cannot start the {}: {error:#}", self.name);
            self.pause(now);
        }
    }

    fn start(&mut self) -> Result<()> {
        let mut command = own_program();
        command.args(&self.arguments).stdout(Stdio::piped());
        // They are the supervisor's.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        // Threads that need much memory for a moment, such as the one that reads symbols, are to leave it to the others: glibc
        // would keep some for each thread. An operator's own choice stays.
        if std::env::var_os(ARENAS).is_none() {
            command.env(ARENAS, "1");
        }
        let mut child = command.spawn().context("cannot run this program again")?;
        let pipe = child.stdout.take().context("its output is not a pipe")?;
        ioctl_fionbio(&pipe, true).context("its output cannot be waited for")?;
        tracing::debug!("the {} is pid {}", self.name, child.id());
        self.process = Some((child, pipe));
        self.line.clear();
        Ok(())
    }

    /// What it has said since the last time.
    pub(super) fn heard(&mut self, now: Instant) -> Vec<Beat> {
        let Some((_, pipe)) = &mut self.process else { return Vec::new() };
        let mut chunk = [0; 512];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            self.line.extend_from_slice(&chunk[..length]);
        }
        let mut beats = Vec::new();
        while let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            beats.extend(std::str::from_utf8(&line[..end]).ok().and_then(Beat::read));
        }
        // Whatever it is, it is not one of ours.
        self.line.truncate(64);
        for beat in &beats {
            self.beat = now;
            match beat {
                Beat::Ready => (self.is_ready, self.was_ready) = (true, true),
                Beat::Alive => {}
                Beat::Prepared(number) => (self.is_asked, self.prepared) = (false, Some(*number)),
                Beat::Reloaded | Beat::Refused => (self.is_asked, self.prepared) = (false, None),
            }
        }
        beats
    }

    /// Whether it has ended, and how. Then it is known when it is started again.
    pub(super) fn ended(&mut self, now: Instant) -> Option<ExitStatus> {
        let (child, _) = self.process.as_mut()?;
        let status = child.try_wait().ok().flatten()?;
        self.process = None;
        (self.is_ready, self.is_asked, self.prepared) = (false, false, None);
        if status.success() {
            // It asked for it: what has changed needs a new process.
            self.failures = 0;
        }
        self.pause(now);
        Some(status)
    }

    fn pause(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= RECOVERED {
            self.failures = 0;
        }
        self.again = Some(now + pause(self.failures));
        self.failures += 1;
    }

    /// Asks it something by a signal, to be answered.
    pub(super) fn ask(&mut self, signal: Signal) {
        self.is_asked = self.is_running();
        self.signal(signal);
    }

    /// Sends a signal, if it runs.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some((child, _)) = &self.process
            && let Err(error) = kill_process(Pid::from_child(child), signal)
        {
            tracing::debug!("the {} cannot be signalled: {error}", self.name);
        }
    }

    /// Ends it if it hangs, so that it is started again.
    pub(super) fn end_if_hanging(&mut self, now: Instant) {
        let limit = if self.is_ready { HANGS } else { STARTS };
        if self.is_running() && now.saturating_duration_since(self.beat) >= limit {
            tracing::error!("the {} has given no sign of life for {} s: it is killed", self.name, limit.as_secs());
            self.signal(Signal::KILL);
            self.beat = now;
        }
    }
}

/// This program, whatever stands at its path by now: all processes are to be of one version.
pub(super) fn own_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("probe").stdin(Stdio::null());
    command
}

fn pause(failures: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << failures.min(16)).min(PAUSES.1)
}

/// How a process ended, for people.
pub(super) fn manner(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (_, Some(signal)) => format!("by signal {signal}"),
        _ => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let pauses: Vec<u128> = [0, 1, 2, 8, 9, 1000].map(|failures| pause(failures).as_millis()).to_vec();
        assert_eq!(pauses, [100, 200, 400, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn what_is_said_is_heard_even_in_pieces() {
        let mut ward = Ward::new("test", Vec::new());
        let mut child = Command::new("sh")
            .args(["-c", "printf 're'; printf 'ady\\nalive\\nnonsense\\nrefused\\n'"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let pipe = child.stdout.take().expect("piped");
        child.wait().expect("ends");
        ward.process = Some((child, pipe));
        ward.is_asked = true;
        let now = Instant::now();
        assert_eq!(ward.heard(now), [Beat::Ready, Beat::Alive, Beat::Refused]);
        assert!(ward.is_ready && !ward.is_asked && ward.beat == now);
        assert!(ward.ended(now).expect("it ended").success());
        assert_eq!((ward.is_ready, ward.was_ready, ward.due()), (false, true, Some(now + PAUSES.0)));
    }
}
