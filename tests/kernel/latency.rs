//! Timed functions: counts, percentiles, errors, calls in flight, and targets that survive.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use libtest_mimic::Trial;
use probe_tests::code::Code;
use probe_tests::golang::{self, Go};
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, probe, workload};
use serde_json::Value;

use super::functions::PROBES;

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial("latency::percentiles_errors_and_attainment", known_times),
        trial("latency::recursion_and_jumps_leave_no_ghosts", recursion),
        trial("latency::a_call_that_does_not_return_is_in_flight", in_flight),
        trial("latency::what_is_called_too_often_is_looked_at_for_a_part_of_the_time", governed),
        trial("latency::exceptions_pass_through_timed_functions", exceptions),
        trial("latency::functions_that_end_in_others", tail_calls),
        trial("latency::spans_from_thread_to_thread", spans),
        trial("latency::static_tracepoints_are_counted_and_begin_spans", tracepoints),
        trial("latency::tracepoints_with_a_semaphore_are_switched_on", semaphores),
        trial("latency::rust_tasks", rust_tasks),
        trial("latency::slow_calls_and_what_their_threads_did_meanwhile", slow_calls),
        trial("latency::children_are_followed_and_added_up", family),
        trial("latency::a_process_whose_main_thread_has_ended", leader_ended),
        trial("latency::names_that_mean_nothing", unknown),
    ];
    tests.extend(golang::trials("latency::go_survives", survives));
    tests.extend(golang::trials("latency::goroutines_that_change_threads_grow_and_panic", goroutines));
    tests.extend(golang::trials("latency::slow_calls_of_goroutines_and_what_these_did_meanwhile", slow_goroutines));
    tests
}

fn calls(role: &str) -> Result<Running> {
    Running::ready(Command::new(workload::c("calls.c", &["-O2"])?).arg(role))
}

/// The figures of functions after some seconds.
fn latency(target: &Running, names: &[&str], more: &[&str]) -> Result<Vec<Value>> {
    let pid = target.pid().to_string();
    let time: &[&str] = if more.contains(&"-d") { &[] } else { &["-d", "4"] };
    let output = probe::run([&["latency", "--json", "-p", &pid], time, names, more].concat())?.expect(0)?;
    Ok(output.json()?.as_array().context("a list")?.clone())
}

fn number(row: &Value, name: &str) -> Result<f64> {
    row[name].as_f64().with_context(|| format!("no {name} in {row:#}"))
}

fn known_times() -> Result<()> {
    let target = calls("")?;
    let rows = latency(&target, &["sends"], &["-t", "10ms", "-e", "<0"])?;
    let row = &rows[0];
    let truth = target.truth("sends")?;
    truth.expect(row)?;
    truth.expect_attainment(row, Duration::from_millis(10), 0.9, 0.01)?;
    ensure!(number(row, "min_ns")? >= 2e6 && number(row, "max_ns")? >= 2e7, "{row:#}");
    let (calls, errors) = (number(row, "calls")?, number(row, "errors")?);
    ensure!(calls > 100.0 && (errors / calls - 0.2).abs() < 0.01, "{errors} errors in {calls} calls");
    // It is timed for four of the seconds that the program runs, in which no call is missed and none counted twice.
    let told = truth.calls();
    ensure!((0.4 * told..=told + 1.0).contains(&calls), "{calls} calls of {told}");
    ensure!(number(row, "attached_share")? > 0.97, "{row:#}");
    Ok(())
}

fn recursion() -> Result<()> {
    let target = calls("")?;
    let rows = latency(&target, &["recurs", "jumps"], &[])?;
    let [recurs, jumps] = &rows[..] else { anyhow::bail!("two functions: {rows:#?}") };
    ensure!(number(recurs, "calls")? >= 60.0, "six calls each time: {recurs:#}");
    // Each of them takes the millisecond of the innermost.
    target.truth("recurs")?.expect_nested(&target.truth("recurs_sleep")?, recurs)?;
    ensure!(number(recurs, "min_ns")? >= 1e6, "{recurs:#}");
    ensure!(number(recurs, "in_flight")? <= 6.0, "{recurs:#}");
    ensure!(number(jumps, "calls")? == 0.0 && number(jumps, "in_flight")? == 0.0, "{jumps:#}");
    let left: f64 = rows.iter().map(|row| number(row, "left")).sum::<Result<_>>()?;
    ensure!(left >= 30.0, "four calls are left each time: {rows:#?}");
    Ok(())
}

