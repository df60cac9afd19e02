//! One run of the workload, alone or recorded: what it knows of itself, what the kernel knows of the recorder, and what the
//! recorder says.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::procfs::{self, Programs};
use super::super::recording::{self, Recording};
use super::super::workload::Told;
use super::recorders::{Kind, Recorder};
use super::waits::{self, Waits};

/// What the workload is told.
pub struct Load<'a> {
    pub binary: &'a Path,
    pub seconds: u32,
    /// Switches a second; 0 for as many as possible.
    pub rate: u32,
    /// Different depths to wait at.
    pub places: u32,
}

/// What the workload knows of itself, by the kernel's accounts.
#[derive(Clone, Copy)]
pub struct Truth {
    /// How often its threads have left the CPU.
    pub switches: f64,
    /// How long they were off it.
    waited_ns: f64,
    seconds: f64,
}

/// A recorded run.
#[derive(Clone, Copy)]
pub struct Measured {
    pub truth: Truth,
    pub waits: Waits,
    /// The recorder's program at each switch.
    pub program: Programs,
    /// Processor time of its process meanwhile, in percent of one core.
    pub process_percent: f64,
}

/// Recorders may take this long to begin, and to end.
const LIMIT: Duration = Duration::from_secs(60);
/// Between loading a program and its being attached everywhere.
const ATTACHED: Duration = Duration::from_millis(800);

/// The workload by itself.
pub fn alone(load: &Load<'_>) -> Result<Truth> {
    let mut workload = start(load)?;
    workload.tell()?;
    truth(&mut workload)
}

/// The workload while it is recorded.
pub fn recorded(recorder: &Recorder, load: &Load<'_>) -> Result<Measured> {
    let mut workload = start(load)?;
    let output = recording::output("json")?;
    let mut recording = Recording::start(recorder.name, recorder.command(workload.pid(), &output))?;
    let pid = recording.pid();
    match recorder.kind {
        Kind::Probe => {
            recording.wait_for("the unwind tables are complete", LIMIT)?;
        }
        Kind::Offcputime | Kind::Bpftrace => {
            recording.wait_until(LIMIT, |pid| procfs::busiest_program(pid).is_some())?;
        }
    }
    std::thread::sleep(ATTACHED);
    let before = look(pid)?;
    workload.tell()?;
    let truth = truth(&mut workload)?;
    let after = look(pid)?;
    recording.interrupt()?;
    let said = recording.finish(LIMIT, |_| {})?;
    let waits = waits::read(recorder.kind, &output, &said)?;
    ensure!(waits.total_ns > 0.0, "no waits: {said}");
    let program = Programs { run_ns: after.0.run_ns - before.0.run_ns, runs: after.0.runs - before.0.runs };
    let process_percent = 100.0 * (after.1 - before.1) / truth.seconds;
    Ok(Measured { truth, waits, program, process_percent })
}

fn start(load: &Load<'_>) -> Result<Told> {
    let numbers = [load.seconds, load.rate, load.places].map(|number| number.to_string());
    Told::start(Command::new(load.binary).args(numbers))
}

fn truth(workload: &mut Told) -> Result<Truth> {
    let [switches, waited_ns, seconds] = workload.numbers()?;
    Ok(Truth { switches, waited_ns, seconds })
}

fn look(pid: u32) -> Result<(Programs, f64)> {
    procfs::busiest_program(pid).zip(procfs::cpu_seconds(pid)).context("the recorder has ended")
}

impl Truth {
    /// Switches a second.
    pub fn rate(&self) -> f64 {
        self.switches / self.seconds
    }

    /// From one to the next.
    pub fn ns_per_switch(&self) -> f64 {
        self.seconds * 1e9 / self.switches
    }
}

impl Measured {
    /// Time in the program by the workload's switches; those of others, which it only passes by, are part of the price.
    pub fn ns_per_switch(&self) -> f64 {
        self.program.run_ns as f64 / self.truth.switches
    }

    /// The program's time, in percent of one core.
    pub fn kernel_percent(&self) -> f64 {
        self.program.run_ns as f64 / (self.truth.seconds * 1e9) * 100.0
    }

    /// Waits that were counted, in percent of the truth.
    pub fn waits_percent(&self) -> Option<f64> {
        Some(100.0 * self.waits.count? as f64 / self.truth.switches)
    }

    /// Waits that were not counted. Some more than the truth are none: a thread may wait before it opens its accounts.
    pub fn lost(&self) -> u64 {
        (self.truth.switches as u64).saturating_sub(self.waits.count.unwrap_or(0))
    }

    /// The sum of all waits, in percent of the truth.
    pub fn time_percent(&self) -> f64 {
        100.0 * self.waits.total_ns / self.truth.waited_ns
    }
}
