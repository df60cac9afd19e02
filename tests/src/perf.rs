//! `perf` as the reference: it copies up to 64 KiB of the stack with each sample and unwinds it afterwards, at leisure.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::profile::{Frame, Profile, Sample};
use crate::running::Running;
use crate::trial::{Skip, require};
use crate::workload;

/// A recording in progress.
pub struct Recorder {
    recorder: Running,
    folder: tempfile::TempDir,
}

impl Recorder {
    /// Begins to record a process; skips the test where `perf` cannot.
    pub fn start(pid: u32, seconds: u32, hz: u32) -> Result<Self> {
        let perf = require("perf")?;
        let folder = workload::scratch()?;
        let mut command = Command::new(perf);
        command.args(["record", "-q", "-e", "cpu-clock", "--call-graph", "dwarf,65528", "-F", &hz.to_string()]);
        command.args(["-p", &pid.to_string(), "-o"]).arg(folder.path().join("perf.data"));
        command.args(["--", "sleep", &seconds.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { recorder: Running::start(&mut command)?, folder })
    }

    /// Waits for its end and unwinds what it has.
    pub fn finish(mut self) -> Result<Profile> {
        let status = self.recorder.wait(Duration::from_secs(60))?;
        let data = self.folder.path().join("perf.data");
        if !status.success() || !data.exists() {
            bail!(Skip(format!("perf records nothing here: {status}")));
        }
        let samples = samples(&script(&data)?)?;
        ensure!(!samples.is_empty(), "perf saw nothing");
        Ok(Profile { samples })
    }
}

fn script(data: &Path) -> Result<String> {
    let mut command = Command::new(require("perf")?);
    // A stack has up to a thousand frames; inlined functions would be asked of a slow helper.
    command.args(["script", "--no-inline", "--max-stack", "2048", "-F", "comm,pid,time,ip,sym,dso", "-i"]).arg(data);
    let output = command.output().context("cannot run perf script")?;
    ensure!(output.status.success(), "perf script: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A block of lines for each sample: a header `comm pid seconds.micros:`, then its frames, leaf first, each as
/// `address function (file)`.
fn samples(text: &str) -> Result<Vec<Sample>> {
    let blocks = text.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.is_empty());
    blocks.map(sample).collect()
}

fn sample(block: &str) -> Result<Sample> {
    let mut lines = block.lines();
    let header = lines.next().context("an empty sample")?;
    let Some((thread, pid, time)) = identity(header) else { bail!("not understood: {header:?}") };
    let frames: Vec<Frame> = lines.filter_map(frame).collect();
    let from_end = |number: usize| frames.iter().rev().nth(number).map_or("", |frame| frame.function.as_str());
    // In stripped programs the very first function has no name.
    let is_whole = ROOTS.contains(&from_end(0)) || from_end(1).starts_with("__libc_start_main");
    Ok(Sample { time_ns: (time * 1e9) as u64, pid, thread, frames, is_whole })
}

/// Thread, number and time. The columns are padded: after a start of the machine the seconds have few digits.
fn identity(header: &str) -> Option<(String, u64, f64)> {
    let (rest, time) = header.trim_end().trim_end_matches(':').rsplit_once(' ')?;
    let (thread, pid) = rest.trim_end().rsplit_once(' ')?;
    Some((thread.trim().to_owned(), pid.parse().ok()?, time.parse().ok()?))
}

/// Functions at which threads begin.
const ROOTS: [&str; 5] = ["_start", "__clone", "clone", "__clone3", "clone3"];

/// A frame in user space.
fn frame(line: &str) -> Option<Frame> {
    let (address, rest) = line.trim().split_once(' ')?;
    let is_kernel = u64::from_str_radix(address, 16).ok()? >> 63 != 0;
    let (function, module) = rest.rsplit_once(" (")?;
    let function = if function == "[unknown]" { "" } else { function };
    let module = module.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    (!is_kernel).then(|| Frame { function: function.to_owned(), module: module.to_owned() })
}
