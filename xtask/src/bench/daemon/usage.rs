//! What the processes of the daemon have taken so far: the one that was started and all that descend from it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::procfs;
use super::super::unwind::tables;
use crate::shell;

/// What a process has taken.
#[derive(Debug, Default)]
pub(in crate::bench) struct Usage {
    pub(in crate::bench) pid: u32,
    pub(in crate::bench) name: String,
    /// Its processor time, in seconds.
    pub(in crate::bench) cpu: f64,
    /// That of its programs in the kernel, by the kernel's statistics.
    pub(in crate::bench) programs: f64,
    /// Resident memory in bytes, its share of what it has in common with the others; without maps that it has mapped.
    pub(in crate::bench) resident: u64,
    /// Memory of its maps in the kernel, in bytes; unwind tables, which are maps in a map, among them.
    pub(in crate::bench) maps: u64,
}

/// What each process of the daemon has taken.
pub(in crate::bench) fn of(pid: u32) -> Result<Vec<Usage>> {
    let usage = |pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?.trim().to_owned();
        let outer = procfs::maps_of_maps(pid);
        let tables = if outer.is_empty() { 0 } else { tables::bytes(pid)? };
        Ok(Usage {
            pid,
            name,
            cpu: procfs::cpu_seconds(pid).context("a process of the daemon has ended")?,
            programs: procfs::all_programs(pid).run_ns as f64 / 1e9,
            resident: procfs::own_bytes(pid).unwrap_or(0),
            maps: procfs::bytes_of_maps(pid, |id| !outer.contains(&id)) + tables,
        })
    };
    processes(pid).into_iter().map(usage).collect()
}

/// A process, its children, theirs and so on.
pub(in crate::bench) fn processes(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    std::iter::once(pid).chain(children.into_iter().flat_map(processes)).collect()
}

/// Programs in the kernel, the dearest first: name, and seconds that they took.
pub(in crate::bench) fn programs(pid: u32) -> Vec<(u64, f64)> {
    let mut all: Vec<(u64, f64)> = processes(pid).into_iter().flat_map(procfs::program_times).collect();
    all.sort_by(|one, other| other.1.total_cmp(&one.1));
    all
}

/// The name of a program in the kernel, by bpftool.
pub(in crate::bench) fn name_of(program: u64) -> String {
    let mut bpftool = Command::new("bpftool");
    let output = shell::output(bpftool.args(["-j", "prog", "show", "id", &program.to_string()]));
    let shown: Option<Value> = output.and_then(|text| serde_json::from_str(&text).ok());
    let name = shown.as_ref().and_then(|shown| shown.get("name")?.as_str());
    name.map_or_else(|| program.to_string(), str::to_owned)
}

/// How busy the host is.
pub(in crate::bench) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
