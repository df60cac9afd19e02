//! `probe latency`: times functions: how often they are called, how long that takes, how many calls are still going on.

mod operand;
mod programs;
mod slow;
mod span;
mod table;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use programs::{Programs, SHORT_WAITS};
use serde::Serialize;
use slow::Destination;

use super::pids::Pids;
use super::record::Signals;
use super::{Descriptors, print, readers, targets, tell};
use crate::functions::{Files, Finder, Spec};
use crate::kernel::{Refused, closer, feature};
use crate::latency::{ErrorTest, Function, Row, choose, judgement, parks};
use crate::problem::{Exit, Problem};
use crate::target::{self, Modules, Process};

/// More functions than this at once are a mistake: each has several probes, which take milliseconds to set.
const MAX_FUNCTIONS: usize = 100;
/// How often it is looked whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// Flags of `probe latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  probe latency -p 1234 send_to_vendor                  until Ctrl-C, a table every second
  probe latency -p 1234 'push_*' -d 10s --json          ten seconds, for scripts
  probe latency -p 1234 libc.so.6:read -t 20ms -e '<0'  calls within 20 ms, and those that return less than 0
  probe latency -p 1234 --span begin=submit end=complete key=arg0
                                                        from one function to another, by their first argument

Names: exact, glob, /regex/, demangled C++ and Rust, library:function, file@0xaddress, usdt:provider:name")]
pub struct Args {
    /// The processes, with commas between them or as pgrep prints them; each has rows and a budget of its own
    #[arg(short, long, value_name = "PIDS", required = true)]
    pid: Vec<Pids>,
    /// Functions to time
    #[arg(required_unless_present = "span", value_name = "NAME")]
    names: Vec<String>,
    /// Time from the entry of one function to that of another, paired by a value: begin=submit end=complete key=arg0; also
    /// end-key=arg1->0x18, ret, thread, and name=...
    #[arg(short, long, value_name = "PART", num_args = 1..)]
    span: Vec<String>,
    /// For how long: 30s, 5m, or a number of seconds; until Ctrl-C or the end of the process by default
    #[arg(short, long, value_name = "TIME", value_parser = super::parse_length)]
    duration: Option<Duration>,
    /// Count the calls within this time, such as 20ms
    #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    threshold: Option<Duration>,
    /// Which returned values are errors: <0, =0, !=0 or >N; of an int unless the number of bits follows: <0:64
    #[arg(short, long, value_name = "TEST", allow_hyphen_values = true)]
    errors: Option<ErrorTest>,
    /// What the probes of a process may cost, in percent of one core; what would cost more is looked at for a part of the time
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = super::parse_percent)]
    max_overhead: f64,
    /// Write what threads do inside of calls over the threshold, on a CPU and waiting, as a profile: slow.html, or any format
    /// of `probe record`; and tell where these calls come from
    #[arg(long, value_name = "FILE", requires = "threshold")]
    slow: Option<PathBuf>,
    /// --slow: samples per second and CPU
    #[arg(short = 'F', long, visible_alias = "rate", default_value_t = 499, value_name = "HZ",
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    frequency: u64,
    /// How often the table is shown
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = super::parse_length)]
    interval: Duration,
    /// Print the figures at the end as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `probe latency`.
pub fn run(args: &Args, quiet: bool) -> Result<ExitCode> {
    readers::start();
    closer::start();
    let signals = Signals::listen()?;
    let _descriptors = Descriptors::raise();
    let pids = Pids::all(&args.pid);
    targets::check(&pids)?;
    let Chosen { functions, parks, notes } = functions(args, &pids)?;
    for note in notes.iter().filter(|_| !quiet) {
        tell(note);
    }
    let slow = args.slow.as_deref().map(|path| Destination::open(path, None)).transpose()?;
    let mut programs = match args.threshold.filter(|_| slow.is_some()) {
        Some(threshold) => {
            let count = (functions.len() + parks.len()) as u32;
            Programs::with_slow_calls(count, &pids, threshold, args.frequency)?
        }
        None => Programs::load(functions.len() as u32)?,
    };
    let (mut count, mut refused) = (0, Vec::new());
    for (pid, mut function) in functions {
        if slow.is_some() {
            function.features |= feature::SLOW;
        }
        let name = function.name.clone();
        match programs.add(pid, function, args.max_overhead / 100.0) {
            Err(error) if error.is::<Refused>() => refused.push(Row::refused(pid, &name, &error.to_string())),
            added => {
                added?;
                count += 1;
            }
        }
    }
    if count == 0 {
        let reasons: Vec<String> =
            refused.iter().map(|row| format!("{}: not timed: {}", row.name, row.problem)).collect();
        bail!(Problem::new(Exit::Failure, reasons.join("\n"), Refused::HINT));
    }
    // Behind those that have rows, so that these have the first numbers.
    for (pid, function) in parks {
        match programs.add(pid, function, args.max_overhead / 100.0) {
            Err(error) if error.is::<Refused>() => tell(&format!("where goroutines wait is not seen: {error}")),
            added => added?,
        }
    }
    let rows = |programs: &mut Programs| -> Result<Vec<Row>> {
        Ok(programs.rows()?.into_iter().take(count).chain(refused.iter().cloned()).collect())
    };
    let started = Instant::now();
    if !quiet {
        let cost = programs.hit_cost()?.as_nanos() as f64 / 1000.0;
        let plural = if count == 1 { "" } else { "s" };
        let numbers: Vec<String> = pids.iter().map(u32::to_string).collect();
        let numbers = numbers.join(", ");
        tell(&format!("timing {count} function{plural} of pid {numbers}; a hit of a probe costs {cost:.1} us here"));
    }
    let is_live = !args.json && !quiet && std::io::stdout().is_terminal();
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut shown = Instant::now();
    let is_any_running = || pids.iter().any(|&pid| target::is_running(pid));
    while !signals.came() && is_any_running() && end.is_none_or(|end| Instant::now() < end) {
        let next = Instant::now() + LOOK;
        programs.run_until(end.map_or(next, |end| end.min(next)))?;
        if is_live && shown.elapsed() >= args.interval {
            shown = Instant::now();
            print(&format!("\x1b[2J\x1b[H{}", table::render(&rows(&mut programs)?, started.elapsed())))?;
        }
    }
    let (rows, elapsed) = (rows(&mut programs)?, started.elapsed());
    let text = if args.json { String::new() } else { table::render(&rows, elapsed) };
    let (Some(destination), Some(recording)) = (slow, programs.recording()?) else {
        print(&if args.json { json(&rows)? } else { text })?;
        return Ok(ExitCode::SUCCESS);
    };
    let rows = slow::rows(rows, &recording, count);
    print(&if args.json { json(&rows)? } else { text + &slow::render(&rows) })?;
    match destination.write(recording, &signals)? {
        Some(written) if !quiet => tell(&written),
        Some(_) => {}
        None => tell("no call was slow: nothing is written"),
    }
    Ok(ExitCode::SUCCESS)
}

