//! Calls are counted as they were: of functions that are called too often to be probed all the time, of threads that end in a
//! call, of programs that become others, and of loops that jump to a function's first instruction.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{probe, workload};
use serde_json::Value;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("counts::paced_calls_and_loops_are_counted_as_they_count_themselves", counted),
        trial("counts::calls_that_end_with_their_thread_have_ended", threads_end),
        trial("counts::calls_of_a_program_that_became_another_have_ended", programs_change),
        trial("counts::a_jump_to_the_first_instruction_is_no_call", loops),
    ]
}

/// How long is measured.
const LENGTH: Duration = Duration::from_secs(3);

fn number(row: &Value, name: &str) -> Result<f64> {
    row[name].as_f64().with_context(|| format!("no {name} in {row:#}"))
}

/// A function of a program: libraries may have one of that name.
fn in_program(program: &Path, function: &str) -> String {
    format!("{}:{function}", program.file_name().unwrap_or_default().to_string_lossy())
}

/// How many calls there were, and when, by the program's own count.
fn truth(file: &Path) -> Result<(f64, f64)> {
    let text = fs::read_to_string(file)?;
    let mut words = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || words.next().context("no count")?.context("no number");
    Ok((next()?, next()?))
}

/// The row of a function, and how often a second it was called meanwhile by the program's own count.
fn compare(words: &[&str]) -> Result<(Value, f64)> {
    let (program, folder) = (workload::c("counts.c", &["-O2", "-pthread"])?, workload::scratch()?);
    let file = folder.path().join("count");
    let target = Running::ready(Command::new(&program).arg(&file).args(words))?;
    let (pid, name) = (target.pid().to_string(), in_program(&program, "step"));
    let mut command = Command::new(probe::binary());
    command.args(["latency", "--json", "-p", &pid, &name, "-d", &LENGTH.as_secs().to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(child.stderr.take().context("piped")?);
    // It says so when all probes are set.
    let mut line = String::new();
    said.read_line(&mut line)?;
    ensure!(line.starts_with("timing"), "{line}");
    let before = truth(&file)?;
    std::thread::sleep(LENGTH);
    let after = truth(&file)?;
    let mut rows = String::new();
    child.stdout.take().context("piped")?.read_to_string(&mut rows)?;
    child.wait()?;
    let rows: Value = serde_json::from_str(&rows)?;
    Ok((rows[0].clone(), 1e9 * (after.0 - before.0) / (after.1 - before.1)))
}

/// Where others keep the machine busy, intervals are wider, and may be open; they have the truth in them all the same.
fn counted() -> Result<()> {
    for words in [["pace", "1000", "1"], ["pace", "5000", "2"], ["loop", "2000", "1"], ["loop", "0", "1"]] {
        let (row, truth) = compare(&words)?;
        let low = number(&row, "rate_low")?;
        ensure!(low <= 1.1 * truth, "{words:?}: {truth} calls a second, no more: {row:#}");
        if let Some(high) = row["rate_high"].as_f64() {
            ensure!(high >= 0.9 * truth, "{words:?}: {truth} calls a second, no less: {row:#}");
        }
        let rate = number(&row, "rate")?;
        ensure!(rate >= low && row["rate_high"].as_f64().is_none_or(|high| rate <= high), "{row:#}");
        if number(&row, "attached_share")? > 0.995 {
            ensure!((rate / truth - 1.0).abs() < 0.1, "{words:?}: all were seen of {truth} a second: {row:#}");
        }
    }
    Ok(())
}

fn row(role: &str, function: &str) -> Result<Value> {
    let program = workload::c("ends.c", &["-O2", "-pthread"])?;
    let target = Running::ready(Command::new(&program).arg(role))?;
    let name = in_program(&program, function);
    let output = probe::run(["latency", "--json", "-d", "3", "-p", &target.pid().to_string(), &name])?.expect(0)?;
    Ok(output.json()?[0].clone())
}

fn threads_end() -> Result<()> {
    let row = row("", "last_words")?;
    let (calls, ended) = (number(&row, "calls")?, number(&row, "thread_ended")?);
    ensure!(calls >= 20.0 && ended >= 0.9 * calls && ended <= calls, "pthread_exit and pthread_cancel: {row:#}");
    ensure!(number(&row, "in_flight")? <= 1.0 && number(&row, "left")? == 0.0, "one thread at a time: {row:#}");
    Ok(())
}

fn programs_change() -> Result<()> {
    let row = row("exec", "replaces")?;
    ensure!(number(&row, "in_flight")? <= 1.0, "each program is in one call at most: {row:#}");
    Ok(())
}

fn loops() -> Result<()> {
    let row = row("loops", "loops")?;
    // Once in two milliseconds or more; its loop goes around ten times.
    ensure!(number(&row, "left")? == 0.0 && number(&row, "rate")? < 600.0, "{row:#}");
    ensure!(number(&row, "calls")? > 50.0, "{row:#}");
    Ok(())
}
