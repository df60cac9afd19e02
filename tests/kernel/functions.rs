//! Functions in the daemon: rules over their calls, and what becomes of their probes when the configuration changes.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::code::Code;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, probe, workload};
use serde_json::Value;

use super::daemon::{BREACH, Daemon};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("functions::slow_calls_and_missed_thresholds_break_rules", slow),
        trial("functions::a_call_that_does_not_return_breaks_rules", stuck),
        trial("functions::a_running_daemon_takes_functions_in_changes_them_and_lets_go", reload),
        trial("functions::a_killed_daemon_leaves_no_probe", killed),
        trial("functions::a_library_loaded_later_is_searched", late),
        trial("functions::a_process_that_runs_another_program_is_searched_again", execs),
        trial("functions::what_is_called_too_often_costs_its_budget", governed),
        trial("functions::the_command_times_several_processes", several),
    ]
}

/// How long probes may take to come and go on a busy machine.
pub(super) const PROBES: Duration = Duration::from_secs(20);

fn calls(role: &str) -> Result<Running> {
    Running::ready(Command::new(workload::c("calls.c", &["-O2"])?).arg(role))
}

fn target(condition: &str) -> String {
    format!("[[target]]\nname = \"app\"\nmatch = {{ {condition} }}\n")
}

fn function(symbol: &str, more: &str) -> String {
    format!("[[function]]\nname = \"push\"\ngroup = \"pushes\"\ntarget = \"app\"\nsymbol = \"{symbol}\"\n{more}\n")
}

/// A rule on the function, with its threshold.
fn rule(name: &str, metric: &str, threshold: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\ntarget = \"app\"\nmetric = \"function.{metric}\"\nfunction = \"push\"\n{threshold}\n\
         for = \"2s\"\ncooldown = \"10m\"\nsnapshot = {{ before = \"4s\", after = \"1s\" }}\n"
    )
}

/// Waits for the snapshot of a rule.
fn snapshot(daemon: &mut Daemon, rule: &str) -> Result<Value> {
    let found = poll::until(&format!("a snapshot of {rule}"), BREACH, || {
        let of_rule = |daemon: &mut Daemon| -> Result<Option<Value>> {
            daemon.expect_alive()?;
            let sidecars: Result<Vec<Value>> = daemon.ids()?.iter().map(|id| daemon.sidecar(id)).collect();
            Ok(sidecars?.into_iter().find(|sidecar| sidecar["rule"] == rule))
        };
        of_rule(daemon).transpose()
    });
    found.and_then(|sidecar| sidecar).with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))
}

fn number(value: &Value, name: &str) -> Result<f64> {
    value[name].as_f64().with_context(|| format!("no {name} in {value:#}"))
}

