//! `cargo xtask bench off-cpu`: two threads that hand a byte to and fro on one CPU, so that they wait as often as one likes.
//! What each of these waits costs and whether all of them are counted, next to offcputime and bpftrace.

mod recorders;
mod run;
mod waits;

use anyhow::{Result, ensure};

use self::recorders::{Kind, Recorder};
use self::run::{Load, Measured, Truth};
use super::{statistics, workload};
use crate::shell;

/// Flags of `cargo xtask bench off-cpu`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds of each recording
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// How often each recorder is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Install nothing; peers that are not here are left out
    #[arg(long)]
    no_install: bool,
}

/// Switches a second at which the cost is measured.
const RATE: u32 = 100_000;
/// More places to wait at than `probe` keeps with each thread.
const PLACES: u32 = 32;

/// What `probe` wants of itself, in percent of one core at that rate.
const MOST_COST: f64 = 3.0;
/// How far the sum of all waits may be from the truth, in percent.
const MOST_ERROR: f64 = 2.0;

/// Runs `cargo xtask bench off-cpu`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(shell::is_root(), "the kernel's statistics need root: run this command as root");
    ensure!(args.rounds > 0 && args.seconds > 0, "at least one round of one second");
    if !args.no_install {
        shell::install_missing(&[("gcc", "gcc")]);
    }
    let recorders = recorders::find(shell::build_probe()?, !args.no_install);
    let (with, without) = (workload::compile("switches", true)?, workload::compile("switches", false)?);
    describe(args);
    let mut verdicts = Vec::new();
    let seconds = args.seconds;
    let loads = [
        ("from one place", Load { binary: &without, seconds, rate: RATE, places: 1 }),
        ("from 32 places", Load { binary: &without, seconds, rate: RATE, places: PLACES }),
        ("from one place, with frame pointers", Load { binary: &with, seconds, rate: RATE, places: 1 }),
    ];
    for (name, load) in &loads {
        let statistics = statistics::Enabled::new()?;
        println!("\n{RATE} switches a second, {name}");
        let rows = rounds(args, &recorders, load);
        drop(statistics);
        print(&rows, load);
        if let Some((_, own)) = rows.iter().find(|(recorder, _)| recorder.kind == Kind::Probe) {
            judge(name, own, &mut verdicts);
        }
    }
    let load = Load { binary: &without, seconds, rate: 0, places: 1 };
    slowdown(args, &recorders, &load, &mut verdicts)?;
    println!("\nTargets");
    for (what, is_met) in verdicts {
        println!("  {} {what}", if is_met { "met:   " } else { "MISSED:" });
    }
    Ok(())
}

fn describe(args: &Args) {
    println!(
        "{}; {} s each, medians of {} rounds.\n\
         ns/switch: time in the program at sched_switch by the kernel's statistics, by the workload's switches.\n\
         kernel, process: percent of one core, in that program and in the recorder's own process meanwhile.\n\
         waits, time: what was recorded, in percent of what the workload knows of itself by the kernel's accounts.\n\
         callers: frames of the workload's 16 calls in a stack. whole: time with stacks to the thread's first function.",
        statistics::host(),
        args.seconds,
        args.rounds
    );
}

/// Every recorder in turn, several times over, so that a slow moment of the machine hits all of them.
fn rounds<'a>(args: &Args, recorders: &'a [Recorder], load: &Load<'_>) -> Vec<(&'a Recorder, Measured)> {
    let mut all: Vec<(&Recorder, Vec<Measured>)> = recorders.iter().map(|one| (one, Vec::new())).collect();
    for _ in 0..args.rounds {
        for (recorder, measured) in &mut all {
            match run::recorded(recorder, load) {
                Ok(one) => measured.push(one),
                Err(error) => eprintln!("xtask: {}: {error:#}", recorder.name),
            }
        }
    }
    let median = |mut measured: Vec<Measured>| {
        let cost = |one: &Measured| (one.program.run_ns as f64 / one.truth.switches, one.truth.ns_per_switch());
        measured.sort_by(|a, b| cost(a).partial_cmp(&cost(b)).unwrap_or(std::cmp::Ordering::Equal));
        measured.get(measured.len() / 2).copied()
    };
    all.into_iter().filter_map(|(recorder, measured)| Some((recorder, median(measured)?))).collect()
}

