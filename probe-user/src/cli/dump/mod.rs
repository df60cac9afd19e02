//! `probe dump`: every thread's stack, now, without pausing the process.

mod json;
mod text;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};

use super::pids::Pids;
use super::{Descriptors, print, print_bytes, readers, targets, tell};
use crate::export;
use crate::kernel::{self, WaitFilter};
use crate::problem::{Exit, Problem};
use crate::record::{Collector, Dump, DumpedThread, Events, Options, Retention};
use crate::symbolize::{Profile, Symbolizer};

/// The stacks of running threads come from a sampler: they are at most 5 ms old.
const FREQUENCY: u64 = 199;
/// How long a dump waits for a sample of a thread that runs: some periods.
const PATIENCE: Duration = Duration::from_millis(25);
/// Bound on samples and stacks: a second of many busy CPUs.
const MEMORY: usize = 256 << 20;
/// Samples are kept for as long as one may be needed.
const WINDOW_NS: u64 = 2_000_000_000;
/// Bound on unwind tables in the kernel, as for a recording.
const UNWIND_MEMORY: usize = 256 << 20;
/// How long the tables of the process may take.
const TABLES: Duration = Duration::from_secs(2);
/// Nobody waits longer to see what is now.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// Flags of `probe dump`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  probe dump -p 1234                    all threads; identical stacks are shown once
  probe dump -p $(pgrep -d, nginx)      of several processes
  probe dump -p 1234 --top 5            the busiest five
  probe dump -p 1234 -f folded          for flamegraph tools; the value counts threads")]
pub struct Args {
    /// The processes, with commas between them or as pgrep prints them
    #[arg(short, long, value_name = "PIDS", required = true)]
    pid: Vec<Pids>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The same as -f json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only the N threads that used most CPU time
    #[arg(short = 'T', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Measure the threads' CPU share for this long before the dump; 0s does without, and dumps at once
    #[arg(short, long, default_value = "1s", value_name = "TIME", value_parser = parse_duration)]
    duration: Duration,
    /// Folded: a frame per thread
    #[arg(short, long)]
    threads: bool,
    /// Folded: a frame for what the thread does
    #[arg(long)]
    states: bool,
    /// User stacks only
    #[arg(short = 'U', long, conflicts_with = "kernel_only")]
    user_only: bool,
    /// Kernel stacks only
    #[arg(short = 'K', long)]
    kernel_only: bool,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people: threads with identical stacks together, the busiest first
    Text,
    /// Everything, for scripts
    Json,
    /// One line per distinct stack and the number of its threads
    Folded,
}

/// A dump with names, ready to be shown.
struct Shown {
    profile: Profile,
    /// In the order of the profile's samples.
    threads: Vec<ShownThread>,
    at: SystemTime,
}

/// A thread and its share of one CPU in percent, where that was measured.
struct ShownThread {
    thread: DumpedThread,
    cpu_percent: Option<f64>,
}

