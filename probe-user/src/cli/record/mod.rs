//! `probe record`: sample targets for a while, then write a profile.

mod command;
mod output;
mod run;
mod signals;
mod summary;

pub(super) use output::Output;
pub(super) use signals::Signals;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::Descriptors;
use crate::export::Format;
use crate::kernel::{HeapOptions, WaitFilter};
use crate::problem::{Exit, Problem};
use crate::record::Events;
use anyhow::{Result, bail};

/// Frequencies beyond this cost more than they show.
const MAX_FREQUENCY: u64 = 10_000;

/// Nobody waits longer for a profile.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Flags of `probe record`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  probe record -p 1234 -d 30             30 seconds of a process, as profile.html
  probe record -a -d 10 -o host.pb.gz    everything on this host, for `go tool pprof`
  probe record -e off-cpu -p 1234 -d 10  where its threads wait, and for how long
  probe record -e page-fault -p 1234     where its memory grows, in bytes
  probe record -e malloc -p 1234 -d 10   where it allocates memory
  probe record -e malloc --live -p 1234  which of that it does not free
  probe record -o build.svg -- make      a command from its first instruction")]
pub struct Args {
    /// Processes to sample, with their children
    #[arg(short, long, value_name = "PID", value_delimiter = ',', num_args = 1)]
    pid: Vec<u32>,
    /// Sample every process of the host
    #[arg(short, long, conflicts_with_all = ["pid", "command"])]
    all: bool,
    /// Samples per second and CPU
    #[arg(short = 'F', long, visible_alias = "rate", default_value_t = 99, value_name = "HZ",
          value_parser = clap::value_parser!(u64).range(1..=MAX_FREQUENCY))]
    frequency: u64,
    /// How long: 30s, 5m, or a number of seconds; until Ctrl-C or the end of the targets by default
    #[arg(short, long, value_parser = parse_duration, value_name = "TIME")]
    duration: Option<Duration>,
    /// What to record: cpu (on which code CPU time is spent), off-cpu (where threads wait, and for how long), page-fault
    /// (where memory grows: what page faults make resident, and what is mapped), or several of them: cpu,off-cpu; malloc
    /// (where memory is allocated, of all that malloc, C++'s new and their kin return), or alloc: the same in the cheapest
    /// way that there is
    #[arg(short, long, default_value = "cpu", value_parser = parse_event, value_delimiter = ',')]
    event: Vec<Event>,
    /// off-cpu: leave shorter waits out, such as 100us
    #[arg(long, value_parser = parse_wait, value_name = "TIME")]
    min_wait: Option<Duration>,
    /// off-cpu: leave longer waits out
    #[arg(long, value_parser = parse_wait, value_name = "TIME")]
    max_wait: Option<Duration>,
    /// off-cpu: show who ended each wait; its stack stands on the waiting thread's, turned round
    #[arg(long)]
    wakers: bool,
    /// malloc: what is not freed until the end, in bytes in use, instead of all that is allocated
    #[arg(long)]
    live: bool,
    /// malloc --live: only what has been in use for at least this long, such as 30s
    #[arg(long, value_parser = parse_wait, value_name = "TIME", requires = "live")]
    older_than: Option<Duration>,
    /// malloc: one sample in so many allocated bytes, on average, such as 512KiB
    #[arg(long, value_name = "SIZE", default_value = "512KiB", value_parser = parse_sample_bytes)]
    sample_bytes: u64,
    /// malloc: what the probes may cost each process, in percent of one core; where they would cost more, they are set
    /// for a part of the time, and what they see is scaled up
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = super::parse_percent)]
    max_overhead: f64,
    /// File to write, `-` for stdout [default: profile.html, or profile with the ending of --format]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Format of the file; by its ending when not given
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// A frame per thread
    #[arg(short, long)]
    threads: bool,
    /// A frame for what the thread did: running, runnable, sleeping, uninterruptible, …
    #[arg(long)]
    states: bool,
    /// User stacks only
    #[arg(short = 'U', long, conflicts_with = "kernel_only")]
    user_only: bool,
    /// Kernel stacks only; samples taken in user mode are left out
    #[arg(short = 'K', long)]
    kernel_only: bool,
    /// A command to run and sample from its first instruction to its end; it is ended by SIGTERM when the recording ends
    /// before it, by -d or Ctrl-C. With `-o -` it writes to stderr
    #[arg(last = true, value_name = "CMD", conflicts_with = "pid")]
    command: Vec<OsString>,
}

