//! Runs the `probe` under test: `$PROBE_BIN`, or the release build of this workspace.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::folded::Folded;
use crate::profile::Profile;
use crate::running::Running;
use crate::workload;

/// How long a command may take beyond the recording that it makes.
const LIMIT: Duration = Duration::from_secs(60);

/// What a command gave.
#[derive(Debug)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Fails unless the exit code is this one.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "exit code {code} expected: {self:#?}");
        Ok(self)
    }

    /// Fails unless standard error has this text, whatever its case.
    pub fn expect_stderr(self, text: &str) -> Result<Self> {
        ensure!(self.stderr.to_lowercase().contains(&text.to_lowercase()), "{text:?} expected in: {}", self.stderr);
        Ok(self)
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self:#?}"))
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let built = || workload::target_dir().join("release/probe");
    std::env::var_os("PROBE_BIN").map_or_else(built, PathBuf::from)
}

/// Runs `probe` with arguments to its end.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Output> {
    run_command(Command::new(binary()).args(arguments))
}

/// Runs a command that runs `probe` to its end.
pub fn run_command(command: &mut Command) -> Result<Output> {
    let folder = workload::scratch()?;
    let (out, err) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let read = |path: &PathBuf| -> Result<String> { Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned()) };
    let mut running = Running::start(command.stdout(File::create(&out)?).stderr(File::create(&err)?))?;
    let status = running.wait(LIMIT).with_context(|| format!("{command:?}: {}", read(&err).unwrap_or_default()))?;
    Ok(Output { code: status.code(), stdout: read(&out)?, stderr: read(&err)? })
}

/// `probe record` of one process, its stacks read back.
pub fn record(pid: u32, seconds: u32, more: &[&str]) -> Result<Folded> {
    let (pid, seconds) = (pid.to_string(), seconds.to_string());
    record_with(&[&["-p", &pid, "-d", &seconds, "-F", "199"], more].concat())
}

/// `probe record` with any flags, its stacks read back.
pub fn record_with(arguments: &[&str]) -> Result<Folded> {
    Folded::parse(&record_as("out.folded", arguments)?)
}

/// The same with the time of each sample.
pub fn profile_with(arguments: &[&str]) -> Result<Profile> {
    Profile::parse(&record_as("out.json", arguments)?)
}

/// What `probe record` writes to a file of this name.
fn record_as(name: &str, arguments: &[&str]) -> Result<String> {
    let folder = workload::scratch()?;
    let file = folder.path().join(name);
    let output = run([&["record", "-o", file.to_str().context("a readable path")?], arguments].concat())?.expect(0)?;
    fs::read_to_string(&file).with_context(|| format!("{} after {output:#?}", file.display()))
}
