//! `cargo xtask bench sampler`: nanoseconds per sample, by the statistics that the kernel itself keeps about the programs
//! of each profiler, at two depths of stack; then what `probe` costs beside that.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::tools::{Job, Tool};
use super::workload::{self, Running};
use super::{footprint, procfs, statistics, tools};
use crate::shell;

/// Flags of `cargo xtask bench sampler`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds of each recording
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Samples per second and CPU
    #[arg(long, default_value_t = 99)]
    frequency: u32,
    /// How often each profiler is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Install nothing; peers that are not here are left out
    #[arg(long)]
    no_install: bool,
}

const DEPTHS: [u32; 2] = [20, 127];

/// One recording by one profiler.
#[derive(Clone, Copy, Debug)]
struct Measured {
    ns_per_sample: f64,
    ns_per_run: f64,
    samples: u64,
    runs: u64,
}

/// Runs `cargo xtask bench sampler`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(shell::is_root(), "the kernel's statistics need root: run this command as root");
    ensure!(args.rounds > 0 && args.seconds > 0, "at least one round of one second");
    if !args.no_install {
        shell::install_missing(&[("gcc", "gcc")]);
    }
    let tools = tools::all(shell::build_probe()?, !args.no_install);
    let binary = workload::build()?;
    let _statistics = statistics::Enabled::new()?;
    describe(args);
    for depth in DEPTHS {
        println!("\nThreads {depth} frames deep");
        println!("  {:<12} {:>9} {:>10} {:>8} {:>8} {:>8}", "", "ns/sample", "ns/run", "samples", "runs", "ratio");
        let target = workload::start(&binary, depth)?;
        let results = rounds(args, &tools, target.0.id())?;
        let own = results.iter().find(|(tool, _)| tool.name == "probe").map(|(_, measured)| measured.ns_per_sample);
        for (tool, Measured { ns_per_sample, ns_per_run, samples, runs }) in &results {
            let ratio = own.map_or(f64::NAN, |own| ns_per_sample / own);
            let name = tool.name;
            println!("  {name:<12} {ns_per_sample:>9.0} {ns_per_run:>10.0} {samples:>8} {runs:>8} {ratio:>8.2}");
        }
    }
    footprint::run(&tools[0], &binary, args.seconds)
}

fn describe(args: &Args) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "Kernel {}, {cpus} CPUs; {} samples a second and CPU for {} s, median of {} rounds.\n\
         ns/sample: time in the sampling program by the kernel's statistics, divided by the samples in the result.\n\
         ns/run: the same time divided by the program's runs, those on other processes included. ratio: to probe.",
        release.trim(),
        args.frequency,
        args.seconds,
        args.rounds
    );
}

/// Every tool in turn, several times over, so that a slow moment of the machine hits all of them; the median of each.
fn rounds<'a>(args: &Args, tools: &'a [Tool], pid: u32) -> Result<Vec<(&'a Tool, Measured)>> {
    let mut all: Vec<(&Tool, Vec<Measured>)> = tools.iter().map(|tool| (tool, Vec::new())).collect();
    for _ in 0..args.rounds {
        for (tool, measured) in &mut all {
            match measure(args, tool, pid) {
                Ok(one) => measured.push(one),
                Err(error) => eprintln!("xtask: {}: {error:#}", tool.name),
            }
        }
    }
    let median = |mut measured: Vec<Measured>| {
        measured.sort_by(|a, b| a.ns_per_sample.total_cmp(&b.ns_per_sample));
        measured.get(measured.len() / 2).copied()
    };
    Ok(all.into_iter().filter_map(|(tool, measured)| Some((tool, median(measured)?))).collect())
}

fn measure(args: &Args, tool: &Tool, pid: u32) -> Result<Measured> {
    let output = output_file()?;
    let job = Job { pid, seconds: args.seconds, frequency: args.frequency, output: output.clone() };
    let log = output.with_extension("log");
    let errors = fs::File::create(&log)?;
    let mut command = tool.command(&job);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
    let mut running = Running(child.with_context(|| format!("cannot start {}", tool.name))?);
    let mut programs = procfs::Programs::default();
    let limit = Instant::now() + Duration::from_secs(u64::from(args.seconds) + 60);
    let status = loop {
        // The statistics go with the program, so the last ones that were seen count.
        let now = procfs::perf_programs(running.0.id());
        if now.runs >= programs.runs {
            programs = now;
        }
        if let Some(status) = running.0.try_wait()? {
            break status;
        }
        ensure!(Instant::now() < limit, "does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = || fs::read_to_string(&log).unwrap_or_default();
    ensure!(status.success(), "{status}: {}", said());
    ensure!(programs.runs > 0, "no sampling program of it was seen: {}", said());
    let samples = tool.samples(&output)?;
    ensure!(samples > 0, "no samples: {}", said());
    let run_ns = programs.run_ns as f64;
    let (ns_per_sample, ns_per_run) = (run_ns / samples as f64, run_ns / programs.runs as f64);
    Ok(Measured { ns_per_sample, ns_per_run, samples, runs: programs.runs })
}

/// A place for a result that is not there yet.
fn output_file() -> Result<PathBuf> {
    let file = shell::target_dir().join("bench/out.folded");
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot remove an old result"),
        _ => Ok(file),
    }
}