/// What can be sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// On which code CPU time is spent
    Cpu,
    /// Where threads wait
    OffCpu,
    /// Where memory grows
    PageFault,
    /// Where memory is allocated
    Malloc,
}

/// Whom to sample.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Pids(Vec<u32>),
    All,
    Command(Vec<OsString>),
}

/// What the flags ask for, checked.
#[derive(Debug)]
struct Plan {
    target: Target,
    frequency: u64,
    duration: Option<Duration>,
    output: PathBuf,
    /// Where memory goes, if the format cannot hold it beside times.
    memory_output: Option<PathBuf>,
    format: Format,
    threads: bool,
    states: bool,
    user_stacks: bool,
    kernel_stacks: bool,
    events: Events,
    waits: WaitFilter,
    wakers: bool,
    heap: HeapOptions,
    older_than: Duration,
    /// What probes may cost, as a share of one core.
    budget: f64,
}

/// Runs `probe record`.
pub fn run(args: Args, quiet: bool) -> Result<ExitCode> {
    let plan = plan(args)?;
    run::run(&plan, Descriptors::raise(), quiet)
}

fn plan(args: Args) -> Result<Plan> {
    let (events, waits) = (events(&args)?, waits(&args)?);
    let heap = HeapOptions { sample_bytes: args.sample_bytes, live: args.live };
    let (older_than, budget) = (args.older_than.unwrap_or_default(), args.max_overhead / 100.0);
    let Args { pid, all, frequency, duration, wakers, output, format, threads, states, .. } = args;
    let Args { user_only, kernel_only, command, .. } = args;
    let target = match (pid.is_empty(), all, command.is_empty()) {
        (false, _, _) => Target::Pids(pid),
        (_, true, _) => Target::All,
        (_, _, false) => Target::Command(command),
        _ => bail!(Problem::new(
            Exit::Usage,
            "no target: nothing to record",
            "name processes with -p PID, everything with -a, or a command after --"
        )),
    };
    if let Target::Pids(pids) = &target
        && pids.contains(&0)
    {
        bail!(Problem::new(Exit::Usage, "0 is not a process id", "-a samples every process"));
    }
    let (output, format) = match (output, format) {
        (None, format) => {
            let format = format.unwrap_or(Format::Html);
            (PathBuf::from(format!("profile{}", format.extension())), format)
        }
        (Some(path), _) if path.is_dir() => bail!(Problem::new(
            Exit::Usage,
            format!("cannot write {}: it is a folder", path.display()),
            format!("name a file in it: -o {}", path.join("profile.html").display())
        )),
        (Some(path), Some(format)) => (path, format),
        (Some(path), None) if output::is_stdout(&path) => (path, Format::Folded),
        (Some(path), None) => {
            // A device or a pipe has a name that says nothing.
            let is_special = std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
            let format = Format::from_path(&path);
            (path, if is_special { format.unwrap_or(Format::Folded) } else { format? })
        }
    };
    let (user_stacks, kernel_stacks) = (!kernel_only, !user_only);
    if events.page_fault && kernel_only {
        bail!(Problem::new(
            Exit::Usage,
            "-K leaves nothing of page faults, which have user stacks only",
            "leave it away"
        ));
    }
    let is_split = events.page_fault && (events.cpu || events.off_cpu) && !format.has_units();
    let memory_output = is_split.then(|| beside(&output, format)).transpose()?;
    Ok(Plan {
        target,
        frequency,
        duration,
        output,
        memory_output,
        format,
        threads,
        states,
        user_stacks,
        kernel_stacks,
        events,
        waits,
        wakers,
        heap,
        older_than,
        budget,
    })
}

/// The file for memory beside the one for times: `out.page-fault.svg` beside `out.svg`.
fn beside(output: &Path, format: Format) -> Result<PathBuf> {
    let is_file = !output::is_stdout(output) && std::fs::metadata(output).map_or(true, |metadata| metadata.is_file());
    let Some(name) = output.file_name().and_then(|name| name.to_str()).filter(|_| is_file) else {
        bail!(Problem::new(
            Exit::Usage,
            format!("{} cannot take both times and memory: this format shows one unit", output.display()),
            "name a file, which gets another one beside it, or choose -f pprof or -f json"
        ));
    };
    let stem = name.strip_suffix(format.extension()).unwrap_or(name);
    Ok(output.with_file_name(format!("{stem}.page-fault{}", format.extension())))
}