fn print(rows: &[(&Recorder, Measured)], load: &Load<'_>) {
    println!(
        "  {:<12} {:>9} {:>6} {:>8} {:>8} {:>10} {:>9} {:>8} {:>9} {:>8}",
        "", "ns/switch", "ratio", "kernel", "process", "switches", "waits", "time", "callers", "whole"
    );
    let own = rows.iter().find(|(recorder, _)| recorder.kind == Kind::Probe).map(|(_, own)| own.ns_per_switch());
    for (recorder, one) in rows {
        // Some versions of bpftrace name nothing: that says nothing about its stacks.
        let is_named = recorder.kind != Kind::Bpftrace || one.waits.has_names();
        let or_dash = |text: String| if is_named { text } else { "-".into() };
        println!(
            "  {:<12} {:>9.0} {:>6.2} {:>7.2}% {:>7.2}% {:>10.0} {:>9} {:>7.2}% {:>9} {:>8}",
            recorder.name,
            one.ns_per_switch(),
            own.map_or(f64::NAN, |own| one.ns_per_switch() / own),
            one.kernel_percent(),
            one.process_percent,
            one.truth.switches,
            one.waits_percent().map_or_else(|| "-".into(), |percent| format!("{percent:.3}%")),
            one.time_percent(),
            or_dash(format!("{:.1}", one.waits.callers())),
            or_dash(format!("{:.2}%", one.waits.whole_percent())),
        );
    }
    if rows.is_empty() {
        println!("  nobody could record {}", load.binary.display());
    }
}

fn judge(name: &str, own: &Measured, verdicts: &mut Vec<(String, bool)>) {
    let cost = own.kernel_percent();
    verdicts.push((format!("{name}: {cost:.2} % of one core in the kernel"), cost <= MOST_COST));
    let lost = own.lost();
    verdicts.push((format!("{name}: {lost} waits lost"), lost == 0));
    let time = own.time_percent();
    verdicts.push((format!("{name}: {time:.2} % of the waiting time"), (time - 100.0).abs() <= MOST_ERROR));
}

/// As many switches as possible, alone and while each recorder is at work; nobody keeps statistics, which cost, too.
fn slowdown(args: &Args, recorders: &[Recorder], load: &Load<'_>, verdicts: &mut Vec<(String, bool)>) -> Result<()> {
    let mut alone: Vec<Truth> = Vec::new();
    let mut all: Vec<(&Recorder, Vec<Measured>)> = recorders.iter().map(|one| (one, Vec::new())).collect();
    for _ in 0..args.rounds {
        alone.push(run::alone(load)?);
        for (recorder, measured) in &mut all {
            match run::recorded(recorder, load) {
                Ok(one) => measured.push(one),
                Err(error) => eprintln!("xtask: {}: {error:#}", recorder.name),
            }
        }
    }
    alone.sort_by(|a, b| a.ns_per_switch().total_cmp(&b.ns_per_switch()));
    let base = alone[alone.len() / 2];
    println!("\nAs many switches as possible, from one place");
    println!("  {:<12} {:>12} {:>8} {:>14} {:>8} {:>8}", "", "switches/s", "speed", "ns/switch more", "waits", "time");
    println!("  {:<12} {:>12.0}", "alone", base.rate());
    for (recorder, mut measured) in all {
        measured.sort_by(|a, b| a.truth.ns_per_switch().total_cmp(&b.truth.ns_per_switch()));
        let Some(one) = measured.get(measured.len() / 2) else { continue };
        println!(
            "  {:<12} {:>12.0} {:>7.1}% {:>14.0} {:>8} {:>7.2}%",
            recorder.name,
            one.truth.rate(),
            100.0 * one.truth.rate() / base.rate(),
            one.truth.ns_per_switch() - base.ns_per_switch(),
            one.waits_percent().map_or_else(|| "-".into(), |percent| format!("{percent:.3}%")),
            one.time_percent(),
        );
        if recorder.kind == Kind::Probe {
            let lost = one.lost();
            verdicts.push((format!("{:.0} switches a second: {lost} waits lost", one.truth.rate()), lost == 0));
        }
    }
    Ok(())
}