/// Runs `probe dump`.
pub fn run(args: &Args) -> Result<ExitCode> {
    readers::start();
    // Every library of the process is kept open.
    let _descriptors = Descriptors::raise();
    let pids = Pids::all(&args.pid);
    targets::check(&pids)?;
    let mut all = take(args, &pids)?;
    for (pid, _) in pids.iter().zip(&all).filter(|(_, shown)| shown.threads.is_empty()) {
        let ended = format!("process {pid} has ended while it was looked at");
        if all.iter().all(|shown| shown.threads.is_empty()) {
            bail!(Problem::new(Exit::NoTarget, ended, "`pgrep -a NAME` finds processes by name"));
        }
        tell(&ended);
    }
    all.retain(|shown| !shown.threads.is_empty());
    keep_top(&mut all, args.top);
    match if args.json { Format::Json } else { args.format } {
        Format::Text => print(&all.iter().map(text::render).collect::<Vec<_>>().join("\n"))?,
        Format::Json => {
            // Of several processes they are a list.
            let text = match all.as_slice() {
                [one] if pids.len() == 1 => serde_json::to_string_pretty(&json::render(one))?,
                all => serde_json::to_string_pretty(&all.iter().map(json::render).collect::<Vec<_>>())?,
            };
            print(&format!("{text}\n"))?;
        }
        Format::Folded => {
            let options = export::Options { threads: args.threads, states: args.states, ..export::Options::default() };
            let mut bytes = Vec::new();
            for shown in &all {
                export::write(&shown.profile, export::Format::Folded, &options, &mut bytes)?;
            }
            print_bytes(&bytes)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The dumps of these processes, in their order. They are taken one right after the other.
fn take(args: &Args, pids: &[u32]) -> Result<Vec<Shown>> {
    let collector = Collector::start(&Options {
        kernel: kernel::Options {
            frequency: FREQUENCY,
            fast_frequency: 0,
            all: false,
            newcomers: false,
            origins: false,
            user_stacks: !args.kernel_only,
            kernel_stacks: !args.user_only,
            waits: WaitFilter::default(),
            faults: 0,
            functions: 0,
            heap: kernel::HeapOptions::default(),
        },
        events: Events { cpu: true, ..Events::default() },
        mappings: false,
        retention: Retention { window_ns: WINDOW_NS, memory: MEMORY },
        unwind_memory: UNWIND_MEMORY,
    })?;
    let begin = Instant::now();
    let mut before = HashMap::new();
    for &pid in pids {
        before.extend(collector.cpu_times(pid)?);
        collector.watch(pid, None, 0)?;
    }
    collector.wait_for_tables(TABLES)?;
    std::thread::sleep(args.duration.saturating_sub(begin.elapsed()));
    let mut dumps = Vec::with_capacity(pids.len());
    for &pid in pids {
        let elapsed = begin.elapsed();
        let dump = collector.dump(pid, PATIENCE)?;
        tracing::debug!(took = ?begin.elapsed().saturating_sub(elapsed), threads = dump.threads.len(), "dumped");
        dumps.push((dump, elapsed, SystemTime::now()));
    }
    drop(collector);
    let symbolizer = Symbolizer::new();
    let shown = dumps.into_iter().map(|(Dump { mut recording, threads }, elapsed, at)| {
        for wait in &mut recording.waits {
            wait.user = wait.user.filter(|_| !args.kernel_only);
            wait.kernel = wait.kernel.filter(|_| !args.user_only);
        }
        let measured = (!args.duration.is_zero()).then_some(elapsed);
        let share = |thread| ShownThread { cpu_percent: cpu_percent(&thread, &before, measured), thread };
        let threads = threads.into_iter().map(share).collect();
        Shown { profile: symbolizer.symbolize(&recording), threads, at }
    });
    Ok(shown.collect())
}

/// Leaves only the busiest threads of all processes, those of each the busiest first.
fn keep_top(all: &mut [Shown], top: Option<u32>) {
    let Some(top) = top else { return };
    let busy = all.iter().enumerate().flat_map(|(at, shown)| shown.threads.iter().map(move |of| (at, of.busy())));
    let mut busy: Vec<(usize, f64)> = busy.collect();
    busy.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    busy.truncate(top as usize);
    for (at, shown) in all.iter_mut().enumerate() {
        shown.keep_top(busy.iter().filter(|(of, _)| *of == at).count());
    }
}

/// Share of one CPU in percent; a thread that is new has used all of its time since.
fn cpu_percent(thread: &DumpedThread, before: &HashMap<u32, u64>, measured: Option<Duration>) -> Option<f64> {
    let used_ns = thread.cpu_ns.saturating_sub(before.get(&thread.tid).copied().unwrap_or(0));
    Some((1000.0 * used_ns as f64 / measured?.as_nanos() as f64).round() / 10.0)
}

impl Shown {
    /// Leaves only the busiest threads, the busiest first.
    fn keep_top(&mut self, top: usize) {
        let mut order: Vec<usize> = (0..self.threads.len()).collect();
        order.sort_by(|&a, &b| self.threads[b].busy().total_cmp(&self.threads[a].busy()));
        order.truncate(top);
        self.profile.samples = order.iter().map(|&index| self.profile.samples[index]).collect();
        let mut threads: Vec<_> = std::mem::take(&mut self.threads).into_iter().map(Some).collect();
        self.threads = order.iter().filter_map(|&index| threads[index].take()).collect();
    }
}

impl ShownThread {
    /// What threads are ordered by: their share, or without one what they have used in their life.
    fn busy(&self) -> f64 {
        self.cpu_percent.unwrap_or(self.thread.cpu_ns as f64)
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = super::parse_duration(text)?;
    if duration > MAX_DURATION { Err("must be at most a minute".into()) } else { Ok(duration) }
}