fn in_flight() -> Result<()> {
    let target = calls("stuck")?;
    let code = Code::of(target.pid(), &workload::c("calls.c", &["-O2"])?, "gets_stuck")?;
    let timing = std::thread::spawn({
        let pid = target.pid().to_string();
        move || probe::run(["latency", "--json", "-d", "4", "-p", &pid, "gets_stuck"])
    });
    poll::until("a probe in the target", PROBES, || code.is_probed().then_some(()))?;
    target.signal("USR1")?;
    let called = Instant::now();
    let output = timing.join().map_err(|_| anyhow!("probe latency was not run"))??.expect(0)?;
    let most = called.elapsed().as_secs_f64();
    let row = &output.json()?[0];
    ensure!(number(row, "calls")? == 0.0 && number(row, "in_flight")? == 1.0, "{row:#}");
    let oldest = number(row, "oldest_ns")? / 1e9;
    ensure!((0.5..most).contains(&oldest), "it has been going on for {oldest} s of {most}");
    Ok(())
}

fn governed() -> Result<()> {
    let rows = latency(&calls("busy")?, &["tiny"], &[])?;
    let share = number(&rows[0], "attached_share")?;
    ensure!(share > 0.0 && share < 0.9, "{:#}", rows[0]);
    ensure!(number(&rows[0], "calls")? > 0.0, "{:#}", rows[0]);
    Ok(())
}

fn exceptions() -> Result<()> {
    let mut target = Running::workload(&workload::cxx("throws.cpp", &["-O2"])?)?;
    let rows = latency(&target, &["descend", "main"], &[])?;
    let row = rows.iter().find(|row| row["name"].as_str().is_some_and(|name| name.contains("descend")));
    let row = row.with_context(|| format!("no descend in {rows:#?}"))?;
    // It never returns but by an exception.
    ensure!(number(row, "calls")? == 0.0 && number(row, "left")? > 100.0, "{row:#}");
    ensure!(target.is_alive(), "the target is gone");
    Ok(())
}

fn survives(go: Go) -> Result<()> {
    let mut target = Running::workload(&go.build("routines.go", &[])?)?;
    let rows = latency(&target, &["main.*"], &[])?;
    let calls: f64 = rows.iter().map(|row| number(row, "calls")).sum::<Result<_>>()?;
    ensure!(calls > 0.0, "{rows:#?}");
    ensure!(target.is_alive(), "the target is gone");
    Ok(())
}

fn tail_calls() -> Result<()> {
    let target = calls("")?;
    let rows = latency(&target, &["jumps_on", "jumps_anywhere", "naps"], &[])?;
    ensure!(rows.len() == 3, "{rows:#?}");
    for row in &rows {
        // The first call of each is not seen to end, because where it returns to is not known yet.
        ensure!(number(row, "calls")? >= 20.0 && number(row, "left")? == 0.0, "{row:#}");
        // Three milliseconds or more.
        target.truth("naps")?.expect(row)?;
        ensure!(number(row, "min_ns")? >= 3e6, "{row:#}");
    }
    Ok(())
}

/// A program in which a thread submits requests and another one completes them.
fn requests() -> Result<Running> {
    Running::workload(&workload::c("requests.c", &["-O2"])?)
}

