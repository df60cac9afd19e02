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

/// Compiles the workload, with frame pointers or without.
pub fn build(frame_pointers: bool) -> Result<PathBuf> {
    const WITH: [&str; 4] = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];
    const WITHOUT: [&str; 2] = ["-O2", "-fomit-frame-pointer"];
    let folder = shell::target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let (name, flags) = if frame_pointers { ("frames", &WITH[..]) } else { ("frames-without-pointers", &WITHOUT[..]) };
    let binary = folder.join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(flags).args(["-pthread", "-o"]).arg(&binary);
    shell::run(gcc.arg(shell::checkout().join("xtask/bench/frames.c")))?;
    Ok(binary)
}

/// Starts it with call chains of this many frames, and waits until it runs.
pub fn start(binary: &Path, frames: u32) -> Result<Running> {
    ready(Command::new(binary).arg(frames.to_string()))
}

/// Starts a program that says `ready` when it is, and waits for that.
pub fn ready(command: &mut Command) -> Result<Running> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut running = Running(child.context("cannot start the workload")?);
    let mut line = String::new();
    let output = running.0.stdout.take().context("the output is piped")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the workload does not begin");
    Ok(running)
}
