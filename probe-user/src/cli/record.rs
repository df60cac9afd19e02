//! `probe record`.

use std::process::ExitCode;

use anyhow::Result;

/// Flags of `probe record`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `probe record`.
pub fn run(_args: Args) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}
