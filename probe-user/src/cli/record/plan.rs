//! What the flags ask for, checked: whether they fit together, and what follows from those that were not given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use super::flags::{Args, Event};
use super::output;
use crate::cli::pids::Pids;
use crate::export::Format;
use crate::kernel::{HeapOptions, WaitFilter};
use crate::problem::{Exit, Problem};
use crate::record::Events;

/// Allocated bytes for a sample, on average, unless it is said.
const SAMPLE_BYTES: u64 = 512 << 10;
/// What probes may cost unless it is said, in percent of one core.
const MAX_OVERHEAD: f64 = 5.0;

/// Whom to sample.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Pids(Vec<u32>),
    All,
    Command(Vec<OsString>),
}

/// What the flags ask for, checked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) frequency: u64,
    pub(super) duration: Option<Duration>,
    pub(super) output: PathBuf,
    /// Where memory goes, if the format cannot hold it beside times.
    pub(super) memory_output: Option<PathBuf>,
    pub(super) format: Format,
    pub(super) threads: bool,
    pub(super) states: bool,
    pub(super) user_stacks: bool,
    pub(super) kernel_stacks: bool,
    pub(super) events: Events,
    pub(super) waits: WaitFilter,
    pub(super) wakers: bool,
    pub(super) heap: HeapOptions,
    /// Allocations are seen in the cheapest way that a process has.
    pub(super) cheapest: bool,
    pub(super) older_than: Duration,
    /// What probes may cost, as a share of one core.
    pub(super) budget: f64,
}

/// Checks the flags.
pub(super) fn plan(args: Args) -> Result<Plan> {
    let (events, waits) = (events(&args)?, waits(&args)?);
    let cheapest = args.event.contains(&Event::Alloc);
    let heap = HeapOptions { sample_bytes: args.sample_bytes.unwrap_or(SAMPLE_BYTES), live: args.live };
    let (older_than, budget) = (args.older_than.unwrap_or_default(), args.max_overhead.unwrap_or(MAX_OVERHEAD) / 100.0);
    let Args { pid, all, frequency, duration, wakers, output, format, threads, states, .. } = args;
    let Args { user_only, kernel_only, command, .. } = args;
    let target = match (pid.is_empty(), all, command.is_empty()) {
        (false, _, _) => Target::Pids(Pids::all(&pid)),
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
            "leave it out"
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
        cheapest,
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
        malloc: is_meant(Event::Malloc) || is_meant(Event::Alloc),
    };
    let problem = |what: &str, hint: &str| Err(Problem::new(Exit::Usage, what, hint).into());
    match events {
        Events { malloc: true, cpu, off_cpu, page_fault } if cpu || off_cpu || page_fault => problem(
            "malloc is recorded by itself: what it counts does not add up with others",
            "record twice, at the same time",
        ),
        // Probes for all processes at once would be one link for each file, but their cost has no bound: to set and take them
        // away the kernel goes through all processes that have the file mapped. That took 13 µs for each probe and process,
        // so 0.2 s for those of a C library in a thousand processes, and meanwhile each of them pays for every call, on all
        // processors at once. A governor cannot make its first window shorter than that, nor tell whose calls have spent the
        // budget. And of probes in one process after the other the kernel side has room for 64.
        Events { malloc: true, .. } if args.all => problem(
            "the allocations of every process cannot be recorded: what probes in all of them cost has no bound",
            "name processes with -p PID, as in -p $(pgrep -d, NAME): their children are recorded with them; -e page-fault -a \
             shows where the memory of all processes grows",
        ),
        Events { malloc: false, .. } if args.live || args.sample_bytes.is_some() || args.max_overhead.is_some() => {
            problem(
                "--live, --sample-bytes and --max-overhead are about allocations, which are not recorded",
                "add -e malloc",
            )
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

#[cfg(test)]
mod tests;
