//! `cargo xtask bench dump`: the stacks of a process with many threads asleep in nested calls, without frame pointers. How
//! long a dump takes, how many stacks are whole, and how long the process is held up; next to gdb and eu-stack, which stop
//! it.

mod dumpers;
mod gaps;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::dumpers::{Dump, Dumper, Kind};
use self::gaps::{Gaps, Places, Times};
use super::statistics;
use super::workload::{self, Told};
use crate::shell;

/// Flags of `cargo xtask bench dump`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Threads of the process
    #[arg(long, default_value_t = 1000)]
    threads: u32,
    /// How often each command is timed; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Dumps by probe while the process measures its gaps
    #[arg(long, default_value_t = 100)]
    dumps: u32,
    /// Dumps by each peer meanwhile
    #[arg(long, default_value_t = 5)]
    peer_dumps: u32,
    /// Install nothing; peers that are not here are left out
    #[arg(long)]
    no_install: bool,
}

/// What `probe` wants of itself.
const LONGEST_READ: Duration = Duration::from_millis(100);
/// By how much the gaps during dumps may exceed those during dumps of another process: they vary by themselves.
const MOST_LONGER: f64 = 1.5;

/// Runs `cargo xtask bench dump`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(shell::is_root(), "thread dumps need root: run this command as root");
    ensure!(args.rounds > 0 && args.dumps > 0 && args.peer_dumps > 0, "at least one of each");
    if !args.no_install {
        shell::install_missing(&[("gcc", "gcc")]);
        // Without it the C library's first functions have no names, by which whole stacks are known.
        if !Path::new("/usr/lib/debug/.build-id").exists() {
            shell::apt_install(&["libc6-dbg"])?;
        }
    }
    let dumpers = dumpers::find(shell::build_probe()?, !args.no_install);
    let binary = workload::compile("sleepers", false)?;
    println!("{}; a process with {} threads asleep, 20 calls deep.", statistics::host(), args.threads);
    let mut verdicts = Vec::new();
    let asleep = Told::start(Command::new(&binary).args([&args.threads.to_string(), "-1", "0"]))?;
    durations(args, &dumpers, asleep.pid(), &mut verdicts)?;
    println!(
        "\nGaps of a thread of the process that reads the clock, in microseconds: the longest; the longest in 999 of 1,000\n\
         milliseconds; the sum of those above 10 us in a second. A dump of another process takes the same processor time."
    );
    let last = std::thread::available_parallelism().map_or(0, |count| count.get() - 1);
    let times = Times { own: args.dumps, peers: args.peer_dumps };
    for (name, places) in [
        (
            "The thread and who dumps on different CPUs; the thread goes before others (nice -20)",
            Places { reader: Some(last), dumper: Some(0), nice: -20 },
        ),
        ("Wherever the scheduler puts them", Places { reader: None, dumper: None, nice: 0 }),
    ] {
        if last == 0 && places.reader.is_some() {
            eprintln!("xtask: with a single CPU there are no different ones");
            continue;
        }
        println!("\n{name}");
        let (elsewhere, here) = gaps::run(&binary, args.threads, places, times, &dumpers, asleep.pid())?;
        if places.reader.is_some() {
            judge(elsewhere, here, &mut verdicts);
        }
    }
    println!("\nTargets");
    for (what, is_met) in verdicts {
        println!("  {} {what}", if is_met { "met:   " } else { "MISSED:" });
    }
    Ok(())
}

/// Who dumps in turn, several times over, so that a slow moment of the machine hits all of them.
fn durations(args: &Args, dumpers: &[Dumper], pid: u32, verdicts: &mut Vec<(String, bool)>) -> Result<()> {
    let mut all: Vec<(&Dumper, Vec<Dump>)> = dumpers.iter().map(|dumper| (dumper, Vec::new())).collect();
    for _ in 0..args.rounds {
        for (dumper, dumps) in &mut all {
            match dumper.dump(pid, None) {
                Ok(dump) => dumps.push(dump),
                Err(error) => eprintln!("xtask: {}: {error:#}", dumper.name),
            }
        }
    }
    println!("\nTime of a dump, median of {}", args.rounds);
    println!("  {:<12} {:>10} {:>12} {:>8} {:>8} {:>8}", "", "command", "reading", "ratio", "threads", "whole");
    let mut own = None;
    for (dumper, mut dumps) in all {
        dumps.sort_by_key(|dump| (dump.read, dump.took));
        let Some(&Dump { took, read, threads, whole }) = dumps.get(dumps.len() / 2) else { continue };
        let own = *own.get_or_insert(took);
        println!(
            "  {:<12} {:>7.0} ms {:>12} {:>8.2} {threads:>8} {:>7.2}%",
            dumper.name,
            1e3 * took.as_secs_f64(),
            read.map_or_else(|| "-".into(), |read| format!("{:.1} ms", 1e3 * read.as_secs_f64())),
            took.as_secs_f64() / own.as_secs_f64(),
            100.0 * whole as f64 / threads as f64,
        );
        if dumper.kind == Kind::Probe {
            let read = read.context("probe does not say how long it read")?;
            let text = format!("{threads} threads read in {:.1} ms", 1e3 * read.as_secs_f64());
            verdicts.push((text, read < LONGEST_READ));
            verdicts.push((format!("{whole} of {threads} stacks whole"), whole == threads));
        }
    }
    Ok(())
}

fn judge(elsewhere: Gaps, here: Gaps, verdicts: &mut Vec<(String, bool)>) {
    for (what, elsewhere, here) in [
        ("longest gap", elsewhere.longest, here.longest),
        ("gaps in 999 of 1,000 ms", elsewhere.permille, here.permille),
    ] {
        let text = format!("{what}: {here:.0} us, {elsewhere:.0} us while another process is dumped");
        verdicts.push((text, here <= MOST_LONGER * elsewhere));
    }
}