fn events(args: &Args) -> Result<Events> {
    let is_meant = |event| args.event.contains(&event);
    let events = Events {
        cpu: is_meant(Event::Cpu),
        off_cpu: is_meant(Event::OffCpu),
        page_fault: is_meant(Event::PageFault),
        malloc: is_meant(Event::Malloc),
    };
    let problem = |what: &str, hint: &str| Err(Problem::new(Exit::Usage, what, hint).into());
    match events {
        Events { malloc: true, cpu, off_cpu, page_fault } if cpu || off_cpu || page_fault => problem(
            "malloc is recorded by itself: what it counts does not add up with others",
            "record twice, at the same time",
        ),
        Events { malloc: true, .. } if args.all => problem(
            "the allocations of every process cannot be recorded: each has to be probed",
            "name processes with -p PID",
        ),
        Events { malloc: true, .. } if !args.command.is_empty() => problem(
            "the allocations of a command cannot be recorded from its first instruction: its allocator is not there yet",
            "start it, then record it with -p PID",
        ),
        Events { malloc: false, .. } if args.live => {
            problem("--live is about memory, which is not recorded", "add -e malloc")
        }
        events => Ok(events),
    }
}

fn waits(args: &Args) -> Result<WaitFilter> {
    let Args { min_wait, max_wait, wakers, event, .. } = args;
    if (min_wait.is_some() || max_wait.is_some() || *wakers) && !event.contains(&Event::OffCpu) {
        bail!(Problem::new(
            Exit::Usage,
            "--min-wait, --max-wait and --wakers are about waits, which are not recorded",
            "add -e off-cpu, or -e cpu,off-cpu for both"
        ));
    }
    let nanoseconds = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let WaitFilter { min_ns, max_ns, each } = WaitFilter::default();
    let filter = WaitFilter {
        min_ns: min_wait.as_ref().map_or(min_ns, nanoseconds),
        max_ns: max_wait.as_ref().map_or(max_ns, nanoseconds),
        each,
    };
    if filter.min_ns > filter.max_ns {
        bail!(Problem::new(Exit::Usage, "no wait is both longer than --min-wait and shorter than --max-wait", ""));
    }
    Ok(filter)
}

/// How long to record.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match super::parse_duration(text)? {
        Duration::ZERO => Err("longer than nothing, please".into()),
        duration if duration > MAX_DURATION => Err("a year at most, please".into()),
        duration => Ok(duration),
    }
}

/// A time with a unit; a bare number could be anything from seconds to nanoseconds.
fn parse_wait(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}, as in 100us or 5ms"))
}

/// A number of bytes, with or without a unit of 1024: 65536, 64KiB, 1M.
fn parse_sample_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        _ => return Err("a number of bytes, as in 512KiB".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a number of bytes, as in 512KiB")?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| (1..1 << 32).contains(bytes));
    bytes.ok_or_else(|| "more than nothing and less than 4 GiB, please".into())
}

