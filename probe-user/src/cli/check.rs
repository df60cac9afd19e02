//! `probe check`: tells line by line what this host allows, and what to do about what it lacks; with `-p` the same of processes.
//! Looks; changes nothing.

mod process;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use process::Checked;
use serde::Serialize;

use super::pids::Pids;
use super::readers;
use crate::kernel::host::Host;
use crate::kernel::host::verdict::{self, Line, Status};
use crate::problem::Exit;
use crate::target::Modules;

/// Flags of `probe check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also look at these processes: with commas between them, or as pgrep prints them
    #[arg(short, long, value_name = "PIDS")]
    pid: Vec<Pids>,
    /// Print a JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    can_record: bool,
    checks: &'a [Line],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    processes: &'a [Checked],
}

/// Runs `probe check`.
pub fn run(args: &Args) -> Result<ExitCode> {
    if !args.pid.is_empty() {
        readers::start();
    }
    let lines = verdict::judge(&Host::inspect());
    let mut modules = Modules::default();
    let processes: Vec<Checked> = Pids::all(&args.pid).into_iter().map(|pid| Checked::of(pid, &mut modules)).collect();
    let can_record = verdict::can_record(&lines) && processes.iter().all(|of| verdict::can_record(&of.checks));
    let text = if args.json {
        serde_json::to_string_pretty(&Report { can_record, checks: &lines, processes: &processes })? + "\n"
    } else {
        processes.iter().fold(render(&lines), |text, of| text + &render_process(of))
    };
    super::print(&text)?;
    Ok(if can_record { ExitCode::SUCCESS } else { ExitCode::from(Exit::NotPermitted as u8) })
}

/// The lines for people, and the sum of it at the end.
fn render(lines: &[Line]) -> String {
    let failed: Vec<_> = lines.iter().filter(|line| line.status == Status::Fail).map(|line| line.name).collect();
    let sum = match failed.as_slice() {
        [] => "Recording works on this host.".to_owned(),
        failed => format!("Recording cannot work on this host, because of: {}.", failed.join(", ")),
    };
    format!("{}\n{sum}\n", render_lines(lines))
}

fn render_process(Checked { pid, name, checks }: &Checked) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
    format!("\nprocess {pid}{name}\n{}", render_lines(checks))
}

/// Status, name and what was found, below it what to do, said once.
fn render_lines(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut say = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).and_then(|()| text.write_char('\n')).expect("a string takes all that is written to it");
    };
    for (at, Line { name, status, detail, hint }) in lines.iter().enumerate() {
        let status = match status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        say(format_args!("{status:<4}  {name:<width$}  {detail}"));
        if let Some(first) = lines[..at].iter().find(|line| line.hint == *hint && is_long(hint)) {
            say(format_args!("{:<4}  {:<width$}  hint: as for {}", "", "", first.name));
        } else if !hint.is_empty() {
            say(format_args!("{:<4}  {:<width$}  hint: {hint}", "", ""));
        }
    }
    text
}

/// Hints that only point at another line are short enough to be repeated.
fn is_long(hint: &str) -> bool {
    !hint.is_empty() && !hint.starts_with("see ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &'static str, status: Status, hint: &'static str) -> Line {
        Line { name, status, detail: "what was found".to_owned(), hint }
    }

    #[test]
    fn lines_are_aligned_and_hints_stand_below_what_needs_them() {
        let text = render(&[line("BPF", Status::Ok, ""), line("perf events", Status::Fail, "run as root")]);
        let expected = "ok    BPF          what was found\n\
                        FAIL  perf events  what was found\n\
                        \u{20}                  hint: run as root\n\
                        \n\
                        Recording cannot work on this host, because of: perf events.\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_hint_that_was_given_is_not_repeated() {
        let text = render(&[line("BPF", Status::Fail, "run as root"), line("CAP_BPF", Status::Fail, "run as root")]);
        assert!(text.contains("hint: run as root\n") && text.contains("hint: as for BPF\n"), "{text}");
    }

    #[test]
    fn json_names_each_check_and_leaves_out_empty_hints() {
        let checks = [line("BPF", Status::Ok, ""), line("tracefs", Status::Warn, "mount it")];
        let json = serde_json::to_value(Report { can_record: true, checks: &checks, processes: &[] }).unwrap();
        assert_eq!(json["checks"][1]["status"], "warn");
        assert_eq!(json["checks"][1]["hint"], "mount it");
        assert!(json["checks"][0].get("hint").is_none());
    }
}
