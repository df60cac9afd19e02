//! Probes within their budget: functions do not take each other's windows, and nothing is left in a target, however
//! either side ends.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::code::Code;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, probe, workload};
use serde_json::Value;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("governor::what_is_dear_does_not_take_the_windows_of_what_is_cheap", fair),
        trial("governor::calls_that_nobody_can_see_end_were_not_left", unseen),
        trial("governor::a_probe_that_is_killed_leaves_nothing", killed),
        trial("governor::a_probe_that_is_killed_while_its_probes_leave_leaves_nothing", killed_while_leaving),
        trial("governor::a_probe_that_is_killed_while_it_ends_leaves_nothing", killed_at_the_end),
        trial("governor::a_probe_that_is_told_to_end_gives_rows_and_leaves_nothing", told_to_end),
        trial("governor::a_target_that_is_killed_gives_rows", target_killed),
        trial("governor::a_target_that_exits_in_a_call_gives_rows", target_exits),
        trial("governor::a_target_that_becomes_another_program_lives", target_execs),
        trial("governor::children_of_a_target_are_timed_with_it_and_left_as_they_were", target_forks),
    ]
}

/// How long a probe may take to be set on a busy machine.
const SET: Duration = Duration::from_secs(20);
/// How long the kernel may take to clean up after a killed one.
const CLEAN: Duration = Duration::from_secs(2);
/// How long the kernel may take to end what is killed, on a machine that others keep busy.
const DEAD: Duration = Duration::from_secs(60);

pub(super) struct Target {
    pub(super) running: Running,
    pub(super) code: Code,
}

impl Target {
    pub(super) fn start(source: &str, role: &str, function: &str) -> Result<Self> {
        let program = workload::c(source, &["-O2"])?;
        let running = Running::ready(Command::new(&program).arg(role))?;
        let code = Code::of(running.pid(), &program, function)?;
        Ok(Self { running, code })
    }

    pub(super) fn wait_for_probe(&self) -> Result<()> {
        poll::until("a probe in the target", SET, || self.code.is_probed().then_some(()))
    }

    /// The code is as it was, for good, and the target goes on.
    pub(super) fn is_clean(&mut self, before: &[u8], limit: Duration) -> Result<()> {
        poll::until("the target's code as it was", limit, || (self.code.bytes().ok()? == before).then_some(()))?;
        let used = || fs::read_to_string(format!("/proc/{}/schedstat", self.running.pid()));
        let then = used()?;
        std::thread::sleep(Duration::from_millis(200));
        ensure!(self.code.bytes()? == before, "a probe has come back");
        ensure!(used()? != then, "the target stands still");
        ensure!(self.running.is_alive(), "the target is gone");
        Ok(())
    }
}

/// `probe latency` at work, and the file of what it prints.
pub(super) fn timing(target: &Target, names: &[&str], more: &[&str]) -> Result<(Running, PathBuf, tempfile::TempDir)> {
    let folder = workload::scratch()?;
    let file = folder.path().join("rows");
    let pid = target.running.pid().to_string();
    let mut command = Command::new(probe::binary());
    command.args(["latency", "--json", "-p", &pid]).args(names).args(more);
    command.stdout(fs::File::create(&file)?).stderr(Stdio::null());
    Ok((Running::start(&mut command)?, file, folder))
}

fn rows(file: &PathBuf) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file)?;
    let rows: Value = serde_json::from_str(&text).with_context(|| format!("no rows: {text:?}"))?;
    Ok(rows.as_array().context("a list")?.clone())
}

fn number(row: &Value, name: &str) -> Result<f64> {
    row[name].as_f64().with_context(|| format!("no {name} in {row:#}"))
}

fn fair() -> Result<()> {
    let target = Target::start("calls.c", "busy", "tiny")?;
    let pid = target.running.pid().to_string();
    let output = probe::run(["latency", "--json", "-d", "5", "-p", &pid, "tiny", "sends"])?.expect(0)?;
    let rows = output.json()?;
    let share = |at: usize| number(&rows[at], "attached_share");
    ensure!(share(0)? > 0.0 && share(0)? < 0.9, "millions of calls a second: {rows:#}");
    ensure!(share(1)? > 0.97, "hundreds of calls a second: {rows:#}");
    let calls = number(&rows[1], "calls")?;
    ensure!(calls > 100.0, "{rows:#}");
    Ok(())
}

