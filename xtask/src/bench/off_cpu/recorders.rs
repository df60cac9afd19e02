//! The programs that record waits: how each is started on a process. What they say is read in `waits`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::tools;

/// Who records waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Probe,
    Offcputime,
    Bpftrace,
}

/// One that is here.
pub struct Recorder {
    pub name: &'static str,
    pub kind: Kind,
    binary: PathBuf,
}

/// It is interrupted long before.
const SECONDS: &str = "120";

/// What offcputime does, in bpftrace's language: stacks when a thread leaves the CPU, time when it comes back. It counts as
/// well, which offcputime does not.
const SCRIPT: &str = "tracepoint:sched:sched_switch {
    if (pid == PID) { @since[tid] = nsecs; @user[tid] = ustack(perf, 127); @kernel[tid] = kstack(perf, 127); }
    $since = @since[args->next_pid];
    if ($since) {
        @waits[args->next_comm, @user[args->next_pid], @kernel[args->next_pid]] = stats(nsecs - $since);
        delete(@since[args->next_pid]);
    }
}
END { clear(@since); clear(@user); clear(@kernel); }";

/// `probe`, and those of its peers that are here or can be installed. Says which are not.
pub fn find(probe: PathBuf, install: bool) -> Vec<Recorder> {
    let mut recorders = vec![Recorder { name: "probe", kind: Kind::Probe, binary: probe }];
    for (name, kind, package) in
        [("offcputime", Kind::Offcputime, "libbpf-tools"), ("bpftrace", Kind::Bpftrace, "bpftrace")]
    {
        match tools::debian(name, package, install) {
            Ok(binary) => recorders.push(Recorder { name, kind, binary }),
            Err(error) => eprintln!("xtask: without {name}: {error:#}"),
        }
    }
    recorders
}

impl Recorder {
    /// The command that records a process until it is interrupted. `probe` writes a file, the others to their output.
    pub fn command(&self, pid: u32, output: &Path) -> Command {
        let pid = pid.to_string();
        match self.kind {
            Kind::Probe => {
                let mut command = Command::new(&self.binary);
                command.args(["record", "-v", "-e", "off-cpu", "-p", &pid, "-d", SECONDS, "-o"]).arg(output);
                command
            }
            Kind::Offcputime => {
                let mut command = Command::new(&self.binary);
                command.args(["-p", &pid, SECONDS]);
                command
            }
            Kind::Bpftrace => {
                let mut command = tools::with_tracepoints(&self.binary);
                command.args(["-e", &SCRIPT.replace("PID", &pid)]);
                command
            }
        }
    }
}
