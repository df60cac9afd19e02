//! `probe daemon`.

use std::process::ExitCode;

use anyhow::Result;

/// Flags of `probe daemon`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `probe daemon`.
pub fn run(_args: Args) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}
