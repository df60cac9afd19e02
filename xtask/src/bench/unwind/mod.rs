//! `cargo xtask bench unwind`: stacks of code without frame pointers. How many are whole, what one costs in the kernel, what
//! the tables behind it take, and how soon they are there; next to profile-bee, which unwinds in the kernel, too, and
//! perf, which copies the stack and unwinds afterwards.

mod attach;
mod builder;
mod load;
mod programs;
pub(super) mod tables;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::load::Load;
use self::programs::Program;
use super::tools::{Job, Kind, Tool};
use super::{recording, stacks, statistics, tools};
use crate::shell;

/// Flags of `cargo xtask bench unwind`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds of each recording
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Samples per second and CPU
    #[arg(long, default_value_t = 99)]
    frequency: u32,
    /// How often each profiler is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Install nothing; peers and programs that are not here are left out
    #[arg(long)]
    no_install: bool,
}

/// What `probe` wants of itself.
const MOST_TABLE_MEMORY: f64 = 0.5;
const LONGEST_ATTACH: Duration = Duration::from_secs(1);
const LOWEST_SPEED: f64 = 100e6;

/// Peers with fewer whole stacks, in percent, are not compared by their frames.
const MOSTLY_WHOLE: f64 = 90.0;

/// A profiler on a program.
struct Measured {
    stacks: stacks::Stacks,
    /// Per sample and per frame, by the kernel's statistics; `None` where no BPF program takes the stack.
    ns: Option<(f64, f64)>,
    load: Load,
}

/// Runs `cargo xtask bench unwind`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(shell::is_root(), "the kernel's statistics need root: run this command as root");
    ensure!(args.rounds > 0 && args.seconds > 0, "at least one round of one second");
    if !args.no_install {
        shell::install_missing(&[
            ("gcc", "gcc"),
            ("g++", "g++"),
            ("bpftool", "bpftool"),
            ("python3", "python3"),
            ("sqlite3", "sqlite3"),
            ("node", "nodejs"),
            ("musl-gcc", "musl-tools"),
            ("openssl", "openssl"),
            ("ffmpeg", "ffmpeg"),
        ]);
        if !Path::new("/usr/lib/python3/dist-packages/numpy").exists() {
            shell::apt_install(&["python3-numpy"])?;
        }
        // Without it the C library's first functions have no names, by which whole stacks are known.
        if !Path::new("/usr/lib/debug/.build-id").exists() {
            shell::apt_install(&["libc6-dbg"])?;
        }
    }
    shell::find("bpftool").context("the memory of unwind tables is read by bpftool: install it")?;
    let tools = tools::find(shell::build_probe()?, &[Kind::ProfileBee, Kind::Perf], !args.no_install);
    let statistics = statistics::Enabled::new()?;
    describe(args);
    let mut verdicts = Vec::new();
    for program in &programs::ALL {
        if let Err(error) = compare(args, &tools, program, &mut verdicts) {
            eprintln!("xtask: without {}: {error:#}", program.name);
        }
    }
    drop(statistics);
    if let Some(time) = attach::run(&tools, args.rounds, args.frequency)? {
        verdicts.push((format!("attached to 100 libraries in {:.2} s", time.as_secs_f64()), time < LONGEST_ATTACH));
    }
    if let Some(speed) = builder::run()? {
        verdicts.push((format!("tables built from {:.0} MB/s on", speed / 1e6), speed >= LOWEST_SPEED));
    }
    println!("\nTargets");
    for (what, is_met) in verdicts {
        println!("  {} {what}", if is_met { "met:   " } else { "MISSED:" });
    }
    Ok(())
}

fn describe(args: &Args) {
    println!(
        "{}; {} samples a second and CPU for {} s, medians of {} rounds; one of perf.\n\
         whole: samples whose stack reaches its thread's first frame. frames: of a sample, those that were found.\n\
         ns: time in the sampling program by the kernel's statistics, by samples and by frames in the result.\n\
         tables: memory of the maps in maps of maps. maps: of all its maps, the tables included.\n\
         ready: from the profiler's start until these tables are in the kernel. resident: its memory a second later.",
        statistics::host(),
        args.frequency,
        args.seconds,
        args.rounds
    );
}