fn is_span_of_requests(target: &Running, row: &Value) -> Result<()> {
    ensure!(number(row, "calls")? > 50.0, "{row:#}");
    let truth = target.truth("request")?;
    truth.expect(row)?;
    truth.expect_attainment(row, Duration::from_millis(20), 0.9, 0.04)?;
    let in_flight = number(row, "in_flight")?;
    // They are completed one after the other: where one was kept waiting, others are behind it.
    ensure!((1.0..=20.0).contains(&in_flight), "the first is never completed: {row:#}");
    ensure!(number(row, "oldest_ns")? > 2e9, "{row:#}");
    Ok(())
}

fn spans() -> Result<()> {
    let span = ["--span", "begin=submit", "end=complete", "key=arg0->8", "end-key=arg0"];
    let target = requests()?;
    let rows = latency(&target, &[], &[&span[..], &["-t", "20ms"]].concat())?;
    is_span_of_requests(&target, &rows[0])
}

fn tracepoints() -> Result<()> {
    let span = "begin=usdt:requests:submitted end=usdt:requests:completed key=arg1 end-key=arg0 name=traced";
    let target = requests()?;
    let rows = latency(&target, &["usdt:requests:submitted"], &["--span", span, "-t", "20ms"])?;
    let [counted, traced] = &rows[..] else { anyhow::bail!("two rows: {rows:#?}") };
    ensure!(number(counted, "calls")? > 50.0 && counted["p50_ns"].is_null(), "{counted:#}");
    ensure!(traced["name"] == "traced", "{traced:#}");
    is_span_of_requests(&target, traced)
}

fn semaphores() -> Result<()> {
    let target = Running::workload(&workload::c("listened.c", &["-O2"])?)?;
    let rows = latency(&target, &["usdt:listened:tick"], &[])?;
    ensure!(number(&rows[0], "calls")? > 100.0, "one every two milliseconds, of a busy machine some: {rows:#?}");
    Ok(())
}

fn goroutines(go: Go) -> Result<()> {
    let mut target = Running::workload(&go.build("server.go", &[])?)?;
    let rows = latency(&target, &["main.handle", "main.fails", "main.request"], &["-t", "10ms"])?;
    let [handle, fails, request] = &rows[..] else { anyhow::bail!("three functions: {rows:#?}") };
    let calls = number(handle, "calls")?;
    ensure!(calls > 100.0 && number(handle, "left")? == 0.0, "{handle:#}");
    let truth = target.truth("handle")?;
    truth.expect(handle)?;
    truth.expect_attainment(handle, Duration::from_millis(10), 0.9, 0.04)?;
    ensure!(number(handle, "min_ns")? >= 2e6 && number(handle, "max_ns")? >= 2e7, "{handle:#}");
    // Every fifth of these panics, and its caller recovers.
    let (ended, left) = (number(fails, "calls")?, number(fails, "left")?);
    ensure!((left / (ended + left) - 0.2).abs() < 0.05, "{ended} returned, {left} were left: {fails:#}");
    ensure!((number(request, "calls")? - calls).abs() < 20.0, "who recovers returns: {request:#}");
    for row in &rows {
        ensure!(number(row, "in_flight")? <= 8.0, "eight at once: {row:#}");
    }
    ensure!(target.is_alive(), "the target is gone");
    Ok(())
}

fn rust_tasks() -> Result<()> {
    let target = Running::workload(&workload::rust("tasks.rs", &["-O"])?)?;
    let span = ["--span", "begin=tasks::accepted", "end=tasks::answered", "key=arg0->0", "end-key=arg0", "name=task"];
    let rows = latency(&target, &["tasks::handle::*"], &span)?;
    let task = rows.iter().find(|row| row["name"] == "task").context("no span")?;
    ensure!(number(task, "calls")? > 50.0, "{task:#}");
    target.truth("task")?.expect(task)?;
    ensure!(number(task, "min_ns")? >= 1e7, "two sleeps of 5 ms: {task:#}");
    // A task is polled again and again, for a moment each time.
    let polls = rows.iter().find(|row| row["name"].as_str().is_some_and(|name| name.contains("closure")));
    let polls = polls.with_context(|| format!("no function that polls: {rows:#?}"))?;
    ensure!(number(polls, "calls")? > 3.0 * number(task, "calls")?, "{polls:#}");
    ensure!(number(polls, "p50_ns")? < 1e6, "{polls:#}");
    Ok(())
}