fn unseen() -> Result<()> {
    let target = Target::start("calls.c", "crew", "chore")?;
    let pid = target.running.pid().to_string();
    let output = probe::run(["latency", "--json", "-d", "5", "-p", &pid, "chore", "shift"])?.expect(0)?;
    let rows = output.json()?;
    let [chore, shift] = &rows.as_array().context("a list")?[..] else { anyhow::bail!("two rows: {rows:#}") };
    let share = number(chore, "attached_share")?;
    ensure!(share > 0.0 && share < 0.9, "called all the time: {chore:#}");
    ensure!(number(chore, "calls")? > 1000.0 && number(chore, "left")? == 0.0, "{chore:#}");
    // They are in calls of the other function as well when its probes go.
    ensure!(number(shift, "calls")? > 10.0 && number(shift, "left")? == 0.0, "{shift:#}");
    ensure!(number(shift, "in_flight")? <= 4.0, "four threads: {shift:#}");
    Ok(())
}

fn killed() -> Result<()> {
    let mut target = Target::start("calls.c", "", "sends")?;
    let before = target.code.untouched()?;
    let (mut probe, _, _folder) = timing(&target, &["sends", "recurs"], &[])?;
    target.wait_for_probe()?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(target.code.is_probed(), "cheap probes stay");
    probe.signal("KILL")?;
    probe.wait(CLEAN)?;
    target.is_clean(&before, CLEAN)
}

fn killed_while_leaving() -> Result<()> {
    let mut target = Target::start("calls.c", "busy", "tiny")?;
    let before = target.code.untouched()?;
    // The traps go within milliseconds, and the kernel needs some more until it is done: some of these hit each.
    for delay_ms in [0, 2, 5, 10, 20, 40] {
        let (mut probe, _, _folder) = timing(&target, &["tiny"], &[])?;
        target.wait_for_probe()?;
        poll::until("the end of a window", SET, || (!target.code.is_probed()).then_some(()))?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        probe.signal("KILL")?;
        probe.wait(CLEAN)?;
        target.is_clean(&before, CLEAN)?;
    }
    Ok(())
}

/// Told to end, and killed before it has: it takes many probes away in the milliseconds in between.
fn killed_at_the_end() -> Result<()> {
    let target = Target::start("steps.c", "", "step_00")?;
    let program = workload::c("steps.c", &["-O2"])?;
    let functions = (0..30).map(|number| Code::of(target.running.pid(), &program, &format!("step_{number:02}")));
    let functions: Vec<Code> = functions.collect::<Result<_>>()?;
    let before: Vec<_> = functions.iter().map(Code::untouched).collect::<Result<_>>()?;
    let now = || functions.iter().map(Code::bytes).collect::<Result<Vec<_>>>();
    for delay_ms in (0..60).step_by(4) {
        let (mut probe, _, _folder) = timing(&target, &["step_*"], &[])?;
        poll::until("all probes", SET, || functions.iter().all(Code::is_probed).then_some(()))?;
        probe.signal("INT")?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        // It may have ended by itself.
        let _ = probe.signal("KILL");
        // The kernel takes away one function's probes after the other, each when every processor has been elsewhere.
        probe.wait(DEAD)?;
        let is_clean = || (now().ok()? == before).then_some(());
        poll::until(&format!("the target's code as it was, killed {delay_ms} ms later"), CLEAN, is_clean)?;
    }
    Ok(())
}