/// Every profiler in turn on one process, several times over, so that a slow moment of the machine hits all of them.
fn compare(args: &Args, tools: &[Tool], program: &Program, verdicts: &mut Vec<(String, bool)>) -> Result<()> {
    let target = program.start()?;
    let mut all: Vec<(&Tool, Vec<Measured>)> = tools.iter().map(|tool| (tool, Vec::new())).collect();
    for round in 0..args.rounds {
        for (tool, measured) in &mut all {
            // Of perf there is no time to take the median of, and it needs long to unwind.
            if tool.kind == Kind::Perf && round > 0 {
                continue;
            }
            match measure(args, tool, target.0.id()) {
                Ok(one) => measured.push(one),
                Err(error) => eprintln!("xtask: {}: {error:#}", tool.name),
            }
        }
    }
    println!(
        "\n{:<14} {:>7} {:>7} {:>9} {:>8} {:>11} {:>10} {:>8} {:>13}",
        program.name, "whole", "frames", "ns/sample", "ns/frame", "tables", "maps", "ready", "resident"
    );
    let rows: Vec<(Kind, Row)> =
        all.into_iter().filter_map(|(tool, measured)| Some((tool.kind, Row::of(tool.name, measured)?))).collect();
    let row = |kind| rows.iter().find(|(one, _)| *one == kind).map(|(_, row)| row);
    if let (Some(own), Some(peer)) = (row(Kind::Probe), row(Kind::ProfileBee)) {
        // A stack that is cut short says nothing about the price of a frame.
        if let (Some((_, own)), Some((_, peer)), true) = (own.ns, peer.ns, peer.whole_percent >= MOSTLY_WHOLE) {
            let text = format!("{}: {own:.0} ns a frame, profile-bee {peer:.0} ns", program.name);
            verdicts.push((text, own < peer));
        }
        let part = own.table_bytes as f64 / peer.table_bytes as f64;
        let text = format!("{}: tables of {:.1} % of profile-bee's memory", program.name, 100.0 * part);
        verdicts.push((text, part <= MOST_TABLE_MEMORY));
    }
    Ok(())
}

fn measure(args: &Args, tool: &Tool, pid: u32) -> Result<Measured> {
    let load = load::measure(tool, pid, args.frequency)?;
    let output = recording::output(tool.ending())?;
    let Args { seconds, frequency, .. } = *args;
    let job = Job { pid, seconds, frequency, stacks: tools::Stacks::UnwindTable, output: output.clone() };
    let (programs, said) = recording::programs(tool, &job)?;
    let stacks = stacks::read(tool.kind, &output)?;
    ensure!(stacks.samples > 0, "no samples: {said}");
    let run_ns = programs.run_ns as f64;
    let ns = (programs.runs > 0).then(|| (run_ns / stacks.samples as f64, run_ns / stacks.frames as f64));
    Ok(Measured { stacks, ns, load })
}

/// A profiler's line in the table.
struct Row {
    ns: Option<(f64, f64)>,
    table_bytes: u64,
    whole_percent: f64,
}

impl Row {
    /// Prints the medians. The stacks of all rounds count, so that a rare one that is not whole is seen.
    fn of(name: &str, measured: Vec<Measured>) -> Option<Self> {
        let middle = measured.len() / 2;
        let mut stacks = stacks::Stacks::default();
        measured.iter().for_each(|one| stacks += one.stacks);
        let mut ns: Vec<(f64, f64)> = measured.iter().filter_map(|one| one.ns).collect();
        ns.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut loads: Vec<Load> = measured.into_iter().map(|one| one.load).collect();
        loads.sort_by_key(|load| load.ready);
        let (ns, load) = (ns.get(middle).copied(), *loads.get(middle)?);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let table = load.ready.map(|_| mib(load.table_bytes));
        println!(
            "  {name:<12} {:>6.2}% {:>7.1} {:>9} {:>8} {:>11} {:>10} {:>8} {:>13}",
            stacks.whole_percent(),
            stacks.mean_frames(),
            or_dash(ns.map(|(sample, _)| format!("{sample:.0}"))),
            or_dash(ns.map(|(_, frame)| format!("{frame:.0}"))),
            or_dash(table),
            or_dash(load.ready.map(|_| mib(load.map_bytes))),
            or_dash(load.ready.map(|ready| format!("{:.2} s", ready.as_secs_f64()))),
            mib(load.resident),
        );
        Some(Self { ns, table_bytes: load.table_bytes, whole_percent: stacks.whole_percent() })
    }
}
