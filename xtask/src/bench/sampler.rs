//! `cargo xtask bench sampler`: nanoseconds per sample, by the statistics that the kernel itself keeps about the programs
//! of each profiler, at two depths of stack; then what `probe` costs beside that.

use anyhow::{Result, ensure};

use super::tools::{Job, Kind, Stacks, Tool};
use super::{footprint, recording, stacks, statistics, tools, workload};
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
    let tools = tools::find(shell::build_probe()?, &[Kind::ProfileBee, Kind::Bpftrace], !args.no_install);
    let binary = workload::build(true)?;
    let _statistics = statistics::Enabled::new()?;
    println!(
        "{}; {} samples a second and CPU for {} s, median of {} rounds.\n\
         ns/sample: time in the sampling program by the kernel's statistics, divided by the samples in the result.\n\
         ns/run: the same time divided by the program's runs, those on other processes included. ratio: to probe.",
        statistics::host(),
        args.frequency,
        args.seconds,
        args.rounds
    );
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
    let Args { seconds, frequency, .. } = *args;
    let output = recording::output("folded")?;
    let job = Job { pid, seconds, frequency, stacks: Stacks::FramePointer, output: output.clone() };
    let (programs, said) = recording::programs(tool, &job)?;
    let samples = stacks::read(tool.kind, &output)?.samples;
    ensure!(samples > 0, "no samples: {said}");
    let run_ns = programs.run_ns as f64;
    let (ns_per_sample, ns_per_run) = (run_ns / samples as f64, run_ns / programs.runs as f64);
    Ok(Measured { ns_per_sample, ns_per_run, samples, runs: programs.runs })
}
