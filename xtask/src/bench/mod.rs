//! `cargo xtask bench`: what `probe` costs, next to its peers, measured in the same run on the same workload. Numbers
//! are only comparable within a run.

mod daemon;
mod derive;
mod dump;
mod floods;
mod footprint;
mod forms;
mod governor;
mod off_cpu;
mod procfs;
mod recording;
mod sampler;
mod stacks;
mod statistics;
mod tools;
mod unwind;
mod viewer;
mod workload;

use anyhow::Result;
use clap::Subcommand;

/// Flags of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Nanoseconds per sample by the kernel's own statistics, next to profile-bee and bpftrace; CPU and memory of probe
    Sampler(sampler::Args),
    /// Stacks of code without frame pointers: how many are whole and what they cost, next to profile-bee and perf; the
    /// speed of building tables and of attaching
    Unwind(unwind::Args),
    /// Which forms the unwind tables of this machine's programs and libraries have, and how many rows cannot be followed
    Forms(forms::Args),
    /// Unwind rows that are derived from code: how they compare with tables where there are some, and how much of the code
    /// without tables they cover
    Derive,
    /// Waits at 100,000 context switches a second and as many as possible: what one costs, and whether all are counted,
    /// next to offcputime and bpftrace
    OffCpu(off_cpu::Args),
    /// Thread dumps of a process with 1,000 threads: how long they take, and how long they hold the process up, next to gdb
    /// and eu-stack
    Dump(dump::Args),
    /// Timed functions that are called millions of times a second: by how much the program slows down, next to funclatency
    /// and bpftrace; and whether every call is counted where it is not
    Governor(governor::Args),
    /// The daemon on a host of 500 processes with 5,000 threads, 20 rules and 50 functions: processor time, memory, and how
    /// long a snapshot takes
    Daemon(daemon::Args),
    /// Programs that start, replace and map things all the time: what probe takes meanwhile, next to perf and execsnoop
    Floods(floods::Args),
    /// A profile of 200,000 nodes in the viewer: how fast it opens, and how smoothly it is panned and zoomed, next to
    /// speedscope
    Viewer(viewer::Args),
}

/// Runs `cargo xtask bench`.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Sampler(args) => sampler::run(args),
        What::Unwind(args) => unwind::run(args),
        What::Forms(args) => forms::run(args),
        What::Derive => derive::run(),
        What::OffCpu(args) => off_cpu::run(args),
        What::Dump(args) => dump::run(args),
        What::Governor(args) => governor::run(args),
        What::Daemon(args) => daemon::run(args),
        What::Floods(args) => floods::run(args),
        What::Viewer(args) => viewer::run(args),
    }
}