fn parse_event(text: &str) -> Result<Event, String> {
    match text {
        "cpu" => Ok(Event::Cpu),
        "off-cpu" => Ok(Event::OffCpu),
        "page-fault" => Ok(Event::PageFault),
        "malloc" | "alloc" => Ok(Event::Malloc),
        _ => Err("no such event; there are `cpu`, `off-cpu`, `page-fault` and `malloc`".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Plan> {
        plan(Command::try_parse_from(line.split(' '))?.args)
    }

    #[test]
    fn durations_are_numbers_or_have_units() {
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["0", "-3", "soon", "", "nan", "inf", "1e18", "1e300", "2years"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_output_follows_from_what_is_given() {
        let output = |line| parse(line).map(|plan| (plan.output.display().to_string(), plan.format)).unwrap();
        assert_eq!(output("record -p 1"), ("profile.html".into(), Format::Html));
        assert_eq!(output("record -p 1 -f pprof"), ("profile.pb.gz".into(), Format::Pprof));
        assert_eq!(output("record -p 1 -o x.svg"), ("x.svg".into(), Format::Svg));
        assert_eq!(output("record -p 1 -o -"), ("-".into(), Format::Folded));
        assert_eq!(output("record -p 1 -o x.svg -f json"), ("x.svg".into(), Format::Json));
        assert_eq!(output("record -p 1 -o /dev/stdout"), ("/dev/stdout".into(), Format::Folded));
        assert_eq!(output("record -p 1 -o /dev/null"), ("/dev/null".into(), Format::Folded));
        assert!(parse("record -p 1 -o x.png").is_err());
        for folder in ["/tmp", "/tmp -f svg"] {
            let error = parse(&format!("record -p 1 -o {folder}")).unwrap_err();
            assert!(error.to_string().contains("/tmp: it is a folder"), "{error}");
        }
    }

    #[test]
    fn events_are_told_from_nonsense() {
        for (line, [cpu, off_cpu, page_fault]) in [
            ("", [true, false, false]),
            (" -e off-cpu", [false, true, false]),
            (" -e cpu,off-cpu", [true, true, false]),
            (" -e cpu,page-fault -o x.pb.gz", [true, false, true]),
        ] {
            let plan = parse(&format!("record -p 1{line}")).unwrap();
            assert_eq!(plan.events, Events { cpu, off_cpu, page_fault, malloc: false }, "{line}");
        }
        for (event, expected) in [("cpu,malloc", "by itself"), ("cpu,nonsense", "no such event")] {
            let error = parse(&format!("record -p 1 -e {event}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn memory_beside_times_needs_a_place() {
        let beside = |line| parse(&format!("record -p 1 {line}")).map(|plan| plan.memory_output);
        assert_eq!(beside("-e page-fault").unwrap(), None);
        assert_eq!(beside("-e cpu,page-fault -o x.pb.gz").unwrap(), None);
        assert_eq!(beside("-e cpu,page-fault").unwrap(), Some("profile.page-fault.html".into()));
        assert_eq!(beside("-e cpu,page-fault -o a/x.svg").unwrap(), Some("a/x.page-fault.svg".into()));
        assert!(beside("-e cpu,page-fault -o -").unwrap_err().to_string().contains("one unit"));
        assert!(beside("-e page-fault -K").is_err());
    }

    #[test]
    fn waits_are_filtered_where_there_are_some() {
        let plan = parse("record -p 1 -e off-cpu --min-wait 100us --max-wait 5ms").unwrap();
        assert_eq!(plan.waits, WaitFilter { min_ns: 100_000, max_ns: 5_000_000, each: false });
        for bad in ["--min-wait 1ms", "--wakers", "-e off-cpu --min-wait 5", "-e off-cpu --min-wait 2s --max-wait 1s"] {
            assert!(parse(&format!("record -p 1 {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_recorded_by_itself_and_of_processes() {
        for event in ["malloc", "alloc"] {
            let plan = parse(&format!("record -p 1 -e {event} --live --older-than 30s --sample-bytes 64k")).unwrap();
            assert_eq!(plan.events, Events { malloc: true, ..Events::default() });
            assert_eq!(plan.heap, HeapOptions { sample_bytes: 64 << 10, live: true });
            assert_eq!((plan.older_than, plan.budget), (Duration::from_secs(30), 0.05));
        }
        for bad in [
            "-p 1 -e malloc,cpu",
            "-p 1 -e malloc,off-cpu",
            "-a -e malloc",
            "-e malloc -- ls",
            "-p 1 --live",
            "-p 1 -e malloc --older-than 3s",
            "-p 1 -e malloc --sample-bytes 0",
            "-p 1 -e malloc --sample-bytes 4096M",
            "-p 1 -e malloc --max-overhead 0",
        ] {
            assert!(parse(&format!("record {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn there_is_exactly_one_kind_of_target() {
        assert_eq!(parse("record -p 1,2 -p 3").unwrap().target, Target::Pids(vec![1, 2, 3]));
        assert_eq!(parse("record -a").unwrap().target, Target::All);
        let command = Target::Command(vec!["ls".into(), "-l".into()]);
        assert_eq!(parse("record -- ls -l").unwrap().target, command);
        for bad in ["record", "record -p 0", "record -p 1 -a", "record -a -- ls", "record -p 1 -- ls", "record -p x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("record -p 1 -U -K").is_err());
        assert!(parse("record -p 1 -F 0").is_err());
    }
}
