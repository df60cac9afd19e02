//! The recording itself: start, wait for an end, name, write.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::command::Running;
use super::output::{Output, is_stdout};
use super::plan::{Plan, Target};
use super::resident::Resident;
use super::signals::{self, Signals};
use super::summary;
use crate::cli::{Descriptors, readers, targets, tell};
use crate::export;
use crate::kernel::{self, closer, target_flags};
use crate::problem::{Exit, Problem};
use crate::record::{Collector, Events, HeapTargets, Options, Retention};
use crate::symbolize::Symbolizer;
use crate::target;

/// How often it is looked whether the recording is over.
const TICK: Duration = Duration::from_millis(50);
/// Bound on what a recording may hold: 64 busy CPUs at 99 Hz for an hour and a half.
const MEMORY: usize = 1 << 30;
/// Page faults a second and CPU that are looked at, on average: each is some 5 µs.
const FAULTS: u64 = 1000;
/// How often it is looked for children that were made while others were looked for.
const LOOKS: usize = 3;
/// Bound on unwind tables in the kernel: those of a browser take some 20 MB.
const UNWIND_MEMORY: usize = 256 << 20;
/// How long sampling may wait for the tables of its targets.
const TABLES: Duration = Duration::from_secs(2);

pub fn run(plan: &Plan, descriptors: Descriptors, quiet: bool) -> Result<ExitCode> {
    readers::start();
    if plan.events.malloc {
        closer::start();
    }
    let signals = Signals::listen()?;
    let pids: &[u32] = if let Target::Pids(pids) = &plan.target { pids } else { &[] };
    targets::check(pids)?;
    if plan.events.malloc || plan.events.page_fault {
        targets::check_programs(pids)?;
    }
    let collector = Collector::start(&Options {
        kernel: kernel::Options {
            frequency: plan.frequency,
            fast_frequency: 0,
            all: plan.target == Target::All,
            newcomers: false,
            origins: false,
            user_stacks: plan.user_stacks,
            kernel_stacks: plan.kernel_stacks,
            waits: plan.waits,
            faults: if plan.events.page_fault { FAULTS } else { 0 },
            functions: 0,
            heap: plan.heap,
        },
        events: plan.events,
        mappings: plan.events.page_fault,
        retention: Retention { window_ns: u64::MAX, memory: MEMORY },
        unwind_memory: UNWIND_MEMORY,
    })?;
    // Before anything is recorded: a path that cannot be written is better known now.
    let output = Output::open(&plan.output)?;
    let memory_output = plan.memory_output.as_deref().map(Output::open).transpose()?;
    if signals.came() {
        tell("stopped; nothing was recorded");
        return Ok(ExitCode::from(signals::QUIT));
    }
    let begin_ns = target::monotonic_ns();
    // A command waits from its first instruction on; what was there before, from when it can be unwound.
    let is_command = matches!(plan.target, Target::Command(_));
    if plan.events.off_cpu && is_command {
        collector.start_waits(plan.wakers)?;
    }
    let mut end = begin(plan, &collector, descriptors, &signals, quiet)?;
    if let End::Processes(_) = end {
        collector.wait_for_tables(TABLES)?;
    }
    // What was there before is recorded from when all of it is: unwound, and its waits. A command is from its exec on.
    let from_ns = match plan.events {
        _ if is_command => begin_ns,
        Events { malloc: true, .. } => start_heaps(plan, &collector, quiet)?,
        Events { off_cpu: true, .. } => collector.start_waits(plan.wakers)?,
        _ => target::monotonic_ns(),
    };
    if !quiet && !plan.events.malloc {
        summary::started(plan, collector.clock());
    }
    let mut resident = Resident::default();
    wait(plan, &collector, &mut end, &signals, quiet, &mut resident)?;
    let to_ns = match plan.events {
        Events { malloc: true, .. } => collector.stop_heaps()?,
        Events { off_cpu: true, .. } => collector.stop_waits()?,
        _ => target::monotonic_ns(),
    };
    let mut recording = collector.extract(&[], from_ns, to_ns)?;
    let code = if let End::Command(command) = &mut end { exit_code(command)? } else { None };
    drop(collector);
    recording.heap.older_ns = u64::try_from(plan.older_than.as_nanos()).unwrap_or(u64::MAX);
    if !plan.user_stacks {
        // Taken in user mode: there is nothing of it that was asked for.
        recording.samples.retain(|sample| sample.kernel.is_some());
    }
    let profile = Symbolizer::new().symbolize(&recording);
    if profile.samples.is_empty() {
        summary::losses(&profile);
        let mode = match (plan.events.cpu, plan.user_stacks) {
            _ if plan.events.malloc => "to allocate memory",
            (false, _) if plan.events.off_cpu => "to wait",
            (false, _) => "to take memory",
            (true, true) => "on a CPU",
            (true, false) => "in the kernel",
        };
        let message = format!("no samples: the targets were not seen {mode} while they were recorded");
        // Whoever waits for the command learns first that it failed.
        if let Some(code) = code.filter(|&code| code != 0) {
            tell(&format!("{message}; the command ended with exit code {code}"));
            tell("hint: it failed by itself: see that it works without probe");
            return Ok(ExitCode::from(code));
        }
        bail!(Problem::new(Exit::NoTarget, message, hint(plan)));
    }
    let options = export::Options { threads: plan.threads, states: plan.states, ..export::Options::default() };
    let mut written = Vec::new();
    let is_shown = |memory| if memory { profile.has_memory() } else { profile.has_times() };
    for (output, memory) in [(Some(output), false), (memory_output, true)] {
        let Some(output) = output.filter(|_| plan.memory_output.is_none() || is_shown(memory)) else { continue };
        let memory = plan.memory_output.is_some().then_some(memory);
        let options = export::Options { memory, ..options.clone() };
        written.push(output.write(&signals, |out| export::write(&profile, plan.format, &options, out))?);
    }
    let written = written.join(" and ");
    if !quiet {
        summary::finished(&profile, &written);
        resident.tell(&profile);
        if let Some(code) = code.filter(|&code| code != 0) {
            tell(&format!("the command ended with exit code {code}"));
        }
    }
    Ok(ExitCode::from(code.unwrap_or(0)))
}

