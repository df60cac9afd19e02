//! `probe check`.

use std::process::ExitCode;

use anyhow::Result;

/// Flags of `probe check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `probe check`.
pub fn run(_args: Args) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}
