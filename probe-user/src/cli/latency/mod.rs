//! `probe latency`: times functions: how often they are called, how long that takes, how many calls are still going on.

mod choose;
mod judge;
mod table;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::record::Signals;
use super::{Descriptors, print, targets, tell};
use crate::kernel::Judgement;
use crate::latency::{Function, Options, Timer};
use crate::target;

/// How often it is looked whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// Flags of `probe latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  probe latency -p 1234 send_to_vendor                  until Ctrl-C, a table every second
  probe latency -p 1234 'push_*' -d 10s --json          ten seconds, for scripts
  probe latency -p 1234 libc.so.6:read -t 20ms -e '<0'  calls within 20 ms, and those that return less than 0

Names: exact, glob, /regex/, demangled C++ and Rust, library:function, file@0xaddress")]
pub struct Args {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pid: u32,
    /// Functions to time
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// For how long: 30s, 5m, or a number of seconds; until Ctrl-C or the end of the process by default
    #[arg(short, long, value_name = "TIME", value_parser = super::parse_duration)]
    duration: Option<Duration>,
    /// Count the calls within this time, such as 20ms
    #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    threshold: Option<Duration>,
    /// Which returned values are errors: <0, =0, !=0 or >N; of an int unless the number of bits follows: <0:64
    #[arg(short, long, value_name = "TEST", value_parser = judge::parse, allow_hyphen_values = true)]
    errors: Option<judge::ErrorTest>,
    /// What the probes may cost, in percent of one core; what would cost more is looked at for a part of the time
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = super::parse_percent)]
    max_overhead: f64,
    /// How often the table is shown
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Print the figures at the end as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `probe latency`.
pub fn run(args: &Args, quiet: bool) -> Result<ExitCode> {
    let signals = Signals::listen()?;
    let _descriptors = Descriptors::raise();
    targets::check(&[args.pid])?;
    let judgement = Judgement {
        threshold_ns: args.threshold.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        ..args.errors.map(Judgement::from).unwrap_or_default()
    };
    let (functions, notes): (Vec<Function>, Vec<String>) =
        choose::functions(args.pid, &args.names, judgement, args.threshold.is_some())?;
    for note in notes.iter().filter(|_| !quiet) {
        tell(note);
    }
    let count = functions.len();
    let mut timer = Timer::start(Options { pid: args.pid, budget: args.max_overhead / 100.0 }, functions)?;
    if !quiet {
        let cost = timer.hit_cost().as_nanos() as f64 / 1000.0;
        let plural = if count == 1 { "" } else { "s" };
        tell(&format!("timing {count} function{plural} of pid {}; a hit of a probe costs {cost:.1} us here", args.pid));
    }
    let is_live = !args.json && !quiet && std::io::stdout().is_terminal();
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut shown = Instant::now();
    while !signals.came() && target::is_running(args.pid) && end.is_none_or(|end| Instant::now() < end) {
        let next = Instant::now() + LOOK;
        timer.run_until(end.map_or(next, |end| end.min(next)))?;
        if is_live && shown.elapsed() >= args.interval {
            shown = Instant::now();
            print(&format!("\x1b[2J\x1b[H{}", table::render(&timer.rows()?, timer.elapsed())))?;
        }
    }
    let rows = timer.rows()?;
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?,
        false => print(&table::render(&rows, timer.elapsed()))?,
    }
    Ok(ExitCode::SUCCESS)
}