fn slow() -> Result<()> {
    let (app, begin) = (calls("")?, Instant::now());
    let mut daemon = Daemon::run(
        &[
            target(&format!("pid = {}", app.pid())),
            function("sends", "threshold = \"10ms\"\nerrors = \"<0\""),
            function("gets_stuck", "").replace("\"push\"", "\"idle\""),
            rule("slow", "p99", "above = \"10ms\""),
            rule("missed", "attainment", "below = \"95%\""),
            rule("failing", "errors", "above = 5"),
            rule("patient", "p99", "above = \"1s\""),
            rule("idle", "rate", "below = 1").replace("\"push\"", "\"idle\""),
            rule("idle-slow", "p99", "above = 0").replace("\"push\"", "\"idle\""),
        ]
        .concat(),
        None,
    )?;
    let sidecar = snapshot(&mut daemon, "slow")?;
    ensure!(sidecar["metric"] == "function.p99" && sidecar["unit"] == "nanoseconds", "{sidecar:#}");
    let (value, threshold) = (number(&sidecar, "value")?, number(&sidecar, "threshold")?);
    ensure!(threshold == 1e7 && sidecar["side"] == "above", "{sidecar:#}");
    let function = &sidecar["function"];
    ensure!(
        function["name"] == "push" && function["group"] == "pushes" && function["symbol"] == "sends",
        "{function:#}"
    );
    let row = &function["row"];
    let (calls, errors, rate) = (number(row, "calls")?, number(row, "errors")?, number(row, "rate")?);
    let truth = app.truth("sends")?;
    truth.expect(row)?;
    truth.expect(&serde_json::json!({"p50_ns": row["p50_ns"], "p99_ns": value}))?;
    // Every tenth call is slow, every fifth an error.
    truth.expect_attainment(row, Duration::from_millis(10), 0.9, 0.03)?;
    ensure!(calls > 20.0 && (errors / calls - 0.2).abs() < 0.03, "{row:#}");
    let told = truth.calls() / begin.elapsed().as_secs_f64();
    ensure!((0.5 * told..2.0 * told).contains(&rate), "{rate} calls a second, of {told}: {row:#}");
    ensure!(number(row, "attached_share")? > 0.9 && row["pid"] == app.pid(), "{row:#}");
    let windows: Vec<_> = sidecar["profiles"].as_array().into_iter().flatten().map(|p| p["window"].clone()).collect();
    ensure!(windows == ["before", "breach", "after", "dump"], "{windows:?}");
    let id = sidecar["id"].as_str().context("an id")?;
    let dump = daemon.snapshots(&["get", id, "--window", "dump", "-f", "folded", "-o", "-"])?.expect(0)?;
    // One moment, in which the thread may be in any of the functions that `main` calls; it naps in each.
    let dump = Folded::parse(&dump.stdout)?;
    dump.expect("main", 0.5)?;
    dump.expect("nap_us", 0.5)?;
    let missed = snapshot(&mut daemon, "missed")?;
    let missed_row = serde_json::json!({"attainment": number(&missed, "value")? / 100.0});
    app.truth("sends")?.expect_attainment(&missed_row, Duration::from_millis(10), 0.9, 0.03)?;
    ensure!(missed["side"] == "below", "{missed:#}");
    let failing = number(&snapshot(&mut daemon, "failing")?, "value")?;
    ensure!((0.1 * told..0.4 * told).contains(&failing), "of {told} calls a second {failing} fail, not every fifth");
    let idle = snapshot(&mut daemon, "idle")?;
    ensure!(number(&idle, "value")? == 0.0 && idle["function"]["row"]["p99_ns"].is_null(), "{idle:#}");
    // Each rule once, and none that is not broken: without calls there is no time.
    let now = Instant::now();
    poll::until("some more seconds", BREACH, || (now.elapsed().as_secs() >= 4).then_some(()))?;
    ensure!(daemon.ids()?.len() == 4, "{:?}\n{}", daemon.ids()?, daemon.read_log());
    let log = daemon.read_log();
    ensure!(log.contains("function.p99 of push ") && log.contains("ms above 10.0ms"), "{log}");
    daemon.stop()
}

fn stuck() -> Result<()> {
    let folder = workload::scratch()?;
    let binary = folder.path().join("calls-late");
    fs::copy(workload::c("calls.c", &["-O2"])?, &binary)?;
    let mut daemon = Daemon::run(
        &[
            target(&format!("exe = \"{}\"", binary.display())),
            function("gets_stuck", ""),
            rule("waiting", "in_flight", "above = 0"),
            rule("old", "oldest", "above = \"3s\""),
        ]
        .concat(),
        None,
    )?;
    poll::until("the daemon begins", BREACH, || daemon.read_log().contains("no process matches yet").then_some(()))?;
    let app = Running::ready(Command::new(&binary).arg("stuck"))?;
    wait(&Code::of(app.pid(), &binary, "gets_stuck")?, true, &daemon)?;
    app.signal("USR1")?;
    let waiting = snapshot(&mut daemon, "waiting")?;
    ensure!(waiting["process"]["pid"] == app.pid() && number(&waiting, "value")? == 1.0, "{waiting:#}");
    ensure!(waiting["function"]["row"]["calls"] == 0 && waiting["function"]["row"]["in_flight"] == 1, "{waiting:#}");
    let old = snapshot(&mut daemon, "old")?;
    ensure!((3.9e9..12e9).contains(&number(&old, "value")?), "above 3 s for 2 s: {old:#}");
    daemon.stop()
}

/// Waits until probes are at a function, or gone from it.
fn wait(code: &Code, is_probed: bool, daemon: &Daemon) -> Result<()> {
    poll::until(&format!("probes are there: {is_probed}"), PROBES, || (code.is_probed() == is_probed).then_some(()))
        .with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))
}

