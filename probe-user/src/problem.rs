//! `Problem`: an error that knows what the user can do about it and which exit code it deserves. Everything else is a
//! plain `anyhow::Error` with context. Raise it with `bail!(Problem::…)`; `cli` prints it.

use std::fmt;

/// Exit codes, as documented for the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything not listed below.
    Failure = 1,
    /// Wrong flags or configuration.
    Usage = 2,
    /// The target is gone or gave no sample.
    NoTarget = 3,
    /// The host or its privileges do not allow it.
    NotPermitted = 4,
    /// A command that was to be recorded cannot be executed, as shells have it.
    NotExecutable = 126,
    /// There is no such command.
    NoCommand = 127,
}

/// An error with a hint. `message` says what was tried and on what; `hint` says what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Exit code of the process if this ends it.
    pub exit: Exit,
    /// What was tried, on what (pid, path), and what happened.
    pub message: String,
    /// What the user can do; empty when there is nothing to say.
    pub hint: String,
    /// The key of a definition that is wrong; empty where it is none.
    pub key: String,
}

/// What to do where privileges are missing.
pub const PRIVILEGES: &str = "run as root, or give the binary CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; \
                              `probe check` tells what is missing";

/// What to do where a distribution's kernel refuses perf events in spite of CAP_PERFMON.
pub const PARANOID: &str = "this kernel, as Debian's and Ubuntu's do, wants CAP_SYS_ADMIN for perf events while \
                            kernel.perf_event_paranoid is above 2: `sysctl kernel.perf_event_paranoid=2`, and the same in \
                            /etc/sysctl.d for the next boot";

impl Problem {
    /// A problem of the given class.
    pub fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: hint.into(), key: String::new() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}
