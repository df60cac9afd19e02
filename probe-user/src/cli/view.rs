//! `probe view`.

use std::process::ExitCode;

use anyhow::Result;

/// Flags of `probe view`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `probe view`.
pub fn run(_args: Args) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}
