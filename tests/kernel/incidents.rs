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
    vec![
        trial("incidents::the_function_that_is_named_is_the_planted_one", planted),
        trial("incidents::a_culprit_tells_the_cause", causes),
    ]
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
    Incident { kind: "threads", rule: "metric = \"threads\"\nabove = 100", timed: None, culprit: "start_tasks" },
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

/// A kind of cause: the function to be named, what it does there, how its sentence begins, and who is not to be named.
struct Cause {
    kind: &'static str,
    rule: &'static str,
    timed: Option<&'static str>,
    culprit: &'static str,
    what: Option<&'static str>,
    sentence: &'static str,
    innocent: &'static [&'static str],
}

const CAUSES: [Cause; 4] = [
    Cause {
        kind: "relay",
        rule: "metric = \"function.avg\"\nabove = \"40ms\"",
        timed: Some("deliver"),
        culprit: "relay_deliver",
        what: Some("asleep"),
        sentence: "relay takes ",
        innocent: &["deliver"],
    },
    Cause {
        kind: "locks",
        rule: "metric = \"function.oldest\"\nabove = \"3s\"",
        timed: Some("transfer"),
        culprit: "transfer",
        what: Some("waiting for a lock"),
        sentence: "2 calls of locks have not returned for up to ",
        innocent: &[],
    },
    Cause {
        kind: "pool",
        rule: "metric = \"cpu\"\nabove = 12.0",
        timed: None,
        culprit: "resize_image",
        what: None,
        sentence: "resize_image",
        innocent: &["Pool::work"],
    },
    Cause {
        kind: "shift",
        rule: "metric = \"cpu\"\nabove = 19.0",
        timed: None,
        culprit: "reindex",
        what: None,
        sentence: "reindex",
        innocent: &["search"],
    },
];

fn causes() -> Result<()> {
    let binary = workload::cxx("relay.cpp", &[])?;
    let mut services = Vec::new();
    let mut text = "[limits]\ncpu = 100.0\nmemory = \"1GiB\"\n".to_owned();
    text += &format!("[sampling]\nfrequency = 99\nwindow = \"{}s\"\n", WINDOW.as_secs());
    for Cause { kind, rule, timed, .. } in CAUSES {
        let service = Running::ready(Command::new(&binary).arg(kind))?;
        text += &format!("[[target]]\nname = \"{kind}\"\nmatch = {{ pid = {} }}\n", service.pid());
        text +=
            &format!("[[rule]]\nname = \"{kind}\"\ntarget = \"{kind}\"\n{rule}\nfor = \"2s\"\ncooldown = \"10m\"\n");
        text += "snapshot = { before = \"4s\", after = \"5s\" }\n";
        if let Some(symbol) = timed {
            text += &format!("function = \"{kind}\"\n");
            text += &format!("[[function]]\nname = \"{kind}\"\ntarget = \"{kind}\"\nsymbol = \"{symbol}\"\n");
        }
        services.push(service);
    }
    let mut daemon = Daemon::run(&text, None)?;
    let calm = Instant::now();
    poll::until("a calm time", WINDOW * 4, || (calm.elapsed() > WINDOW * 2 + Duration::from_secs(3)).then_some(()))?;
    for service in &services {
        service.signal("USR1")?;
    }
    for cause in &CAUSES {
        let found =
            poll::until(&format!("a snapshot of {}", cause.kind), BREACH, || find(&mut daemon, cause.kind).transpose());
        let snapshot = found.and_then(|found| found).with_context(|| daemon.read_log())?;
        tells(cause, &snapshot)?;
    }
    daemon.stop()
}

fn tells(cause: &Cause, snapshot: &Value) -> Result<()> {
    let Cause { kind, culprit, what, sentence, innocent, .. } = cause;
    let culprits = &snapshot["culprits"];
    let first = &culprits[0];
    // C++ names have their parameters.
    let is_named = |culprit: &Value, name: &str| {
        culprit["function"].as_str().is_some_and(|function| function.split('(').next() == Some(name))
    };
    ensure!(is_named(first, culprit), "{kind}: {culprits:#}");
    ensure!(first["file"].as_str().is_some_and(|file| file.ends_with("relay.cpp")), "{kind}: {first}");
    ensure!(first["what"].as_str() == *what, "{kind}: {first}");
    ensure!(first["sentence"].as_str().is_some_and(|text| text.starts_with(sentence)), "{kind}: {first}");
    for name in *innocent {
        let blamed = culprits.as_array().into_iter().flatten().find(|culprit| is_named(culprit, name));
        ensure!(blamed.is_none(), "{kind}: {culprits:#}");
    }
    if *kind == "relay" {
        ensure!(first["callee"].as_str().is_some_and(|callee| callee.contains("sleep")), "{first}");
        let [now, before] =
            ["time_per_call_ns", "baseline_time_per_call_ns"].map(|key| first[key].as_f64().unwrap_or(0.0) / 1e6);
        // It slept 80 ms instead of 2, and a busy machine wakes it later than that.
        ensure!(now > 40.0 && (2.0..20.0).contains(&before), "{first}");
        let part = first["part_ns"].as_f64().unwrap_or(0.0) / 1e6;
        ensure!(part > 0.6 * now, "{first}");
    }
    Ok(())
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
