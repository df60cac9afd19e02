//! Who opened what is still open, and who started the threads that there are more of.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, workload};
use serde_json::Value;

use super::daemon::{BREACH, Daemon};

pub fn tests() -> Vec<Trial> {
    vec![trial("holdings::who_made_what_there_is_more_of_is_named", makers)]
}

fn makers() -> Result<()> {
    let folder = workload::scratch()?;
    let binary = workload::c("hoards.c", &["-pthread"])?;
    let service = Running::ready(Command::new(&binary).arg(folder.path()))?;
    let mut text = format!("[[target]]\nname = \"hoards\"\nmatch = {{ pid = {} }}\n", service.pid());
    for (name, above) in [("fds", 60), ("threads", 20)] {
        text += &format!(
            "[[rule]]\nname = \"{name}\"\ntarget = \"hoards\"\nmetric = \"{name}\"\nabove = {above}\nfor = \"2s\"\n\
             snapshot = {{ before = \"2s\", after = \"1s\" }}\n"
        );
    }
    let mut daemon = Daemon::run(&text, None)?;
    // It is counted once a second what a process holds, of one process for one rule.
    let calm = Instant::now();
    poll::until("a calm time", BREACH, || (calm.elapsed() > Duration::from_secs(5)).then_some(()))?;
    service.signal("USR1")?;
    for (rule, check) in [("fds", descriptors as fn(&Value) -> Result<()>), ("threads", threads)] {
        let found = poll::until(&format!("a snapshot of {rule}"), BREACH, || find(&mut daemon, rule).transpose());
        let snapshot = found.and_then(|found| found).with_context(|| daemon.read_log())?;
        check(&snapshot).with_context(|| daemon.read_log())?;
    }
    ensure!(daemon.read_log().contains("connect_backend (hoards.c:"), "the log tells the cause: {}", daemon.read_log());
    daemon.stop()
}

fn descriptors(snapshot: &Value) -> Result<()> {
    let (gains, culprits) = (&snapshot["gains"], &snapshot["culprits"]);
    ensure!(gains[0]["kind"] == "sockets" && gains[0]["before"] == 0, "{gains:#}");
    ensure!(gains[0]["most"] == "UDP to 127.0.0.1:9" && gains[0]["most_count"] == gains[0]["now"], "{gains:#}");
    let kinds: Vec<&str> = gains.as_array().into_iter().flatten().filter_map(|gain| gain["kind"].as_str()).collect();
    ensure!(kinds == ["sockets", "files", "eventfds"], "{kinds:?}");
    let named: Vec<&str> =
        culprits.as_array().into_iter().flatten().filter_map(|culprit| culprit["function"].as_str()).collect();
    ensure!(named.get(..3) == Some(&["connect_backend", "open_report", "make_event"][..]), "{culprits:#}");
    ensure!(!named.contains(&"rotate_log") && culprits[0]["share"].as_f64() > Some(90.0), "{culprits:#}");
    let sentence = culprits[0]["sentence"].as_str().unwrap_or_default();
    ensure!(sentence.contains("connect_backend (hoards.c:") && sentence.contains(" opened "), "{sentence}");
    Ok(())
}

fn threads(snapshot: &Value) -> Result<()> {
    let (gains, first) = (&snapshot["gains"], &snapshot["culprits"][0]);
    ensure!(gains[0]["kind"] == "threads named worker-*" && gains[0]["before"] == 0, "{gains:#}");
    ensure!(first["function"] == "spawn_worker" && first["share"].as_f64() > Some(90.0), "{first:#}");
    let sentence = first["sentence"].as_str().unwrap_or_default();
    ensure!(sentence.contains("spawn_worker (hoards.c:") && sentence.contains(" started "), "{sentence}");
    let kept: Vec<&str> =
        snapshot["threads"].as_array().into_iter().flatten().filter_map(|thread| thread["name"].as_str()).collect();
    ensure!(kept.len() == 2 && kept.iter().all(|name| name.starts_with("worker-")), "{kept:?}");
    Ok(())
}

/// The snapshot of a rule, if there is one.
fn find(daemon: &mut Daemon, rule: &str) -> Result<Option<Value>> {
    daemon.expect_alive()?;
    for id in daemon.ids()? {
        let sidecar = daemon.sidecar(&id)?;
        if sidecar["rule"] == rule {
            return Ok(Some(sidecar));
        }
    }
    Ok(None)
}
