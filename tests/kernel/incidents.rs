//! Incidents of known causes, all watched by one daemon: the function that a snapshot names first is the one that was planted.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, workload};
use serde_json::Value;

use super::daemon::{BREACH, Daemon};

pub fn tests() -> Vec<Trial> {
    vec![trial("incidents::the_function_that_is_named_is_the_planted_one", planted)]
}

/// A kind of incident: its name, the rule that it breaks, the function to be named.
struct Incident {
    kind: &'static str,
    rule: &'static str,
    /// The function that is timed, for rules of functions.
    timed: Option<&'static str>,
    culprit: &'static str,
}

const INCIDENTS: [Incident; 11] = [
    cpu("loop", "retry_order"),
    cpu("regex", "check_address"),
    cpu("hash", "find_session"),
    cpu("sweep", "sweep_heap"),
    cpu("log", "log_debug"),
    calls("convoy", "book_order", "update_ledger"),
    calls("disk", "commit_order", "write_journal"),
    calls("dependency", "price_order", "ask_pricing"),
    calls("slow", "render_page", "sort_rows"),
    Incident { kind: "threads", rule: "metric = \"threads\"\nabove = 100", timed: None, culprit: "run_task" },
    Incident {
        kind: "leak",
        rule: "metric = \"memory.growth\"\nabove = \"100MiB\"",
        timed: None,
        culprit: "remember_session",
    },
];

const fn cpu(kind: &'static str, culprit: &'static str) -> Incident {
    Incident { kind, rule: "metric = \"cpu\"\nabove = 15.0", timed: None, culprit }
}

/// A machine that others use keeps single calls waiting for as long, so that one slow call of a hundred is no incident.
const fn calls(kind: &'static str, timed: &'static str, culprit: &'static str) -> Incident {
    Incident { kind, rule: "metric = \"function.attainment\"\nbelow = \"92%\"", timed: Some(timed), culprit }
}

/// A calm stretch is as long as what the flight recorder holds.
const WINDOW: Duration = Duration::from_secs(12);

fn planted() -> Result<()> {
    let binary = workload::c("incident.c", &["-pthread"])?;
    let folder = workload::scratch()?;
    let mut services = Vec::new();
    // So many breaches at once are more than a daemon is to cost.
    let mut text = "[limits]\ncpu = 100.0\nmemory = \"1GiB\"\n".to_owned();
    text += &format!("[sampling]\nfrequency = 49\nwindow = \"{}s\"\n", WINDOW.as_secs());
    for Incident { kind, rule, timed, .. } in INCIDENTS {
        let service = Running::ready(Command::new(&binary).arg(kind).arg(folder.path()))?;
        text += &format!("[[target]]\nname = \"{kind}\"\nmatch = {{ pid = {} }}\n", service.pid());
        let mut rule = format!("{rule}\n");
        if let Some(symbol) = timed {
            text += &format!(
                "[[function]]\nname = \"{kind}\"\ntarget = \"{kind}\"\nsymbol = \"{symbol}\"\nthreshold = \"80ms\"\n"
            );
            rule += &format!("function = \"{kind}\"\n");
        }
        text += &format!(
            "[[rule]]\nname = \"{kind}\"\ntarget = \"{kind}\"\n{rule}for = \"2s\"\ncooldown = \"10m\"\n\
             snapshot = {{ before = \"4s\", after = \"1s\" }}\n"
        );
        services.push((kind, service));
    }
    let mut daemon = Daemon::run(&text, None)?;
    // Calm for two stretches, of which the first began before they were watched.
    let calm = Instant::now();
    poll::until("a calm time", WINDOW * 4, || (calm.elapsed() > WINDOW * 2 + Duration::from_secs(3)).then_some(()))?;
    if let Some(id) = daemon.ids()?.first() {
        let sidecar = daemon.sidecar(id)?;
        bail!("calm, and yet {} broke {} with {}", sidecar["process"]["exe"], sidecar["rule"], sidecar["value"]);
    }
    // What grows takes its time; of the others two at a time, because there may be only two processors.
    let Some((leak, others)) = services.split_last() else { unreachable!("there are some") };
    leak.1.signal("USR1")?;
    for pair in others.chunks(2).chain([std::slice::from_ref(leak)]) {
        for (_, service) in pair.iter().filter(|(kind, _)| *kind != leak.0) {
            service.signal("USR1")?;
        }
        for (kind, _) in pair {
            let found = poll::until(&format!("a snapshot of {kind}"), BREACH, || find(&mut daemon, kind).transpose());
            let snapshot = found.and_then(|found| found).with_context(|| daemon.read_log())?;
            expect(kind, &snapshot).with_context(|| daemon.read_log())?;
        }
    }
    daemon.stop()
}

/// The snapshot of a kind, if there is one.
fn find(daemon: &mut Daemon, kind: &str) -> Result<Option<Value>> {
    daemon.expect_alive()?;
    for id in daemon.ids()? {
        let sidecar = daemon.sidecar(&id)?;
        if sidecar["target"] == kind {
            return Ok(Some(sidecar));
        }
    }
    Ok(None)
}

fn expect(kind: &str, snapshot: &Value) -> Result<()> {
    let incident = INCIDENTS.iter().find(|incident| incident.kind == kind).context("known")?;
    let first = &snapshot["culprits"][0];
    ensure!(first["function"] == incident.culprit, "{kind}: {:#}", snapshot["culprits"]);
    ensure!(first["file"].as_str().is_some_and(|file| file.ends_with("incident.c")), "{kind}: {first}");
    let windows: Vec<&str> =
        snapshot["profiles"].as_array().into_iter().flatten().filter_map(|entry| entry["window"].as_str()).collect();
    for window in ["before", "breach", "after", "baseline", "dump"] {
        ensure!(windows.contains(&window), "{kind}: no {window} in {windows:?}");
    }
    Ok(())
}
