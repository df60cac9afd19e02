//! The command line: flags in, one room's work out. One file per command.

mod alert;
mod check;
mod columns;
mod config;
mod daemon;
mod descriptors;
mod dump;
mod folders;
mod foreign;
mod http;
mod latency;
mod log;
mod pids;
mod process;
mod readers;
mod record;
mod serve;
mod snapshots;
mod targets;
mod view;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::probes;
use crate::problem::{Exit, Problem};
use descriptors::Descriptors;
use log::Verbosity;

/// How long a process that ends waits until its probes are gone.
const LEAVING: Duration = Duration::from_secs(5);

/// Profiles running programs from the kernel, without touching them.
#[derive(Debug, Parser)]
#[command(name = "probe", version, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    /// Say more: -v progress and decisions, -vv also what the kernel programs log
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    /// Say only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Colours: when stderr is a terminal, always or never (NO_COLOR is honoured)
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sample targets for a while and write a profile
    Record(record::Args),
    /// Time functions: counts, percentiles, calls in flight
    Latency(latency::Args),
    /// Print every thread's stack, now, without pausing the process
    Dump(dump::Args),
    /// Watch services by rules; keep the scene when one breaks
    Daemon(daemon::Args),
    /// Answer and tell of what the collector has seen: the daemon's process with the network, by itself
    Serve(serve::Args),
    /// List, read and remove stored snapshots
    Snapshots(snapshots::Args),
    /// Open a snapshot or a saved profile in the browser
    View(view::Args),
    /// Tell what this host allows, and what to do about what it lacks
    Check(check::Args),
    /// Try a channel of alerts
    Alert(alert::Args),
    /// Check or show the configuration
    Config(config::Args),
}

/// Runs the command that the process's arguments ask for. Errors are printed here, and only here.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let color = match cli.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => Verbosity::is_colorful(),
    };
    let verbosity = Verbosity { verbose: cli.verbose, quiet: cli.quiet, color };
    // Those read in their configuration how to do it.
    if !matches!(cli.command, Command::Daemon(_) | Command::Serve(_)) {
        verbosity.start();
    }
    let done: Result<ExitCode> = match cli.command {
        Command::Record(args) => record::run(args, cli.quiet),
        Command::Latency(args) => latency::run(&args, cli.quiet),
        Command::Dump(args) => dump::run(&args),
        Command::Daemon(args) => daemon::run(args, verbosity),
        Command::Serve(args) => serve::run(&args, verbosity),
        Command::Snapshots(args) => snapshots::run(args),
        Command::View(args) => view::run(args),
        Command::Check(args) => check::run(&args),
        Command::Alert(args) => alert::run(args),
        Command::Config(args) => config::run(args),
    };
    let exit = done.unwrap_or_else(|error| {
        // As a context, or as a cause.
        let problem = error.downcast_ref::<Problem>();
        let problem = problem.or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<Problem>()));
        let (red, reset) = if color { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        tell(&format!("{red}error:{reset} {}", sentence(&error)));
        if let Some(hint) = problem.map(|p| p.hint.as_str()).filter(|hint| !hint.is_empty()) {
            tell(&format!("hint: {hint}"));
        }
        ExitCode::from(problem.map_or(Exit::Failure, |p| p.exit) as u8)
    });
    if !probes::settle(LEAVING) {
        tell("warning: some probes were not removed within 5 seconds; they cost time until the kernel removes them");
    }
    exit
}

/// `30s`, `5m`, `1h30m`, or a bare number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

/// Nobody waits longer for what is recorded or counted.
const MAX_LENGTH: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long to look at something.
fn parse_length(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be greater than zero".into()),
        length if length > MAX_LENGTH => Err("must be at most a year".into()),
        length => Ok(length),
    }
}

/// A budget in percent of one core.
fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if percent > 0.0 && percent <= 10_000.0 => Ok(percent),
        _ => Err("a number of percent above 0".into()),
    }
}

/// An error with its causes. Some libraries repeat in an error's text what its cause says, some causes repeat each other:
/// everything is said once.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    let mut parts: Vec<&str> = text.split(": ").collect();
    parts.dedup();
    parts.join(": ")
}

/// Says something to people, on stderr. If nobody can hear it (the terminal is gone), the work goes on.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes text for scripts and people to stdout. A reader that has seen enough is no error.
fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes data to stdout. A reader that has seen enough is no error.
fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Problem::new(
            Exit::Failure,
            format!("cannot write to stdout: {error}"),
            "make room where it goes, or send it elsewhere",
        )
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_are_numbers_or_have_units() {
        assert_eq!(parse_length("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_length("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_length("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["0", "-3", "soon", "", "nan", "inf", "1e18", "1e300", "2years"] {
            assert!(parse_length(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn causes_are_said_once() {
        let cause = anyhow::anyhow!("not permitted");
        let error = cause.context("map error: cannot make X: cannot make X: not permitted").context("cannot load");
        assert_eq!(sentence(&error), "cannot load: map error: cannot make X: not permitted");
    }
}
