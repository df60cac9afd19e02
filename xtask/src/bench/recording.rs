//! A profiler at work, as it looks from outside: what it says and when, whether it still runs, how it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::procfs::{self, Programs};
use super::tools::{Job, Kind, Tool};
use super::workload::Running;
use crate::shell;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The sampling programs' statistics of a recording, and what the profiler said.
pub fn programs(tool: &Tool, job: &Job) -> Result<(Programs, String)> {
    let recording = Recording::start(tool.name, tool.command(job))?;
    let mut programs = Programs::default();
    let limit = Duration::from_secs(u64::from(job.seconds) + 60);
    // The statistics go with the program, so the last ones that were seen count.
    let said = recording.finish(limit, |pid| {
        let now = procfs::perf_programs(pid);
        if now.runs >= programs.runs {
            programs = now;
        }
    })?;
    ensure!(programs.runs > 0 || tool.kind == Kind::Perf, "no sampling program of it was seen: {said}");
    Ok((programs, said))
}

/// Where benchmarks put what they make.
pub fn folder() -> Result<PathBuf> {
    let folder = shell::target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A place for a result that is not there yet.
pub fn output(ending: &str) -> Result<PathBuf> {
    let file = folder()?.join("out").with_extension(ending);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot remove an old result"),
        _ => Ok(file),
    }
}

/// A profiler that was started.
pub struct Recording {
    running: Running,
    began: Instant,
    /// Lines of both its outputs; closed when it ends.
    heard: Receiver<(Instant, String)>,
    said: String,
}

impl Recording {
    /// Starts it. What it prints is kept.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        let (output, input) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        let began = Instant::now();
        let running = Running(command.spawn().with_context(|| format!("cannot start {name}"))?);
        // The command holds the pipe's other end open.
        drop(command);
        let (sender, heard) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Ok(Self { running, began, heard, said: String::new() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Waits until something is true of it; an error when it ends before, or takes longer than the limit.
    pub fn wait_until(&mut self, limit: Duration, mut is_true: impl FnMut(u32) -> bool) -> Result<()> {
        while !is_true(self.pid()) {
            ensure!(self.status()?.is_none() && self.began.elapsed() < limit, "does not begin: {}", self.said());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until it says a line with this text in it. Returns the line and when it came, counted from the start.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<(String, Duration)> {
        loop {
            let left = limit.saturating_sub(self.began.elapsed());
            let Ok((time, line)) = self.heard.recv_timeout(left) else {
                bail!("does not say {text:?}: {}", self.said);
            };
            self.keep(&line);
            if line.contains(text) {
                return Ok((line, time.duration_since(self.began)));
            }
        }
    }

    /// Waits for its end, which must be a success, and looks at it all the while. Returns what it said.
    pub fn finish(mut self, limit: Duration, mut look: impl FnMut(u32)) -> Result<String> {
        let status = loop {
            look(self.pid());
            if let Some(status) = self.status()? {
                break status;
            }
            ensure!(self.began.elapsed() < limit, "does not end: {}", self.said());
            std::thread::sleep(LOOK);
        };
        // Its last words are on their way; whoever it started may hold the pipe open for longer.
        while let Ok((_, line)) = self.heard.recv_timeout(LOOK) {
            self.keep(&line);
        }
        ensure!(status.success(), "{status}: {}", self.said);
        Ok(self.said)
    }

    /// Asks it to end as a user does with Ctrl-C.
    pub fn interrupt(&self) -> Result<()> {
        shell::run(Command::new("kill").args(["-INT", &self.pid().to_string()]))
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.running.0.try_wait()?)
    }

    fn said(&mut self) -> &str {
        while let Ok((_, line)) = self.heard.try_recv() {
            self.keep(&line);
        }
        &self.said
    }

    fn keep(&mut self, line: &str) {
        self.said.push_str(line);
        self.said.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Recording {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Recording::start("sh", command).unwrap()
    }

    #[test]
    fn what_is_said_is_heard_in_time() {
        let mut recording = shell("echo one; echo two >&2; echo three");
        let (line, after) = recording.wait_for("tw", LIMIT).unwrap();
        assert_eq!(line, "two");
        assert!(after < LIMIT);
        assert_eq!(recording.finish(LIMIT, |_| {}).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn who_fails_is_quoted() {
        let error = shell("echo no luck; exit 3").finish(LIMIT, |_| {}).unwrap_err().to_string();
        assert!(error.contains("no luck") && error.contains('3'), "{error}");
        assert!(shell("exit 0").wait_for("ready", LIMIT).is_err());
        assert!(shell("exit 0").wait_until(LIMIT, |_| false).is_err());
    }
}
