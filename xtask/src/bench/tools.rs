//! The profilers that are compared: how each is started on a process. What they wrote is read in `stacks`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::shell;

/// A profiler.
pub struct Tool {
    /// Its name in the table.
    pub name: &'static str,
    /// Which it is.
    pub kind: Kind,
    binary: PathBuf,
}

/// The profilers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Probe,
    ProfileBee,
    Bpftrace,
    Perf,
}

/// How stacks are taken, where a profiler leaves the choice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stacks {
    FramePointer,
    UnwindTable,
}

/// What a profiler is asked to do.
pub struct Job {
    /// The process.
    pub pid: u32,
    /// For how long.
    pub seconds: u32,
    /// Samples per second and CPU.
    pub frequency: u32,
    /// How stacks are taken.
    pub stacks: Stacks,
    /// Where the result goes; the ending decides the format.
    pub output: PathBuf,
}

/// The peer's version: its flags and its costs change between versions.
const PROFILE_BEE: &str = "0.3.13";

/// Bytes of the stack that perf copies at each sample for unwinding it later: the most that it allows, so that no stack is
/// cut. Its default is 8 KiB.
const PERF_STACK_BYTES: u32 = 65_528;

/// `probe`, and those of the others that are there or can be installed. Says which are not.
pub fn find(probe: PathBuf, others: &[Kind], install: bool) -> Vec<Tool> {
    let mut tools = vec![Tool { name: "probe", kind: Kind::Probe, binary: probe }];
    for &kind in others {
        let (name, binary) = match kind {
            Kind::Probe => continue,
            Kind::ProfileBee => ("profile-bee", profile_bee(install)),
            Kind::Bpftrace => ("bpftrace", debian("bpftrace", "bpftrace", install)),
            Kind::Perf => ("perf", debian("perf", "linux-perf", install)),
        };
        match binary {
            Ok(binary) => tools.push(Tool { name, kind, binary }),
            Err(error) => eprintln!("xtask: without {name}: {error:#}"),
        }
    }
    tools
}

/// A program of the distribution, installed if that is wanted.
pub fn debian(program: &str, package: &'static str, install: bool) -> Result<PathBuf> {
    if install {
        shell::install_missing(&[(program, package)]);
    }
    shell::find(program).ok_or_else(|| anyhow::anyhow!("it is not installed"))
}

fn profile_bee(install: bool) -> Result<PathBuf> {
    let root = shell::target_dir().join("bench-tools");
    let binary = root.join("bin/probee");
    if !binary.exists() {
        ensure!(install, "it is not in {}", root.display());
        let mut cargo = shell::cargo();
        cargo.args(["install", "profile-bee", "--locked", "--version", PROFILE_BEE, "--root"]).arg(&root);
        shell::run(cargo.arg("--target-dir").arg(root.join("build")))?;
    }
    Ok(binary)
}

impl Tool {
    /// The command that does a job.
    pub fn command(&self, job: &Job) -> Command {
        let mut command = self.own_command();
        let (pid, frequency) = (job.pid.to_string(), job.frequency.to_string());
        match self.kind {
            Kind::Probe => {
                // It says when its tables are complete; by unwind table is how it takes stacks, always.
                if job.stacks == Stacks::UnwindTable {
                    command.arg("-v");
                }
                command.args(["record", "-p", &pid, "-F", &frequency, "-d", &job.seconds.to_string(), "-o"]);
                command.arg(&job.output);
            }
            Kind::ProfileBee => {
                // Left to itself it decides by what it is started for.
                command.arg(if job.stacks == Stacks::UnwindTable { "--dwarf=true" } else { "--dwarf=false" });
                command.args(["-p", &pid, "-f", &frequency, "-t", &(job.seconds * 1000).to_string(), "-o"]);
                command.arg(&job.output);
            }
            Kind::Bpftrace => {
                let (seconds, depth) = (job.seconds, 127);
                let program = format!(
                    "profile:hz:{frequency} /pid == {pid}/ {{ @[ustack(perf, {depth})] = count(); }} \
                     interval:s:{seconds} {{ exit(); }}"
                );
                command.args(["-o"]).arg(&job.output).args(["-e", &program]);
            }
            Kind::Perf => {
                let graph = match job.stacks {
                    Stacks::FramePointer => "fp".into(),
                    Stacks::UnwindTable => format!("dwarf,{PERF_STACK_BYTES}"),
                };
                command.args(["record", "-q", "-e", "cpu-clock", "-F", &frequency, "--call-graph", &graph, "-p", &pid]);
                command.arg("-o").arg(&job.output).args(["--", "sleep", &job.seconds.to_string()]);
            }
        }
        command
    }

    /// The ending of a result that tells the most of stacks.
    pub fn ending(&self) -> &'static str {
        match self.kind {
            Kind::Probe => "json",
            Kind::ProfileBee | Kind::Bpftrace => "folded",
            Kind::Perf => "data",
        }
    }

    /// The program without arguments.
    pub fn own_command(&self) -> Command {
        if self.kind == Kind::ProfileBee { with_tracepoints(&self.binary) } else { Command::new(&self.binary) }
    }
}

/// A program that needs the folder of tracepoints. Where it is not mounted, it gets it in a mount namespace of its own, and
/// the host stays as it is. The process id remains that of what is started.
pub fn with_tracepoints(binary: &Path) -> Command {
    const WITH_TRACEFS: &str = r#"mount -t tracefs tracefs /sys/kernel/tracing && exec "$@""#;
    if Path::new("/sys/kernel/tracing/events").exists() {
        return Command::new(binary);
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]).arg(binary);
    command
}
