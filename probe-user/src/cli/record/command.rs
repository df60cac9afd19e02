//! A command that `probe record` runs: started as a target, and ended with the recording.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::gate;
use super::signals::Signals;
use crate::cli::{Descriptors, tell};
use crate::heap::Allocators;
use crate::problem::{Exit, Problem};
use crate::record::Collector;
use crate::target::{Module, files_of_command};

/// How long a command that is told to end may take to do so.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a command waits for the probes in its allocators.
const PROBES: Duration = Duration::from_secs(5);

/// A command that runs. Dropping it ends it.
pub struct Running {
    child: Child,
    signals: Arc<Signals>,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts the command such that the kernel makes it a target in the moment of its exec: nothing of it is missed, and
    /// nothing of what runs between fork and exec is taken for it. With `is_stdout_taken` it writes to stderr only. With
    /// `heap` its allocations are sampled, from its first instruction on where the files of its allocators are known before;
    /// it gets those.
    pub fn start(
        collector: &Collector,
        command: &[OsString],
        is_stdout_taken: bool,
        descriptors: Descriptors,
        signals: &Arc<Signals>,
        heap: Option<&mut Vec<Arc<Allocators>>>,
    ) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no command")?;
        let ourselves = std::process::id();
        let mut command = Command::new(program);
        command.args(arguments);
        if is_stdout_taken {
            command.stdout(Stdio::from(std::io::stderr()));
        }
        give_descriptors_back(&mut command, descriptors);
        collector.spawner(ourselves)?;
        // Whoever quits now waits until it is known whom to end.
        let mut leftovers = signals.leftovers();
        let child = match heap {
            None => command.spawn().map_err(anyhow::Error::from),
            Some(allocators) => {
                let files = files_of_command(program);
                gate::spawn(command, |pid| *allocators = expect(collector, pid, files))
            }
        };
        leftovers.command = child.as_ref().ok().map(Pid::from_child);
        drop(leftovers);
        let running = child.map(|child| Self { child, signals: Arc::clone(signals), status: None });
        collector.unwatch(ourselves)?;
        running.map_err(|error| {
            let message = format!("cannot run {}: {error:#}", program.to_string_lossy());
            let (exit, hint) = match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::NotFound) => {
                    (Exit::NoCommand, "give the path of a program after --, or the name of one that PATH finds")
                }
                Some(ErrorKind::PermissionDenied) => {
                    (Exit::NotExecutable, "it must be a program that may be executed: chmod +x")
                }
                _ => (Exit::NotExecutable, "give the path of a program after --; a script has to begin with #!"),
            };
            Problem::new(exit, message, hint).into()
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            // Its number may be another's as soon as it was waited for.
            let mut leftovers = self.signals.leftovers();
            self.status = self.child.try_wait().context("cannot wait for the command")?;
            if self.status.is_some() {
                leftovers.command = None;
            }
        }
        Ok(self.status)
    }

    /// Tells it to end if it runs, and waits a moment. True if it had to be told.
    pub fn end(&mut self) -> Result<bool> {
        if self.status()?.is_some() {
            return Ok(false);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot end the command")?;
        let begin = Instant::now();
        while self.status()?.is_none() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.status.is_none() {
            tell(&format!("the command still runs as pid {}", self.child.id()));
            self.signals.leftovers().command = None;
        }
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Neither waited for nor given up.
        let is_ours = self.signals.leftovers().command.is_some();
        if is_ours && let Err(error) = self.end() {
            tracing::warn!("{error:#}");
        }
    }
}

/// Has the probes set of what the command is going to map. What is not known now is looked for when it runs.
fn expect(collector: &Collector, pid: u32, files: Vec<PathBuf>) -> Vec<Arc<Allocators>> {
    let open = |path: &PathBuf| Module::open(path).inspect_err(|error| tracing::debug!("{error:#}")).ok();
    let files = files.iter().filter_map(open).map(Arc::new).collect();
    let allocators = collector.expect_heap(pid, files, PROBES);
    allocators.inspect_err(|error| tracing::debug!("not before it runs: {error:#}")).unwrap_or_default()
}

/// Programs that use `select` break with more descriptors than they were made for, so the command gets the limit that we
/// were started with.
#[expect(unsafe_code, reason = "the only way to set a limit for a child alone")]
fn give_descriptors_back(command: &mut Command, descriptors: Descriptors) {
    // SAFETY: between fork and exec only setrlimit is called, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || descriptors.restore()) };
}
