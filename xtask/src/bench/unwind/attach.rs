//! Attaching to a process with a hundred libraries: from the start of the profiler until the unwind tables of all of them
//! are in the kernel.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::tools::{Kind, Tool};
use super::super::workload::{self, Running};
use super::super::{procfs, recording};
use super::load;
use crate::shell;

const LIBRARIES: usize = 100;
/// A library has one to this many parts of a hundred functions each: as large as Debian's libraries in the middle.
const PARTS: usize = 8;

/// Measures each profiler that puts tables into the kernel; the median of several attempts.
pub fn run(tools: &[Tool], rounds: usize, frequency: u32) -> Result<Option<Duration>> {
    let target = start()?;
    let pid = target.0.id();
    let executables = procfs::mapped_executables(pid);
    ensure!(executables >= LIBRARIES, "only {executables} files are mapped as code");
    println!("\nAttaching to a process that has mapped {executables} files as code, median of {rounds}");
    let mut own = None;
    for tool in tools.iter().filter(|tool| matches!(tool.kind, Kind::Probe | Kind::ProfileBee)) {
        let loads: Result<Vec<_>> = (0..rounds).map(|_| load::measure(tool, pid, frequency)).collect();
        let mut loads = match loads {
            Ok(loads) => loads,
            Err(error) => {
                eprintln!("xtask: {}: {error:#}", tool.name);
                continue;
            }
        };
        loads.sort_by_key(|load| load.ready);
        let median = loads[rounds / 2];
        let (Some(ready), mib) = (median.ready, median.table_bytes as f64 / 1_048_576.0) else { continue };
        println!("  {:<12} {:.2} s, tables of {mib:.1} MiB", tool.name, ready.as_secs_f64());
        if tool.kind == Kind::Probe {
            own = Some(ready);
        }
    }
    Ok(own)
}

fn start() -> Result<Running> {
    let folder = recording::folder()?.join("libraries");
    std::fs::create_dir_all(&folder)?;
    let source = shell::checkout().join("xtask/bench");
    let loader = folder.join("loader");
    let mut gcc = Command::new("gcc");
    shell::run(gcc.args(["-O2", "-rdynamic", "-o"]).arg(&loader).arg(source.join("loader.c")).arg("-ldl"))?;
    let mut parts = Vec::new();
    for part in 0..PARTS {
        let object = folder.join(format!("part{part}.o"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-fomit-frame-pointer", "-fPIC", "-c", &format!("-DPART={part}"), "-o"]).arg(&object);
        shell::run(gcc.arg(source.join("library.c")))?;
        parts.push(object);
    }
    let libraries: Vec<PathBuf> = (0..LIBRARIES).map(|number| folder.join(format!("lib{number}.so"))).collect();
    for (number, library) in libraries.iter().enumerate() {
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", &format!("-Wl,--defsym,library_number={number}"), "-o"]).arg(library);
        shell::run(gcc.args(&parts[..=number % PARTS]))?;
    }
    workload::ready(Command::new(&loader).args(&libraries)).context("the libraries cannot be loaded")
}
