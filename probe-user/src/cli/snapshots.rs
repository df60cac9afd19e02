//! `probe snapshots`.

use std::process::ExitCode;

use anyhow::Result;

/// Flags of `probe snapshots`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `probe snapshots`.
pub fn run(_args: Args) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}
