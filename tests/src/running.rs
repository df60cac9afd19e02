//! A program that runs while a test looks at it, and ends with it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::poll;
use crate::truth::Truth;

/// How long a program may take to begin with its work, on a machine that does much else.
const START: Duration = Duration::from_secs(20);

/// A running program in a process group of its own. Dropping it ends the group.
pub struct Running {
    child: Child,
    /// What it has told of its calls.
    told: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts a program without waiting for anything.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        Ok(Self { child: child.with_context(|| format!("cannot start {command:?}"))?, told: Arc::default() })
    }

    /// Starts a workload and waits until it says on its standard output that it is ready.
    pub fn ready(command: &mut Command) -> Result<Self> {
        let mut running = Self::start(command.stdout(Stdio::piped()))?;
        let output = running.child.stdout.take().context("the output is piped")?;
        let first = listen(output, running.told.clone());
        let line = first.recv_timeout(START).map_err(|_| anyhow!("{command:?} does not begin"))?;
        anyhow::ensure!(line.trim() == "ready", "{command:?} says {line:?} instead of that it is ready");
        Ok(running)
    }

    /// What the calls of a name took until now by its own clock.
    pub fn truth(&self, name: &str) -> Result<Truth> {
        Truth::parse(&self.told.lock().unwrap_or_else(PoisonError::into_inner), name)
    }

    /// Starts a workload by its path.
    pub fn workload(path: &Path) -> Result<Self> {
        Self::ready(&mut Command::new(path))
    }

    /// The process id of what was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of the given name among those that descend from what was started.
    pub fn descendant(&self, comm: &str) -> Result<u32> {
        poll::until(&format!("a process {comm} below {}", self.pid()), START, || {
            let mut pids = vec![self.pid()];
            while let Some(pid) = pids.pop() {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if name.trim_end() == comm {
                    return Some(pid);
                }
                let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
                pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
            None
        })
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by its name to what was started.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status()?;
        anyhow::ensure!(status.success(), "cannot send {name} to {}", self.pid());
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        poll::until(&format!("the end of process {}", self.pid()), limit, || self.child.try_wait().ok().flatten())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its leader is not waited for yet, so the group's number cannot have been given to others.
        let group = format!("-{}", self.pid());
        if self.is_alive() || File::open(format!("/proc/{}/stat", self.pid())).is_ok() {
            let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
    }
}

/// Reads one line, and everything else, so that the program never finds its pipe full or closed. What it tells of calls is
/// kept, and is not that line.
fn listen(output: ChildStdout, told: Arc<Mutex<Vec<String>>>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.starts_with("told ") {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            } else {
                // Only the first is waited for, and the test may have given up meanwhile.
                let _ = send.send(line);
            }
        }
    });
    receive
}
