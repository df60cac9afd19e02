//! The workloads that are measured, and how a program is ended when it is no longer needed.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};

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

/// Compiles the workload of the sampler, with frame pointers or without.
pub fn build(frame_pointers: bool) -> Result<PathBuf> {
    compile("frames", frame_pointers)
}

/// Compiles a workload, with frame pointers or without. Every call keeps a frame.
pub fn compile(name: &str, frame_pointers: bool) -> Result<PathBuf> {
    const WITH: [&str; 4] = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];
    const WITHOUT: [&str; 3] = ["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"];
    let folder = shell::target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let (ending, flags) = if frame_pointers { ("", &WITH[..]) } else { ("-without-pointers", &WITHOUT[..]) };
    let binary = folder.join(format!("{name}{ending}"));
    let mut gcc = Command::new("gcc");
    gcc.args(flags).args(["-pthread", "-o"]).arg(&binary);
    shell::run(gcc.arg(shell::checkout().join(format!("xtask/bench/{name}.c"))))?;
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
    let output = running.0.stdout.take().context("the output is piped")?;
    wait_until_ready(&mut BufReader::new(output))?;
    Ok(running)
}

fn wait_until_ready(output: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the workload does not begin");
    Ok(())
}

/// A program that begins and ends its work when told, and then says what it has seen.
pub struct Told {
    running: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Told {
    /// Starts it, and waits until it is ready.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut running = Running(child.context("cannot start the workload")?);
        let input = running.0.stdin.take().context("the input is piped")?;
        let mut output = BufReader::new(running.0.stdout.take().context("the output is piped")?);
        wait_until_ready(&mut output)?;
        Ok(Self { running, input, output })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Tells it to go on.
    pub fn tell(&mut self) -> Result<()> {
        self.input.write_all(b"\n").and_then(|()| self.input.flush()).context("the workload has ended")
    }

    /// The numbers of the next line that it says.
    pub fn numbers<const COUNT: usize>(&mut self) -> Result<[f64; COUNT]> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
        let numbers = numbers.with_context(|| format!("the workload says {line:?}"))?;
        numbers.try_into().map_err(|_| anyhow!("the workload says {line:?}"))
    }
}
