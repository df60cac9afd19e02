//! How long a profiler takes until it can unwind, and what it holds then.

use std::time::Duration;

use anyhow::Result;

use super::super::procfs;
use super::super::recording::{self, Recording};
use super::super::tools::{Job, Kind, Stacks, Tool};
use super::tables;

/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A profiler that is at work.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// From its start until its unwind tables are in the kernel; `None` for one that unwinds afterwards.
    pub ready: Option<Duration>,
    /// Memory of these tables.
    pub table_bytes: u64,
    /// Memory of all its maps in the kernel, the tables included.
    pub map_bytes: u64,
    /// Its resident memory, a second later.
    pub resident: u64,
}

/// Starts a profiler on a process as for a recording, looks at it and ends it.
pub fn measure(tool: &Tool, pid: u32, frequency: u32) -> Result<Load> {
    let output = recording::output(tool.ending())?;
    let job = Job { pid, seconds: LIMIT.as_secs() as u32, frequency, stacks: Stacks::UnwindTable, output };
    let mut recording = Recording::start(tool.name, tool.command(&job))?;
    let ready = match ready_line(tool.kind) {
        Some(text) => Some(recording.wait_for(text, LIMIT)?.1),
        None => None,
    };
    std::thread::sleep(Duration::from_secs(1));
    let own = recording.pid();
    let table_bytes = tables::bytes(own)?;
    let inner = table_bytes.saturating_sub(procfs::bytes_of_maps(own, |id| procfs::maps_of_maps(own).contains(&id)));
    let map_bytes = procfs::map_bytes(own) + inner;
    Ok(Load { ready, table_bytes, map_bytes, resident: procfs::resident_bytes(own).unwrap_or(0) })
}

/// What it says when all tables of the process are in the kernel, and not before.
fn ready_line(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Probe => Some("the unwind tables are complete"),
        // It makes the tables, then begins to sample the process, then says this.
        Kind::ProfileBee => Some("Profiling PID"),
        Kind::Bpftrace | Kind::Perf => None,
    }
}
