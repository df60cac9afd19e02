//! `probe snapshots`: what is in the store. One file per command.

mod get;
mod ls;
mod rm;

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Result;

use super::config::Place;

use crate::snapshot::{Damaged, Query, Store};
pub(super) use get::{EventName, WindowName, stored_profile};

/// Flags of `probe snapshots`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the snapshots, newest first
    Ls(ls::Args),
    /// Show a snapshot, or write one of its profiles to a file
    Get(get::Args),
    /// Remove snapshots: some by their ids, or all that a filter finds
    Rm(rm::Args),
}

/// Which snapshots.
#[derive(Clone, Debug, Default, clap::Args)]
struct Filter {
    /// Of this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Of this rule
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Breached then or later: a time such as 2026-03-01T12:30:00Z or 2026-03-01 (UTC), or how long ago: 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<SystemTime>,
    /// Breached before then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<SystemTime>,
}

impl Filter {
    fn query(self) -> Query {
        let Self { target, rule, since, until } = self;
        Query { target, rule, since, until, ..Query::default() }
    }
}

/// Runs `probe snapshots`.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Ls(args) => ls::run(args)?,
        Command::Get(args) => get::run(args)?,
        Command::Rm(args) => rm::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A time in UTC, with or without a time of day, or how long ago.
fn parse_time(text: &str) -> Result<SystemTime, String> {
    let midnight = format!("{text}T00:00:00Z");
    let time = humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&midnight));
    if let Ok(time) = time {
        return Ok(time);
    }
    let ago = super::parse_duration(text).ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    ago.ok_or_else(|| "a time such as 2026-03-01T12:30:00Z or 2026-03-01, or how long ago: 2h, 7d".into())
}

/// Damaged snapshots that are named; of more there is only the number.
const NAMED: usize = 10;

/// Says what is wrong with the store.
fn warn_of(store: &Store, damaged: &[Damaged]) {
    for Damaged { path, reason, .. } in damaged.iter().take(NAMED) {
        let (path, reason) = (path.display(), crate::text::sanitize(reason));
        tracing::warn!("{path} is damaged and not listed: {reason}");
    }
    if damaged.len() > NAMED {
        tracing::warn!("{} more in {} are damaged", damaged.len() - NAMED, store.path().display());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_are_dates_or_how_long_ago() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        for text in ["2026-03-01T12:00:00Z", "2026-03-01 12:00:00", "2026-03-01T12:00:00"] {
            assert_eq!(parse_time(text), Ok(noon), "{text}");
        }
        assert_eq!(parse_time("2026-03-01"), Ok(noon - Duration::from_secs(12 * 3600)));
        let ago = parse_time("2h").expect("a time").elapsed().expect("past").as_secs();
        assert!((7200..7260).contains(&ago), "{ago}");
        for text in ["", "soon", "2026-13-01", "12:00", "-5"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