fn told_to_end() -> Result<()> {
    for (signal, role, function) in [("INT", "", "sends"), ("TERM", "busy", "tiny")] {
        let mut target = Target::start("calls.c", role, function)?;
        let before = target.code.untouched()?;
        let (mut probe, file, _folder) = timing(&target, &[function], &[])?;
        target.wait_for_probe()?;
        std::thread::sleep(Duration::from_millis(700));
        probe.signal(signal)?;
        let status = probe.wait(Duration::from_secs(5))?;
        ensure!(status.code() == Some(0), "{signal}: {status}");
        ensure!(target.code.bytes()? == before, "{signal}: it ends before its probes are gone");
        ensure!(number(&rows(&file)?[0], "calls")? > 0.0, "{signal}: no calls");
        target.is_clean(&before, CLEAN)?;
    }
    Ok(())
}

fn target_killed() -> Result<()> {
    let mut target = Target::start("calls.c", "", "sends")?;
    let (mut probe, file, _folder) = timing(&target, &["sends"], &[])?;
    target.wait_for_probe()?;
    std::thread::sleep(Duration::from_millis(700));
    target.running.signal("KILL")?;
    target.running.wait(CLEAN)?;
    let status = probe.wait(Duration::from_secs(5))?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(number(&rows(&file)?[0], "calls")? > 20.0, "{:#?}", rows(&file)?);
    Ok(())
}

fn target_exits() -> Result<()> {
    let mut target = Target::start("forks.c", "exits", "works")?;
    let (mut probe, file, _folder) = timing(&target, &["works"], &[])?;
    target.wait_for_probe()?;
    std::thread::sleep(Duration::from_millis(700));
    target.running.signal("USR1")?;
    let status = target.running.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the target: {status}");
    let status = probe.wait(Duration::from_secs(5))?;
    ensure!(status.code() == Some(0), "{status}");
    let row = &rows(&file)?[0];
    ensure!(number(row, "calls")? > 20.0 && number(row, "in_flight")? == 0.0, "{row:#}");
    Ok(())
}

fn target_execs() -> Result<()> {
    let mut target = Target::start("forks.c", "execs", "works")?;
    let (mut probe, file, _folder) = timing(&target, &["works"], &["-d", "4"])?;
    target.wait_for_probe()?;
    std::thread::sleep(Duration::from_millis(700));
    target.running.signal("USR1")?;
    let status = probe.wait(Duration::from_secs(20))?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(number(&rows(&file)?[0], "calls")? > 20.0, "{:#?}", rows(&file)?);
    ensure!(target.running.is_alive(), "the target is gone");
    Ok(())
}

fn target_forks() -> Result<()> {
    let mut target = Target::start("forks.c", "", "works")?;
    let before = target.code.untouched()?;
    let parent = target.running.pid();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let stays: u32 = children.split_whitespace().next().context("a child that stays")?.parse()?;
    let program = fs::read_link(format!("/proc/{parent}/exe"))?;
    let child = Code::of(stays, &program, "works")?;
    let flags = ["-d", "8", "--max-overhead", "100", "--per-process"];
    let (mut probe, file, _folder) = timing(&target, &["works"], &flags)?;
    target.wait_for_probe()?;
    poll::until("a probe in the child", SET, || child.is_probed().then_some(()))?;
    target.running.signal("USR1")?;
    // One that is made now inherits the code with the probes in it.
    let later = || -> Option<u32> {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        let stay = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "stays\n");
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| *pid != stays && stay(pid))
    };
    let later = poll::until("a child that stays", SET, later)?;
    let later = Code::of(later, &program, "works")?;
    ensure!(probe.wait(Duration::from_secs(20))?.code() == Some(0), "probe fails");
    target.is_clean(&before, CLEAN)?;
    for (code, whose) in [(&child, "the child"), (&later, "the child that came later")] {
        poll::until(whose, CLEAN, || code.bytes().is_ok_and(|bytes| bytes == before).then_some(()))?;
    }
    let rows = rows(&file)?;
    for pid in [parent, stays] {
        let row = rows.iter().find(|row| row["pid"] == pid).with_context(|| format!("no row of {pid}: {rows:#?}"))?;
        // A call takes 200 us and more.
        let rate = number(row, "rate")?;
        ensure!(rate > 50.0 && rate < 5000.0, "{row:#}");
    }
    Ok(())
}
