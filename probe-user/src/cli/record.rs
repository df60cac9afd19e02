//! `probe record`.

use std::process::ExitCode;

use anyhow::Result;

/// Flags of `probe record`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short)]
    pid: u32,
}

/// Runs `probe record`.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut s = crate::kernel::Sampler::load(&crate::kernel::Options {
        frequency: 99,
        all: false,
        all_lifecycle: true,
        user_stacks: true,
        kernel_stacks: true,
    })?;
    s.watch(args.pid, 1)?;
    println!("{:?}", s.start(99)?);
    for _ in 0..20 {
        s.read(std::time::Duration::from_millis(100), |e| println!("{e:x?}"))?;
    }
    println!("{:?}", s.counters());
    Ok(ExitCode::SUCCESS)
}