fn slow_calls() -> Result<()> {
    let target = Running::workload(&workload::c("slow.c", &["-O2", "-fomit-frame-pointer"])?)?;
    let (folder, pid) = (workload::scratch()?, target.pid().to_string());
    let file = folder.path().join("slow.folded");
    let path = file.to_str().context("a path of text")?;
    let command = ["latency", "--json", "-d", "5", "-p", &pid, "answers", "-t", "15ms", "--slow", path];
    let rows = probe::run(command)?.expect(0)?.json()?;
    let row = &rows[0];
    let callers = row["slow"].as_array().context("callers")?;
    let frames: Vec<&str> = callers[0]["frames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(frames.ends_with(&["main", "asks_for_much", "answers"]), "{frames:?}");
    let (slow, all) = (number(&callers[0], "calls")?, number(row, "calls")?);
    // The other caller's calls of two milliseconds are slow only if they were kept waiting.
    let kept_waiting = callers[1..].iter().map(|caller| number(caller, "calls")).sum::<Result<f64>>()?;
    let asks = target.truth("asks")?;
    // A number of calls: as a float it is a little less.
    let most = (asks.calls() * (1.0 - asks.within(Duration::from_micros(14_900)))).round();
    ensure!(kept_waiting <= most, "{kept_waiting} slow calls of whom only {most} were: {row:#}");
    let missed = (1.0 - number(row, "attainment")?) * all;
    ensure!(slow > 15.0 && (slow + kept_waiting - missed).abs() <= 1.0, "{slow} slow calls of {all}: {row:#}");
    let folded = std::fs::read_to_string(&file)?;
    let (mut computing, mut waiting) = (0.0, 0.0);
    for line in folded.lines() {
        let (stack, value) = line.rsplit_once(' ').context("a value")?;
        let has = |name: &str| stack.split(';').any(|frame| frame == name);
        ensure!(has("answers") && (!has("asks") || kept_waiting > 0.0), "not inside a slow call: {line}");
        let value: f64 = value.parse()?;
        // Where others are at work, it is also preempted.
        computing += if has("computes_long") && !has("schedule_[k]") { value } else { 0.0 };
        waiting += if has("waits_long") { value } else { 0.0 };
    }
    let (computing, waiting) = (computing / slow / 1000.0, waiting / slow / 1000.0);
    ensure!((7.0..13.0).contains(&computing), "{computing} ms a call on a CPU\n{folded}");
    let waits = target.truth("waits_long")?;
    let range = 9.5..1.3 * waits.average() / 1e6;
    ensure!(range.contains(&waiting), "{waiting} ms a call waiting, not {range:?}\n{folded}");
    Ok(())
}

fn slow_goroutines(go: Go) -> Result<()> {
    let target = Running::workload(&go.build("parks.go", &[])?)?;
    let (folder, pid) = (workload::scratch()?, target.pid().to_string());
    let file = folder.path().join("slow.folded");
    let path = file.to_str().context("a path of text")?;
    let command = ["latency", "--json", "-d", "8", "-p", &pid, "main.answers", "-t", "50ms", "--slow", path];
    let rows = probe::run(command)?.expect(0)?.json()?;
    ensure!(rows.as_array().is_some_and(|rows| rows.len() == 1), "where goroutines wait has no row: {rows:#}");
    let row = &rows[0];
    let slow = row["slow"].as_array().context("callers")?;
    let slow_us = slow.iter().map(|caller| number(caller, "total_ns")).sum::<Result<f64>>()? / 1000.0;
    let folded = std::fs::read_to_string(&file)?;
    let (mut all, mut outside) = (0.0, 0.0);
    let mut sums = std::collections::BTreeMap::new();
    for line in folded.lines() {
        let (stack, value) = line.rsplit_once(' ').context("a value")?;
        let value: f64 = value.parse()?;
        let has = |name: &str| stack.split(';').any(|frame| frame == name);
        ensure!(!has("main.disturbs"), "another goroutine: {line}");
        all += value;
        // What the runtime does for a goroutine has the goroutine's stack only in part.
        outside += if has("main.answers") { 0.0 } else { value };
        for name in ["main.computesLong", "main.sleepsLong", "main.receivesLong", "main.locksLong", "main.blocksLong"] {
            let is_meant = has(name) && (name != "main.computesLong" || !has("schedule_[k]"));
            *sums.entry(name).or_insert(0.0) += if is_meant { value } else { 0.0 };
        }
    }
    ensure!(outside < 0.02 * all, "{outside} of {all} us are outside of calls\n{folded}");
    ensure!((all / slow_us - 1.0).abs() < 0.1, "{all} of {slow_us} us of slow calls\n{folded}");
    // Every tenth call of each of the three goroutines.
    let long = number(row, "calls")? / 10.0;
    ensure!(long > 10.0, "{row:#}");
    for (name, sum) in &sums {
        let ms = sum / long / 1000.0;
        let range = if *name == "main.computesLong" { 5.0..16.0 } else { 15.0..50.0 };
        ensure!(range.contains(&ms), "{name} takes {ms} ms a call\n{folded}");
    }
    Ok(())
}

fn family() -> Result<()> {
    let folder = workload::scratch()?;
    let counter = folder.path().join("calls");
    let target = Running::ready(Command::new(workload::c("family.c", &[])?).arg(&counter))?;
    let count = || -> Result<f64> {
        let bytes = std::fs::read(&counter)?;
        Ok(u64::from_ne_bytes(bytes.as_slice().try_into()?) as f64)
    };
    let (begin, before) = (Instant::now(), count()?);
    let rows = latency(&target, &["handle_query"], &[])?;
    let rate = (count()? - before) / begin.elapsed().as_secs_f64();
    let [row] = rows.as_slice() else { bail!("one row: {rows:#?}") };
    ensure!(
        row["pid"] == target.pid() && row["name"].as_str().is_some_and(|name| name.contains("handle_query")),
        "{row:#}"
    );
    ensure!((number(row, "rate")? / rate - 1.0).abs() < 0.2, "{rate} calls a second: {row:#}");
    ensure!(number(row, "avg_ns")? >= 2e6 && number(row, "attached_share")? > 0.9, "{row:#}");
    let rows = latency(&target, &["handle_query"], &["--per-process", "-d", "2"])?;
    let pids: BTreeSet<u64> = rows.iter().filter_map(|row| row["pid"].as_u64()).collect();
    ensure!(pids.len() == rows.len() && rows.len() >= 5, "a row for each process: {rows:#?}");
    let lasting = rows.iter().filter(|row| row["calls"].as_u64() > Some(100)).count();
    let parents = rows.iter().filter(|row| row["pid"] == target.pid() && row["calls"] == 0).count();
    ensure!((lasting, parents) == (2, 1), "{rows:#?}");
    Ok(())
}

fn leader_ended() -> Result<()> {
    let target = Running::workload(&workload::c("leader.c", &[])?)?;
    let rows = latency(&target, &["goes_on"], &["-d", "2"])?;
    let row = &rows[0];
    // 5 ms of work each, which a busy machine interrupts.
    ensure!(number(row, "calls")? > 20.0 && number(row, "avg_ns")? >= 4.5e6, "{row:#}");
    Ok(())
}

fn unknown() -> Result<()> {
    let target = calls("")?;
    let pid = target.pid().to_string();
    probe::run(["latency", "-p", &pid, "sendz"])?.expect(2)?.expect_stderr("did you mean")?;
    probe::run(["latency", "-p", &pid, "sends+0xffff"])?.expect(2)?;
    probe::run(["latency", "-p", "4194303", "sends"])?.expect(3)?;
    Ok(())
}
