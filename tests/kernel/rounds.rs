//! The same over and over: probes that are set and taken away, and processes of the daemon that are killed. The program that
//! is looked at checks its own values and goes on, its code is as it was, and nothing grows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::code::Code;
use probe_tests::trial::trial;
use probe_tests::{poll, probe, workload};

use super::daemon::Daemon;
use super::governor::{Target, timing};
use super::processes::is_ready;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("rounds::three_hundred_probes_are_set_and_taken_away", set_and_taken_away),
        trial("rounds::windows_that_open_and_close_leave_nothing_open", windows),
        trial("rounds::processes_of_the_daemon_are_killed_a_dozen_times", killed),
    ]
}

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ten times all functions of a program.
fn set_and_taken_away() -> Result<()> {
    let mut target = Target::start("steps.c", "", "step_00")?;
    let (program, pid) = (workload::c("steps.c", &["-O2"])?, target.running.pid());
    let functions = (0..30).map(|number| Code::of(pid, &program, &format!("step_{number:02}")));
    let functions: Vec<Code> = functions.collect::<Result<_>>()?;
    let before: Vec<_> = functions.iter().map(Code::untouched).collect::<Result<_>>()?;
    for round in 0..10 {
        let run = probe::run(["latency", "--json", "-d", "300ms", "-p", &pid.to_string(), "step_*"])?.expect(0)?;
        let rows = run.json()?;
        let called = rows.as_array().into_iter().flatten().filter(|row| row["calls"].as_u64() > Some(0)).count();
        ensure!(called == functions.len(), "round {round}: {called} functions were seen: {rows:#}");
        let now: Vec<_> = functions.iter().map(Code::bytes).collect::<Result<_>>()?;
        ensure!(now == before, "round {round}: the code is not as it was");
    }
    target.is_clean(&before[0], PATIENCE)
}

/// What is called all the time is looked at now and then: its probes come and go as long as one looks.
fn windows() -> Result<()> {
    let mut target = Target::start("calls.c", "busy", "tiny")?;
    let before = target.code.untouched()?;
    let (mut probe, _, _folder) = timing(&target, &["tiny", "sends"], &[])?;
    target.wait_for_probe()?;
    let turns = |wanted: usize| -> Result<()> {
        for _ in 0..wanted {
            poll::until("the end of a window", PATIENCE, || (!target.code.is_probed()).then_some(()))?;
            poll::until("the next window", PATIENCE, || target.code.is_probed().then_some(()))?;
        }
        Ok(())
    };
    // Descriptors of probes that are being taken away are closed a little later, by a helper: the most of several looks.
    let open = || -> Result<usize> {
        let mut most = 0;
        for _ in 0..3 {
            turns(1)?;
            most = most.max(fs::read_dir(format!("/proc/{}/fd", probe.pid()))?.count());
        }
        Ok(most)
    };
    let first = open()?;
    turns(6)?;
    let last = open()?;
    ensure!(last <= first + 4, "{first} descriptors were open after a few windows, {last} after some more");
    probe.signal("INT")?;
    ensure!(probe.wait(PATIENCE)?.success(), "it ends with an error");
    target.is_clean(&before, PATIENCE)
}

/// Of each daemon the collector three times, and then the supervisor.
fn killed() -> Result<()> {
    let mut target = Target::start("calls.c", "", "sends")?;
    let before = target.code.untouched()?;
    let folder = workload::scratch()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let store = folder.path().join("store");
    let text = format!(
        "[[target]]\nname = \"app\"\nmatch = {{ pid = {} }}\n\
         [[function]]\nname = \"sends\"\ntarget = \"app\"\nsymbol = \"sends\"\n\
         [[rule]]\nname = \"some\"\ntarget = \"app\"\nmetric = \"threads\"\nabove = 0\nfor = \"1s\"\n\
         cooldown = \"1h\"\nsnapshot = {{ before = \"1s\", after = \"1s\" }}\n",
        target.running.pid()
    );
    let mut first = None;
    for _ in 0..3 {
        let mut daemon = Daemon::run(&text, Some(&store))?;
        for time in 1..=4 {
            is_ready(&daemon, "collector", time)?;
            poll::until("a probe", PATIENCE, || target.code.is_probed().then_some(()))
                .with_context(|| daemon.read_log())?;
            if first.is_none() {
                first = Some(daemon.snapshot()?);
            }
            let stored = daemon.ids()?;
            ensure!(first.as_ref().is_some_and(|id| stored.contains(id)), "{first:?} is gone: {stored:?}");
            if time < 4 {
                let collector = daemon.running.descendant("probe-collector")?;
                let status = Command::new("kill").args(["-KILL", &collector.to_string()]).status()?;
                ensure!(status.success(), "pid {collector} cannot be killed");
            }
        }
        daemon.running.signal("KILL")?;
        daemon.running.wait(PATIENCE)?;
        let since = Instant::now();
        poll::until("the target's code as it was", PATIENCE, || (target.code.bytes().ok()? == before).then_some(()))?;
        ensure!(target.running.is_alive(), "the target has ended, {:?} after the daemon", since.elapsed());
    }
    target.is_clean(&before, PATIENCE)
}
