//! The flags of `probe record`, each by itself; what they mean together is a plan.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::pids::Pids;
use crate::config::parse_size;
use crate::export::Format;

/// Frequencies beyond this cost more than they show.
const MAX_FREQUENCY: u64 = 10_000;

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
    /// Processes to sample, with their children: with commas between them, or as pgrep prints them
    #[arg(short, long, value_name = "PIDS", num_args = 1)]
    pub(super) pid: Vec<Pids>,
    /// Sample every process of the host
    #[arg(short, long, conflicts_with_all = ["pid", "command"])]
    pub(super) all: bool,
    /// Samples per second and CPU
    #[arg(short = 'F', long, visible_alias = "rate", default_value_t = 99, value_name = "HZ",
          value_parser = clap::value_parser!(u64).range(1..=MAX_FREQUENCY))]
    pub(super) frequency: u64,
    /// How long: 30s, 5m, or a number of seconds; until Ctrl-C or the end of the targets by default
    #[arg(short, long, value_parser = crate::cli::parse_length, value_name = "TIME")]
    pub(super) duration: Option<Duration>,
    /// What to record: one of these, or several of the first three with commas between them
    ///
    /// cpu         which code runs on the CPUs
    /// off-cpu     where threads wait, and for how long
    /// page-fault  where memory grows: what page faults make resident, and
    ///             what is mapped
    /// malloc      where memory is allocated: by malloc, C++'s new and the like
    /// alloc       the same in the cheapest way that each process has: by the
    ///             samples that its allocator publishes (static tracepoints
    ///             otel_memory:alloc and otel_memory:free), else as malloc
    #[arg(short, long, default_value = "cpu", value_parser = parse_event, value_delimiter = ',', verbatim_doc_comment)]
    pub(super) event: Vec<Event>,
    /// off-cpu: leave shorter waits out, such as 100us
    #[arg(long, value_parser = parse_wait, value_name = "TIME")]
    pub(super) min_wait: Option<Duration>,
    /// off-cpu: leave longer waits out
    #[arg(long, value_parser = parse_wait, value_name = "TIME")]
    pub(super) max_wait: Option<Duration>,
    /// off-cpu: show who ended each wait; its stack stands on the waiting thread's, turned round
    #[arg(long)]
    pub(super) wakers: bool,
    /// malloc: what is not freed until the end, in bytes in use, instead of all that is allocated
    #[arg(long)]
    pub(super) live: bool,
    /// malloc --live: only what has been in use for at least this long, such as 30s
    #[arg(long, value_parser = parse_wait, value_name = "TIME", requires = "live")]
    pub(super) older_than: Option<Duration>,
    /// malloc: one sample in so many allocated bytes, on average [default: 512KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_sample_bytes)]
    pub(super) sample_bytes: Option<u64>,
    /// malloc: what the probes may cost each process, in percent of one core; where they would cost more, they are set
    /// for a part of the time, and what they see is scaled up [default: 5]
    #[arg(long, value_name = "PERCENT", value_parser = crate::cli::parse_percent)]
    pub(super) max_overhead: Option<f64>,
    /// File to write, `-` for stdout [default: profile.html, or profile with the ending of --format]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Format of the file; by its ending when not given
    #[arg(short, long, value_enum)]
    pub(super) format: Option<Format>,
    /// A frame per thread
    #[arg(short, long)]
    pub(super) threads: bool,
    /// A frame for what the thread did: running, runnable, sleeping, uninterruptible, …
    #[arg(long)]
    pub(super) states: bool,
    /// User stacks only
    #[arg(short = 'U', long, conflicts_with = "kernel_only")]
    pub(super) user_only: bool,
    /// Kernel stacks only; samples taken in user mode are left out
    #[arg(short = 'K', long)]
    pub(super) kernel_only: bool,
    /// A command to run and sample from its first instruction to its end; it is ended by SIGTERM when the recording ends
    /// before it, by -d or Ctrl-C. With `-o -` it writes to stderr
    #[arg(last = true, value_name = "CMD", conflicts_with = "pid")]
    pub(super) command: Vec<OsString>,
}

/// What can be sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// On which code CPU time is spent
    Cpu,
    /// Where threads wait
    OffCpu,
    /// Where memory grows
    PageFault,
    /// Where memory is allocated
    Malloc,
    /// The same in the cheapest way
    Alloc,
}

/// A time with a unit; a bare number could be anything from seconds to nanoseconds.
fn parse_wait(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}, as in 100us or 5ms"))
}

/// A size as in the configuration: 65536, 64KiB, 1MB.
fn parse_sample_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    if (1..1 << 32).contains(&bytes) { Ok(bytes) } else { Err("must be greater than zero and less than 4 GiB".into()) }
}

fn parse_event(text: &str) -> Result<Event, String> {
    match text {
        "cpu" => Ok(Event::Cpu),
        "off-cpu" => Ok(Event::OffCpu),
        "page-fault" => Ok(Event::PageFault),
        "malloc" => Ok(Event::Malloc),
        "alloc" => Ok(Event::Alloc),
        _ => Err("no such event; there are `cpu`, `off-cpu`, `page-fault`, `malloc` and `alloc`".into()),
    }
}