fn reload() -> Result<()> {
    let mut app = calls("")?;
    let binary = workload::c("calls.c", &["-O2"])?;
    let code = Code::of(app.pid(), &binary, "sends")?;
    let before = code.bytes()?;
    let app_only = target(&format!("pid = {}", app.pid()));
    let mut daemon = Daemon::run(&app_only, None)?;
    poll::until("the daemon begins", BREACH, || daemon.read_log().contains("watching pid").then_some(()))?;
    ensure!(!code.is_probed(), "a probe that nobody wants");
    let strict = function("sends", "threshold = \"10ms\"");
    daemon
        .reload(&[&app_only, &strict, &rule("missed", "attainment", "below = \"95%\"")].map(String::as_str).concat())?;
    wait(&code, true, &daemon)?;
    snapshot(&mut daemon, "missed")?;
    // What is wrong changes nothing.
    daemon.reload("[[function]]\nnam = 1\n")?;
    poll::until("a refusal", PROBES, || daemon.read_log().contains("did you mean `name`?").then_some(()))?;
    ensure!(
        daemon.read_log().contains("the configuration stays as it was") && code.is_probed(),
        "{}",
        daemon.read_log()
    );
    // By another threshold the same calls are fast enough, and the probes stay where they are.
    let lax = function("sends", "threshold = \"500ms\"");
    daemon.reload(&[&app_only, &lax, &rule("met", "attainment", "above = \"99%\"")].map(String::as_str).concat())?;
    let met = snapshot(&mut daemon, "met")?;
    ensure!(number(&met, "value")? == 100.0, "no call is judged by the old threshold: {met:#}");
    ensure!(daemon.read_log().matches("timing sends in pid").count() == 1, "{}", daemon.read_log());
    daemon.reload(&app_only)?;
    wait(&code, false, &daemon)?;
    poll::until("the code as it was", PROBES, || (code.bytes().ok()? == before).then_some(()))?;
    ensure!(app.is_alive(), "the target is gone");
    // And once more: the number that the function had can be used again.
    daemon.reload(&[&app_only, &strict, &rule("again", "rate", "above = 50")].map(String::as_str).concat())?;
    let again = snapshot(&mut daemon, "again")?;
    ensure!(number(&again["function"]["row"], "calls")? < 3000.0, "calls of before: {again:#}");
    daemon.stop()?;
    poll::until("the code as it was", PROBES, || (code.bytes().ok()? == before).then_some(()))?;
    ensure!(app.is_alive(), "the target is gone");
    Ok(())
}

fn killed() -> Result<()> {
    let mut app = calls("")?;
    let code = Code::of(app.pid(), &workload::c("calls.c", &["-O2"])?, "sends")?;
    let before = code.bytes()?;
    let mut daemon = Daemon::run(&[target(&format!("pid = {}", app.pid())), function("sends", "")].concat(), None)?;
    wait(&code, true, &daemon)?;
    ensure!(code.bytes()?.iter().zip(&before).filter(|(now, before)| now != before).count() >= 2, "entry and return");
    daemon.running.signal("KILL")?;
    daemon.running.wait(PROBES)?;
    poll::until("the code as it was", PROBES, || (code.bytes().ok()? == before).then_some(()))?;
    ensure!(app.is_alive(), "the target is gone");
    Ok(())
}

fn late() -> Result<()> {
    let folder = workload::scratch()?;
    let plugin = workload::c("plugin.c", &["-shared", "-fPIC"])?;
    let mut app =
        Running::ready(Command::new(workload::c("late.c", &[])?).arg(plugin).arg(folder.path().join("time")))?;
    let mut daemon = Daemon::run(
        &[
            target(&format!("pid = {}", app.pid())),
            function("plugin_hot", ""),
            function("waits_to_be_askd", "").replace("\"push\"", "\"misspelt\""),
            rule("called", "rate", "above = 10"),
        ]
        .concat(),
        None,
    )?;
    for words in ["function push: not timed in pid", "function misspelt: not timed in pid"] {
        poll::until(words, BREACH, || daemon.read_log().contains(words).then_some(()))?;
    }
    let hint = "did you mean waits_to_be_asked?";
    ensure!(daemon.read_log().contains(hint), "{}", daemon.read_log());
    app.signal("USR1")?;
    let called = snapshot(&mut daemon, "called")?;
    ensure!(called["function"]["row"]["p50_ns"].as_u64().is_some_and(|time| time > 9_000_000), "{called:#}");
    let log = daemon.read_log();
    ensure!(log.matches("not timed in pid").count() == 2, "each is told once: {log}");
    ensure!(app.is_alive(), "the target is gone");
    daemon.stop()
}

