//! `probe check`: tells line by line what this host allows, and what to do about what it lacks. Looks; changes nothing.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::kernel::host::Host;
use crate::kernel::host::verdict::{self, Line, Status};
use crate::problem::Exit;

/// Flags of `probe check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    can_record: bool,
    checks: &'a [Line],
}

/// Runs `probe check`.
pub fn run(args: Args) -> Result<ExitCode> {
    let lines = verdict::judge(&Host::inspect());
    let can_record = verdict::can_record(&lines);
    let text = if args.json {
        serde_json::to_string_pretty(&Report { can_record, checks: &lines })? + "\n"
    } else {
        render(&lines)
    };
    super::print(&text)?;
    Ok(if can_record { ExitCode::SUCCESS } else { ExitCode::from(Exit::NotPermitted as u8) })
}

/// The lines for people: status, name and what was found, below it what to do, said once, and the sum of it at the end.
fn render(lines: &[Line]) -> String {
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
    let failed: Vec<_> = lines.iter().filter(|line| line.status == Status::Fail).map(|line| line.name).collect();
    if failed.is_empty() {
        say(format_args!("\nRecording works on this host."));
    } else {
        say(format_args!("\nRecording cannot work on this host, because of: {}.", failed.join(", ")));
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
        let json = serde_json::to_value(Report { can_record: true, checks: &checks }).unwrap();
        assert_eq!(json["checks"][1]["status"], "warn");
        assert_eq!(json["checks"][1]["hint"], "mount it");
        assert!(json["checks"][0].get("hint").is_none());
    }
}
