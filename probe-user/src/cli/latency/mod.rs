//! `probe latency`: times functions: how often they are called, how long that takes, how many calls are still going on.

mod chooser;
mod families;
mod programs;
mod slow;
mod table;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use chooser::{Chooser, Chosen};
use families::{Families, LOOK, room};
use programs::Programs;
use serde::Serialize;
use slow::Destination;

use super::pids::Pids;
use super::record::Signals;
use super::{Descriptors, print, readers, targets, tell};
use crate::kernel::{Refused, closer};
use crate::latency::{ErrorTest, Function, Row};
use crate::problem::{Exit, Problem};
use crate::target::{self, descendants};

/// More functions than this at once are a mistake: each has several probes, which take milliseconds to set.
const MAX_FUNCTIONS: usize = 100;
/// Flags of `probe latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  probe latency -p 1234 send_to_vendor                  until Ctrl-C, a table every second
  probe latency -p 1234 'push_*' -d 10s --json          ten seconds, for scripts
  probe latency -p 1234 libc.so.6:read -t 20ms -e '<0'  calls within 20 ms, and those that return less than 0
  probe latency -p $(pgrep -o postgres) exec_simple_query
                                                        with all its children, as one row
  probe latency -p 1234 --span begin=submit end=complete key=arg0
                                                        from one function to another, by their first argument

Names: exact, glob, /regex/, demangled C++ and Rust, library:function, file@0xaddress, usdt:provider:name")]
pub struct Args {
    /// The processes, with commas between them or as pgrep prints them; each has rows and a budget of its own, which are those
    /// of its children as well
    #[arg(short, long, value_name = "PIDS", required = true)]
    pid: Vec<Pids>,
    /// A row for each process, also for each child
    #[arg(long)]
    per_process: bool,
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
    targets::check_programs(&pids)?;
    let mut chooser = Chooser::new(args)?;
    let Plan { functions, parks, notes, processes } = plan(&mut chooser, &pids)?;
    for note in notes.iter().filter(|_| !quiet) {
        tell(note);
    }
    let slow = args.slow.as_deref().map(|path| Destination::open(path, None)).transpose()?;
    let (count, budget) = (functions.iter().map(|(_, chosen)| chosen.functions.len()).sum(), args.max_overhead / 100.0);
    let most = room(count, processes);
    let slots = (most + parks.len()) as u32;
    let mut programs = match args.threshold.filter(|_| slow.is_some()) {
        Some(threshold) => Programs::with_slow_calls(slots, &pids, threshold, args.frequency)?,
        None => Programs::load(slots, &pids)?,
    };
    let mut families = Families::new(budget, args.per_process, most, slow.is_some());
    for (pid, chosen) in &functions {
        families.add(&mut programs, *pid, *pid, &chosen.functions)?;
    }
    for &pid in &pids {
        families.descend(&mut programs, &mut chooser, pid)?;
    }
    let (count, processes) = families.counts();
    if count == 0 {
        let rows = families.rows(&mut programs)?;
        let reasons: Vec<String> =
            rows.iter().map(|(row, _)| format!("{}: not timed: {}", row.name, row.problem)).collect();
        bail!(Problem::new(Exit::Failure, reasons.join("\n"), Refused::HINT));
    }
    for (pid, function) in parks {
        match programs.add(pid, function, budget) {
            Err(error) if error.is::<Refused>() => tell(&format!("where goroutines wait is not seen: {error}")),
            added => drop(added?),
        }
    }
    let started = Instant::now();
    if !quiet {
        let cost = programs.hit_cost()?.as_nanos() as f64 / 1000.0;
        let plural = |count: usize, one: &'static str, many: &'static str| if count == 1 { one } else { many };
        let numbers: Vec<String> = pids.iter().map(u32::to_string).collect();
        let children = match processes - pids.len().min(processes) {
            0 => String::new(),
            count => format!(" and {count} {} of it", plural(count, "descendant", "descendants")),
        };
        tell(&format!(
            "timing {count} {} of pid {}{children}; a hit of a probe costs {cost:.1} us here",
            plural(count, "function", "functions"),
            numbers.join(", ")
        ));
    }
    let is_live = !args.json && !quiet && std::io::stdout().is_terminal();
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut shown = Instant::now();
    while !signals.came() && families.pids().any(target::is_running) && end.is_none_or(|end| Instant::now() < end) {
        let next = Instant::now() + LOOK;
        programs.run_until(end.map_or(next, |end| end.min(next)))?;
        families.look(&mut programs, &mut chooser)?;
        if is_live && shown.elapsed() >= args.interval {
            shown = Instant::now();
            let rows: Vec<Row> = families.rows(&mut programs)?.into_iter().map(|(row, _)| row).collect();
            print(&format!("\x1b[2J\x1b[H{}", table::render(&rows, started.elapsed())))?;
        }
    }
    let (numbered, elapsed) = (families.rows(&mut programs)?, started.elapsed());
    if families.left_out() > 0 && !quiet {
        tell(&format!("{} processes were not timed: too many, or they came too fast", families.left_out()));
    }
    let ended = families.ended_unseen();
    if ended > 0 && !quiet {
        let processes = crate::text::count(ended as u64, "processes");
        tell(&format!("{processes} ended before anything could be timed in them"));
    }
    let rows: Vec<Row> = numbered.iter().map(|(row, _)| row.clone()).collect();
    let text = if args.json { String::new() } else { table::render(&rows, elapsed) };
    let (Some(destination), Some(recording)) = (slow, programs.recording()?) else {
        print(&if args.json { json(&rows)? } else { text })?;
        return Ok(ExitCode::SUCCESS);
    };
    let rows = slow::rows(numbered, &recording);
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

/// What is timed of the processes that were named.
struct Plan {
    functions: Vec<(u32, Arc<Chosen>)>,
    /// Where goroutines wait, for what they do in slow calls.
    parks: Vec<(u32, Function)>,
    /// What is to be said about them.
    notes: Vec<String>,
    /// How many processes there are in the largest family.
    processes: usize,
}

fn plan(chooser: &mut Chooser, pids: &[u32]) -> Result<Plan> {
    let mut plan = Plan { functions: Vec::new(), parks: Vec::new(), notes: Vec::new(), processes: 1 };
    let (mut missing, mut count) = (None, 0);
    for &pid in pids {
        let chosen = chooser.of(pid)?;
        let children = descendants(pid);
        plan.processes = plan.processes.max(1 + children.len());
        plan.notes.extend(chosen.notes.iter().cloned());
        for why in &chosen.missing {
            // Only one of the processes may have it, or what descends from it.
            plan.notes.push(format!("not timed in pid {pid}: {why}"));
            missing.get_or_insert_with(|| why.clone());
        }
        count += chosen.functions.len();
        for child in children {
            if count == 0 {
                count += chooser.of(child)?.functions.len();
            }
        }
        plan.parks.extend(chosen.park.clone().map(|park| (pid, park)));
        plan.functions.push((pid, chosen));
    }
    match missing {
        // With one process, that one of the names means nothing is a mistake.
        Some(why) if count == 0 || pids.len() == 1 && plan.processes == 1 => bail!(why),
        _ if count == 0 => {
            bail!(Problem::new(
                Exit::Usage,
                "none of the functions that were named can be timed",
                plan.notes.join("\n")
            ))
        }
        _ => {}
    }
    if count > MAX_FUNCTIONS {
        bail!(Problem::new(
            Exit::Usage,
            format!("{count} functions match; at most {MAX_FUNCTIONS} can be timed at once"),
            "name fewer, or name the library as well: libpush.so:push_*"
        ));
    }
    Ok(plan)
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
