//! The recording itself: start, wait for an end, name, write.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::output::Output;
use super::{Plan, Target, summary};
use crate::export;
use crate::kernel::{self, target_flags};
use crate::problem::{Exit, Problem};
use crate::record::{Collector, Options, Retention};
use crate::symbolize::Symbolizer;
use crate::target;

/// How often it is looked whether the recording is over.
const TICK: Duration = Duration::from_millis(50);
/// Bound on what a recording may hold: 64 busy CPUs at 99 Hz for an hour and a half.
const MEMORY: usize = 1 << 30;
/// Bound on unwind tables in the kernel: those of a browser take some 20 MB.
const UNWIND_MEMORY: usize = 256 << 20;
/// How long sampling may wait for the tables of its targets.
const TABLES: Duration = Duration::from_secs(2);

pub fn run(plan: &Plan, quiet: bool) -> Result<ExitCode> {
    check_targets(&plan.target)?;
    // Before anything is recorded: a path that cannot be written is better known now.
    let output = Output::open(&plan.output)?;
    let collector = Collector::start(&Options {
        kernel: kernel::Options {
            frequency: plan.frequency,
            all: plan.target == Target::All,
            all_lifecycle: false,
            user_stacks: plan.user_stacks,
            kernel_stacks: plan.kernel_stacks,
        },
        retention: Retention { window_ns: u64::MAX, memory: MEMORY },
        unwind_memory: UNWIND_MEMORY,
    })?;
    let interrupts = count_interrupts()?;
    let begin_ns = target::monotonic_ns();
    let mut end = begin(&collector, &plan.target)?;
    if let End::Processes(_) = end {
        collector.wait_for_tables(TABLES)?;
    }
    // Recording begins here for what was there before; a command is recorded from its exec on.
    let from_ns = if let End::Processes(_) = end { target::monotonic_ns() } else { begin_ns };
    if !quiet {
        summary::started(plan, collector.clock());
    }
    wait(plan, &collector, &mut end, &interrupts, quiet)?;
    let recording = collector.extract(&[], from_ns, target::monotonic_ns())?;
    drop(collector);
    let profile = Symbolizer::new().symbolize(&recording);
    if profile.samples.is_empty() {
        summary::losses(&profile);
        bail!(Problem::new(
            Exit::NoTarget,
            "no samples: the targets used no CPU time while they were recorded",
            hint(plan)
        ));
    }
    let options = export::Options { threads: plan.threads, ..export::Options::default() };
    let written = output.write(|out| export::write(&profile, plan.format, &options, out))?;
    if !quiet {
        summary::finished(&profile, &written);
        if let End::Command(child) = &mut end
            && let Ok(Some(status)) = child.try_wait()
            && !status.success()
        {
            eprintln!("the command ended with {status}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn hint(plan: &Plan) -> String {
    match (&plan.target, plan.user_stacks) {
        (Target::Command(_), _) => format!("it may have been too short for {} Hz: raise -F", plan.frequency),
        _ => "record longer (-d), at a time when they work; waiting threads are not sampled".into(),
    }
}

fn check_targets(target: &Target) -> Result<()> {
    if !target::own_pid_namespace_is_initial()? {
        bail!(Problem::new(
            Exit::NotPermitted,
            "this is a pid namespace of its own: process ids here are not the kernel's",
            "run on the host, or share its pid namespace (hostPID: true, --pid=host)"
        ));
    }
    let Target::Pids(pids) = target else { return Ok(()) };
    for &pid in pids {
        match target::process_of_thread(pid) {
            Some(process) if process == pid => {}
            Some(process) => bail!(Problem::new(
                Exit::Usage,
                format!("{pid} is a thread of process {process}"),
                format!("record the process with -p {process} -t, which tells its threads apart")
            )),
            None => bail!(Problem::new(
                Exit::NoTarget,
                format!("there is no process with pid {pid}"),
                "`pgrep -a NAME` finds processes by name"
            )),
        }
    }
    Ok(())
}

/// What ends the recording besides time and Ctrl-C.
enum End {
    Processes(Vec<u32>),
    Command(Child),
    Never,
}

fn begin(collector: &Collector, target: &Target) -> Result<End> {
    match target {
        Target::All => Ok(End::Never),
        Target::Pids(pids) => {
            for &pid in pids {
                collector.watch(pid, None, target_flags::INHERIT)?;
            }
            Ok(End::Processes(pids.clone()))
        }
        Target::Command(command) => spawn(collector, command).map(End::Command),
    }
}

/// Starts the command such that the kernel makes it a target in the moment of its exec: nothing of it is missed, and
/// nothing of what runs between fork and exec is taken for it.
fn spawn(collector: &Collector, command: &[OsString]) -> Result<Child> {
    let (program, arguments) = command.split_first().context("no command")?;
    let ourselves = std::process::id();
    collector.spawner(ourselves)?;
    let child = Command::new(program).args(arguments).spawn();
    collector.unwatch(ourselves)?;
    child.map_err(|error| {
        let message = format!("cannot run {}: {error}", program.to_string_lossy());
        Problem::new(Exit::Failure, message, "give the path of a program after --").into()
    })
}

fn wait(plan: &Plan, collector: &Collector, end: &mut End, interrupts: &AtomicU32, quiet: bool) -> Result<()> {
    let begin = Instant::now();
    let progress = !quiet && std::io::stderr().is_terminal();
    let mut shown = begin;
    loop {
        let left = plan.duration.map_or(TICK, |duration| duration.saturating_sub(begin.elapsed()));
        let over = match end {
            _ if left.is_zero() || interrupts.load(Ordering::Relaxed) > 0 => true,
            End::Never => false,
            End::Command(child) => child.try_wait()?.is_some(),
            End::Processes(pids) => {
                pids.retain(|&pid| target::exists(pid));
                pids.is_empty()
            }
        };
        if over {
            break;
        }
        if progress && shown.elapsed() >= Duration::from_millis(500) {
            shown = Instant::now();
            summary::progress(begin.elapsed(), plan.duration, collector.stats()?.samples);
        }
        std::thread::sleep(left.min(TICK));
    }
    if progress {
        summary::clear_progress();
    }
    Ok(())
}

/// The first Ctrl-C (or SIGTERM) ends the recording, the second quits.
fn count_interrupts() -> Result<Arc<AtomicU32>> {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    // Listened for from here on, not only when the thread has begun.
    let mut interrupt = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if counted.fetch_add(1, Ordering::Relaxed) > 0 {
                    eprintln!("stopped; nothing was written");
                    std::process::exit(130);
                }
            }
        });
    })?;
    Ok(count)
}
