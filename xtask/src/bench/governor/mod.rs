//! `cargo xtask bench governor`: a program that allocates millions of times a second, while its `malloc` and `free` are
//! timed: by how much it slows down, next to funclatency and bpftrace. Then functions that are called at a rate: how exact
//! the counts are, scaled where probes are set for a part of the time, and with all calls where they are set all the time.

mod program;
mod timers;

use anyhow::{Context, Result, ensure};

use self::program::Slowdown;
use self::timers::{Seen, Timer};
use super::{statistics, workload};
use crate::shell;

/// Flags of `cargo xtask bench governor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds for which functions are timed
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Install nothing; peers that are not here are left out
    #[arg(long)]
    no_install: bool,
}

/// By how much more than the budget a program may lose after the first second, in percent of one core.
const MORE: f64 = 2.0;
/// How far scaled counts may be from the truth, in percent.
const MOST_ERROR: f64 = 10.0;

/// Runs `cargo xtask bench governor`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(shell::is_root(), "probes need root: run this command as root");
    ensure!(args.seconds >= 3, "the first second does not count: at least three");
    if !args.no_install {
        shell::install_missing(&[("gcc", "gcc")]);
    }
    let timers = timers::find(shell::build_probe()?, !args.no_install);
    let binary = workload::compile("mallocs", false)?;
    println!(
        "{}; {} s each.\n\
         slowdown: how many fewer turns the program makes of the same processor time; in the first second, in the median\n\
         and the worst of those after it. cost: processor time that it loses in the worst of these, in percent of one core.\n\
         cpu: what the program has of the processors; with less than 100 % a thread others are at work.\n\
         set: the share of time in which probes were set. counted: calls, in percent of what the program counts itself.",
        statistics::host(),
        args.seconds
    );
    let mut verdicts = Vec::new();
    for threads in [1, 2] {
        println!("\nmalloc and free as often as possible, {threads} thread(s)");
        println!(
            "  {:<22} {:>9} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>9} {:>9}",
            "", "first s", "median", "worst", "cost", "cpu", "set", "counted", "p50", "p99"
        );
        for timer in &timers {
            match program::slowed(&binary, threads, timer, args.seconds) {
                Ok((slowdown, seen)) => {
                    print(timer, &slowdown, &seen);
                    judge(timer, threads, &slowdown, &mut verdicts);
                }
                Err(error) => eprintln!("xtask: {}: {error:#}", timer.name),
            }
        }
    }
    let probe = |percent| timers.iter().find(|timer| timer.budget == Some(percent)).context("probe is always there");
    println!("\nA function that is called at a rate: calls counted, in percent of the truth");
    for (threads, rate, percent) in [(4, 5_000, 5.0), (4, 5_000, 1.0), (1, 20_000, 1.0)] {
        let paced = program::paced(&binary, threads, rate, probe(percent)?, args.seconds)?;
        let counted = 100.0 * paced.seen.rate / paced.rate;
        println!(
            "  {threads} thread(s), {rate} calls a second each, budget {percent} %: set {:.1} %, counted {counted:.2} %",
            100.0 * paced.seen.share
        );
        verdicts.push((
            format!("{threads} x {rate} calls a second within {percent} %: {counted:.1} % of the calls"),
            (counted - 100.0).abs() <= MOST_ERROR,
        ));
    }
    println!("\nEvery call: probes that are set all the time");
    for (threads, rate) in [(8, 12_500), (1, 50_000)] {
        let (counted, truth) = program::all(&binary, threads, rate, probe(100.0)?, args.seconds)?;
        println!("  {threads} thread(s), {rate} calls a second each: {counted} of {truth} calls");
        verdicts.push((format!("{threads} x {rate} calls a second: {counted} of {truth} counted"), counted == truth));
    }
    println!("\nTargets");
    for (what, is_met) in verdicts {
        println!("  {} {what}", if is_met { "met:   " } else { "MISSED:" });
    }
    Ok(())
}

fn print(timer: &Timer, slowdown: &Slowdown, seen: &Seen) {
    let time = |time: Option<f64>| time.map_or_else(|| "-".into(), |ns| format!("{ns:.0} ns"));
    println!(
        "  {:<22} {:>8.1}% {:>6.1}% {:>6.1}% {:>6.1}% {:>6.0}% {:>6.1}% {:>7.1}% {:>9} {:>9}",
        timer.name,
        slowdown.first,
        slowdown.median,
        slowdown.worst,
        slowdown.cost,
        slowdown.cpu,
        100.0 * seen.share,
        100.0 * seen.rate / slowdown.rate,
        time(seen.p50),
        time(seen.p99)
    );
}

fn judge(timer: &Timer, threads: u32, slowdown: &Slowdown, verdicts: &mut Vec<(String, bool)>) {
    if let Some(budget) = timer.budget.filter(|budget| *budget < 100.0) {
        let cost = slowdown.cost;
        let what =
            format!("{threads} thread(s), budget {budget} %: {cost:.1} % of one core at worst after the first second");
        verdicts.push((what, cost <= budget + MORE));
    }
}
