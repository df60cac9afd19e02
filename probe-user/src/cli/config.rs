//! `probe config`.

use std::process::ExitCode;

use anyhow::Result;

/// Flags of `probe config`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `probe config`.
pub fn run(_args: Args) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}