fn execs() -> Result<()> {
    let binary = workload::c("calls.c", &["-O2"])?;
    let script = format!("sleep 5; exec {}", binary.display());
    let mut app = Running::start(Command::new("sh").args(["-c", &script]).stdout(Stdio::null()))?;
    let mut daemon = Daemon::run(
        &[target(&format!("pid = {}", app.pid())), function("sends", ""), rule("called", "rate", "above = 10")]
            .concat(),
        None,
    )?;
    let called = snapshot(&mut daemon, "called")?;
    ensure!(called["process"]["pid"] == app.pid() && number(&called["function"]["row"], "calls")? > 20.0, "{called:#}");
    ensure!(app.is_alive(), "the target is gone");
    daemon.stop()
}

fn governed() -> Result<()> {
    let folder = workload::scratch()?;
    let binary = folder.path().join("calls-busy");
    fs::copy(workload::c("calls.c", &["-O2"])?, &binary)?;
    let apps = [(); 2].map(|()| Running::ready(Command::new(&binary).arg("busy")));
    let [mut one, mut other] = apps;
    let apps = [one.as_mut(), other.as_mut()];
    let pids: Vec<u32> = apps.iter().flatten().map(|app| app.pid()).collect();
    ensure!(pids.len() == 2, "both run");
    let mut daemon = Daemon::run(
        &[
            "[sampling]\nmax_overhead = \"10%\"\n".to_owned(),
            target(&format!("exe = \"{}\"", binary.display())),
            function("tiny", ""),
            rule("called", "rate", "above = 1000"),
        ]
        .concat(),
        None,
    )?;
    let seen = poll::until("a snapshot of each process", 2 * BREACH, || {
        let sidecars: Result<Vec<Value>> =
            daemon.ids().and_then(|ids| ids.iter().map(|id| daemon.sidecar(id)).collect());
        sidecars.map(|sidecars| (sidecars.len() == 2).then_some(sidecars)).transpose()
    });
    let seen = seen.and_then(|seen| seen).with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))?;
    for sidecar in &seen {
        let share = number(&sidecar["function"]["row"], "attached_share")?;
        // Five percent of a core each, of a thread that does nothing else: probes are there for a small part of the time.
        ensure!(share > 0.0 && share < 0.4, "{sidecar:#}");
        ensure!(pids.iter().any(|pid| sidecar["process"]["pid"] == *pid), "{sidecar:#}");
    }
    ensure!(seen[0]["process"]["pid"] != seen[1]["process"]["pid"], "one of each process");
    daemon.expect_alive()?;
    daemon.stop()
}

fn several() -> Result<()> {
    let (one, other) = (calls("")?, calls("")?);
    let pids = format!("{},{}", one.pid(), other.pid());
    let output = probe::run(["latency", "--json", "-d", "4", "-p", &pids, "sends", "recurs"])?.expect(0)?.json()?;
    let rows = output.as_array().context("a list")?;
    for process in [&one, &other] {
        let pid = process.pid();
        let row = |name: &str| {
            let row = rows.iter().find(|row| row["pid"] == pid && row["name"] == name);
            row.with_context(|| format!("no {name} of {pid} in {output:#}"))
        };
        let (sends, recurs) = (row("calls:sends")?, row("calls:recurs")?);
        ensure!(number(sends, "min_ns")? >= 2e6, "{sends:#}");
        process.truth("sends")?.expect(sends)?;
        let share = number(recurs, "calls")? / number(sends, "calls")?;
        ensure!((share - 0.6).abs() < 0.1, "six calls for each ten: {share} in {output:#}");
    }
    ensure!(rows.len() == 4, "two functions of two processes: {output:#}");
    Ok(())
}
