//! The workload that all profilers measure, and how a program is ended when it is no longer needed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::shell;

/// A running program, ended when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Compiles the workload.
pub fn build() -> Result<PathBuf> {
    let folder = shell::target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let binary = folder.join("frames");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o"]).arg(&binary);
    shell::run(gcc.arg(shell::checkout().join("xtask/bench/frames.c")))?;
    Ok(binary)
}

/// Starts it with call chains of this many frames, and waits until it runs.
pub fn start(binary: &Path, frames: u32) -> Result<Running> {
    let child = Command::new(binary).arg(frames.to_string()).stdout(Stdio::piped()).spawn();
    let mut running = Running(child.context("cannot start the workload")?);
    let mut line = String::new();
    let output = running.0.stdout.take().context("the output is piped")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the workload does not begin");
    Ok(running)
}
