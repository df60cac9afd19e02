//! The profilers that are compared: how each is started on a process, and how many samples it says it took.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// A profiler.
pub struct Tool {
    /// Its name in the table.
    pub name: &'static str,
    kind: Kind,
    binary: PathBuf,
}

#[derive(Clone, Copy)]
enum Kind {
    Probe,
    ProfileBee,
    Bpftrace,
}

/// What a profiler is asked to do.
pub struct Job {
    /// The process.
    pub pid: u32,
    /// For how long.
    pub seconds: u32,
    /// Samples per second and CPU.
    pub frequency: u32,
    /// Where the result goes.
    pub output: PathBuf,
}

/// The peer's version: its flags and its costs change between versions.
const PROFILE_BEE: &str = "0.3.13";

/// The profilers that are there or can be installed, `probe` first. Says which are not.
pub fn all(probe: PathBuf, install: bool) -> Vec<Tool> {
    let mut tools = vec![Tool { name: "probe", kind: Kind::Probe, binary: probe }];
    match profile_bee(install) {
        Ok(binary) => tools.push(Tool { name: "profile-bee", kind: Kind::ProfileBee, binary }),
        Err(error) => eprintln!("xtask: without profile-bee: {error:#}"),
    }
    if install {
        shell::install_missing(&[("bpftrace", "bpftrace")]);
    }
    match shell::find("bpftrace") {
        Some(binary) => tools.push(Tool { name: "bpftrace", kind: Kind::Bpftrace, binary }),
        None => eprintln!("xtask: without bpftrace: it is not installed"),
    }
    tools
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
                command.args(["record", "-p", &pid, "-F", &frequency, "-d", &job.seconds.to_string(), "-o"]);
                command.arg(&job.output);
            }
            Kind::ProfileBee => {
                // By frame pointers, as the others do; left to itself it may read unwind tables.
                command.args(["--dwarf=false", "-p", &pid, "-f", &frequency]);
                command.args(["-t", &(job.seconds * 1000).to_string(), "-o"]);
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
        }
        command
    }

    /// The program without arguments. The peer needs the folder of tracepoints; where it is not mounted, it gets it in a
    /// mount namespace of its own, and the host stays as it is. The process id remains that of what is started.
    pub fn own_command(&self) -> Command {
        const WITH_TRACEFS: &str = r#"mount -t tracefs tracefs /sys/kernel/tracing && exec "$@""#;
        if !matches!(self.kind, Kind::ProfileBee) || Path::new("/sys/kernel/tracing/events").exists() {
            return Command::new(&self.binary);
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]).arg(&self.binary);
        command
    }

    /// How many samples the result has.
    pub fn samples(&self, output: &Path) -> Result<u64> {
        let text = fs::read_to_string(output).with_context(|| format!("{} wrote no result", self.name))?;
        Ok(match self.kind {
            // Folded stacks end in a space and their count.
            Kind::Probe | Kind::ProfileBee => last_numbers(&text, ' '),
            // Each stack ends in a line `]: count`.
            Kind::Bpftrace => last_numbers(&text, ':'),
        })
    }
}

/// The sum of the numbers that follow the last separator of each line.
fn last_numbers(text: &str, separator: char) -> u64 {
    let number = |line: &str| line.rsplit_once(separator)?.1.trim().parse::<u64>().ok();
    text.lines().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_in_every_notation() {
        assert_eq!(last_numbers("frames;main;bottom 12\nframes;main 3\n", ' '), 15);
        assert_eq!(last_numbers("Attaching 2 probes...\n@[\n    bottom+20\n    main+5\n]: 99\n@[\n]: 1\n", ':'), 100);
    }
}