fn json(rows: &impl Serialize) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(rows)?))
}

/// A function, and whose it is.
type OfProcess = (u32, Function);

/// The functions that are meant, by process.
struct Chosen {
    functions: Vec<OfProcess>,
    /// Where goroutines wait, for what they do in slow calls.
    parks: Vec<OfProcess>,
    /// What is to be said about them.
    notes: Vec<String>,
}

fn functions(args: &Args, pids: &[u32]) -> Result<Chosen> {
    let (spans, more) = span::parse(&args.span).map_err(|error| usage(&error))?;
    let specs: Result<Vec<Spec>> = args.names.iter().chain(&more).map(|name| spec(name)).collect();
    let (specs, judgement) = (specs?, judgement(args.threshold, args.errors));
    let (mut functions, mut notes) = (Vec::<OfProcess>::new(), Vec::new());
    let mut parked = Vec::new();
    let mut missing: Option<Problem> = None;
    let mut modules = Modules::default();
    for &pid in pids {
        let files = Files::of_process(&Process::read(pid, &mut modules));
        for spec in &specs {
            let (found, more) = match choose(&files, spec, judgement, args.threshold.is_some()) {
                Ok(chosen) => chosen,
                // Only one of the processes may have it.
                Err(why) if pids.len() > 1 => {
                    notes.push(format!("not timed in pid {pid}: {why}"));
                    missing = Some(why);
                    continue;
                }
                Err(why) => bail!(why),
            };
            notes.extend(more);
            // Two names may mean the same function.
            let is_known = |new: &Function, known: &[OfProcess]| {
                known.iter().any(|(other, function)| *other == pid && function.same_place(new))
            };
            for function in found {
                if !is_known(&function, &functions) {
                    functions.push((pid, function));
                }
            }
        }
        let finder = Finder::of_modules(files.modules.iter().cloned(), files.roots.clone());
        for span in &spans {
            let function = span.function(&finder, judgement, args.threshold.is_some());
            functions.push((pid, function.map_err(|error| usage(&error))?));
        }
        let is_go = functions.iter().any(|(of, function)| *of == pid && function.features & feature::GO != 0);
        if let Some(threshold) = args.threshold.filter(|_| is_go && args.slow.is_some()) {
            parked.extend(parks(&files, threshold / SHORT_WAITS).map(|function| (pid, function)));
        }
    }
    if functions.is_empty() {
        if let Some(why) = missing {
            bail!(why);
        }
        bail!(Problem::new(Exit::Usage, "none of the functions that were named can be timed", notes.join("\n")));
    }
    if functions.len() > MAX_FUNCTIONS {
        bail!(Problem::new(
            Exit::Usage,
            format!("{} functions match; at most {MAX_FUNCTIONS} can be timed at once", functions.len()),
            "name fewer, or name the library as well: libpush.so:push_*"
        ));
    }
    Ok(Chosen { functions, parks: parked, notes })
}

fn spec(name: &str) -> Result<Spec> {
    name.parse().map_err(|error: anyhow::Error| usage(&error))
}

/// What is wrong with what was named; that it is missing says more by itself.
fn usage(error: &anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Problem>() {
        Some(problem) => problem.clone().into(),
        None => {
            let hint = "`probe latency --help` shows how functions and spans are named";
            Problem::new(Exit::Usage, format!("{error:#}"), hint).into()
        }
    }
}
