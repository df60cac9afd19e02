//! `probe record`: sample targets for a while, then write a profile.

mod command;
mod flags;
mod gate;
mod output;
mod plan;
mod resident;
mod run;
mod signals;
mod summary;

pub use flags::Args;
pub(super) use output::Output;
pub(super) use signals::Signals;

use std::process::ExitCode;

use anyhow::Result;

use super::Descriptors;

/// Runs `probe record`.
pub fn run(args: Args, quiet: bool) -> Result<ExitCode> {
    let plan = plan::plan(args)?;
    run::run(&plan, Descriptors::raise(), quiet)
}