/// The exit code of a command as a shell has it; `None` of one that ran until it was told to end.
fn exit_code(command: &mut Running) -> Result<Option<u8>> {
    if command.end()? {
        return Ok(None);
    }
    let code = |status: ExitStatus| status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    Ok(command.status()?.map(|status| code(status) as u8))
}

fn hint(plan: &Plan) -> String {
    if plan.events.malloc {
        return "record longer (-d), or take more samples: --sample-bytes 16KiB".into();
    }
    if !plan.events.cpu && !plan.events.off_cpu {
        return "record longer (-d), at a time when their memory grows: what is used again takes nothing".into();
    }
    if !plan.events.cpu {
        return "record longer (-d), and see that --min-wait and --max-wait leave something".into();
    }
    match (&plan.target, plan.user_stacks) {
        (_, false) => "samples without a kernel stack are left out: leave out -K, or record longer (-d)".into(),
        (Target::Command(_), true) => format!("it may have been too short for {} Hz: raise -F", plan.frequency),
        _ => "record longer (-d), at a time when they work; waiting threads are not sampled".into(),
    }
}

/// What ends the recording besides time and Ctrl-C.
enum End {
    Processes(Vec<u32>),
    Command(Running),
    Never,
}

fn begin(
    plan: &Plan,
    collector: &Collector,
    descriptors: Descriptors,
    signals: &Arc<Signals>,
    quiet: bool,
) -> Result<End> {
    match &plan.target {
        Target::All => Ok(End::Never),
        Target::Pids(pids) => {
            watch(collector, pids)?;
            Ok(End::Processes(pids.clone()))
        }
        Target::Command(command) => {
            let mut allocators = plan.events.malloc.then(Vec::new);
            if allocators.is_some() {
                collector.follow_heaps(&heap_targets(plan))?;
            }
            let is_stdout_taken = is_stdout(&plan.output);
            let heap = allocators.as_mut();
            let running = Running::start(collector, command, is_stdout_taken, descriptors, signals, heap)?;
            if let Some(allocators) = allocators.filter(|_| !quiet) {
                summary::started_heaps(plan, &allocators);
            }
            Ok(End::Command(running))
        }
    }
}

/// Whose allocations are sampled: a command's from when it is there.
fn heap_targets(plan: &Plan) -> HeapTargets {
    let pids = if let Target::Pids(pids) = &plan.target { pids.clone() } else { Vec::new() };
    HeapTargets { pids, budget: plan.budget, cheapest: plan.cheapest, children: true }
}

/// Samples the allocations of the targets that are there.
fn start_heaps(plan: &Plan, collector: &Collector, quiet: bool) -> Result<u64> {
    let (from_ns, allocators) = collector.follow_heaps(&heap_targets(plan))?;
    if !quiet {
        summary::started_heaps(plan, &allocators);
    }
    Ok(from_ns)
}

/// Watches processes and their descendants. Those that come later are watched by the kernel.
fn watch(collector: &Collector, pids: &[u32]) -> Result<()> {
    let mut watched = BTreeSet::new();
    for &pid in pids {
        if watched.insert(pid) {
            collector.watch(pid, None, target_flags::INHERIT)?;
        }
    }
    // The child of a child that was not watched yet is new in the next look.
    for _ in 0..LOOKS {
        let found: BTreeSet<u32> = pids.iter().flat_map(|&pid| target::descendants(pid)).collect();
        let new: Vec<u32> = found.difference(&watched).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            collector.watch(pid, None, target_flags::INHERIT)?;
            watched.insert(pid);
        }
    }
    Ok(())
}

fn wait(
    plan: &Plan,
    collector: &Collector,
    end: &mut End,
    signals: &Signals,
    quiet: bool,
    resident: &mut Resident,
) -> Result<()> {
    let begin = Instant::now();
    let progress = !quiet && std::io::stderr().is_terminal();
    let mut shown = begin;
    loop {
        let left = plan.duration.map_or(TICK, |duration| duration.saturating_sub(begin.elapsed()));
        let over = match end {
            _ if left.is_zero() || signals.came() => true,
            End::Never => false,
            End::Command(command) => command.status()?.is_some(),
            End::Processes(pids) => {
                pids.retain(|&pid| target::is_running(pid));
                pids.is_empty()
            }
        };
        if plan.events.page_fault {
            match end {
                End::Processes(pids) => pids.iter().for_each(|&pid| resident.look(pid, None)),
                // It began with nothing.
                End::Command(command) => resident.look(command.pid(), Some(0)),
                End::Never => {}
            }
        }
        if over {
            break;
        }
        if progress && shown.elapsed() >= Duration::from_millis(500) {
            shown = Instant::now();
            summary::progress(begin.elapsed(), plan.duration, plan.events, &collector.stats()?);
        }
        std::thread::sleep(left.min(TICK));
    }
    if progress {
        summary::clear_progress();
    }
    Ok(())
}
