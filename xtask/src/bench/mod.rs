//! `cargo xtask bench`: what `probe` costs, next to its peers, measured in the same run on the same workload. Numbers
//! are only comparable within a run.

mod footprint;
mod procfs;
mod recording;
mod sampler;
mod stacks;
mod statistics;
mod tools;
mod unwind;
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
}

/// Runs `cargo xtask bench`.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Sampler(args) => sampler::run(args),
        What::Unwind(args) => unwind::run(args),
    }
}
