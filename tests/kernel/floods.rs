//! Programs that start, replace and map things all the time: what they cause is charged to them, and the others keep theirs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::webhook::Webhook;
use probe_tests::{poll, probe, workload};

use crate::daemon::{BREACH, Daemon, expect_culprit};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("floods::a_calm_process_keeps_its_samples_names_and_stacks", calm),
        trial("floods::a_child_of_a_moment_keeps_its_names_and_stacks", child),
        trial("floods::who_floods_a_daemon_loses_its_own_detail_only", daemon),
    ]
}

/// Everything at once, each on its own: processes that end at once, programs that do, and code of ever other files.
struct Floods {
    _running: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Floods {
    fn start() -> Result<Self> {
        let (binary, folder) = (workload::c("floods.c", &[])?, workload::scratch()?);
        let mut running = Vec::new();
        let files = folder.path().to_str().context("a readable path")?;
        for arguments in [&["forks", "800"][..], &["execs", "300"], &["self", "300"], &["maps", "2000", files]] {
            running.push(Running::ready(Command::new(&binary).args(arguments))?);
        }
        Ok(Self { _running: running, _folder: folder })
    }
}

/// The stacks of a command.
fn of(folded: &Folded, command: &str) -> Result<Folded> {
    let is_its = |frames: &[String]| frames.first().is_some_and(|frame| frame == command);
    let lines = folded.stacks().filter(|(frames, _)| is_its(frames));
    Folded::parse(&lines.map(|(frames, count)| format!("{} {count}\n", frames.join(";"))).collect::<String>())
}

/// Processor time of a process in seconds (proc(5)).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn calm() -> Result<()> {
    let calm = Running::ready(Command::new(workload::c("short.c", &[])?).arg("60000"))?;
    let floods = Floods::start()?;
    let folder = workload::scratch()?;
    let file = folder.path().join("out.folded");
    let before = cpu_seconds(calm.pid())?;
    let mut command = Command::new(probe::binary());
    let output =
        probe::run_command(command.args(["record", "-a", "-d", "3", "-F", "199", "-o"]).arg(&file))?.expect(0)?;
    // The recording begins and ends within that time.
    let most = (cpu_seconds(calm.pid())? - before) * 199.0;
    let folded = Folded::parse(&std::fs::read_to_string(&file)?)?;
    let own = of(&folded, "short")?;
    own.expect("short_work", 0.97)?;
    own.expect("_start", 0.97)?;
    let samples = own.total() as f64;
    ensure!(samples > most * 0.4 && samples < most * 1.1, "{samples} samples, of {most} at most:\n{}", output.stderr);
    output.expect_stderr("mappings not followed: floods maps too much code")?;
    drop(floods);
    Ok(())
}

/// Each lives for a moment, in a family of which another member floods.
fn child() -> Result<()> {
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a readable path");
    let (short, floods) = (path(&workload::c("short.c", &[])?)?, path(&workload::c("floods.c", &[])?)?);
    let script = format!(
        "{floods} forks 1000 >/dev/null & flood=$!; i=0; while [ $i -lt 30 ]; do {short} 50 >/dev/null; i=$((i+1)); done; kill $flood"
    );
    let folded = of(&probe::record_with(&["-F", "199", "--", "sh", "-c", &script])?, "short")?;
    // 1.5 s of processor time at 199 samples a second.
    ensure!(folded.total() > 220, "{} samples instead of about 300", folded.total());
    folded.expect("short_work", 0.85)?;
    folded.expect("_start", 0.85)
}

fn daemon() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let service = Running::ready(Command::new(workload::c("hotcold.c", &[])?).args(["60", "0"]))?;
    let floods = Floods::start()?;
    let binary = std::fs::canonicalize(workload::c("floods.c", &[])?)?;
    let mut text = format!(
        "[sampling]\nfrequency = 49\n[[notify]]\nname = 'hook'\ntype = 'webhook'\nurl = '{}'\n\
         [[target]]\nname = 'checkout'\nmatch = {{ pid = {} }}\n[[target]]\nname = 'flood'\nmatch = {{ exe = '{}' }}\n",
        webhook.url(),
        service.pid(),
        binary.display()
    );
    for (target, above) in [("checkout", "30"), ("flood", "0.1")] {
        text += &format!(
            "[[rule]]\nname = '{target}-cpu'\ntarget = '{target}'\nmetric = 'cpu'\nabove = {above}\nfor = '1s'\n\
             snapshot = {{ threads = 2, before = '3s', after = '1s' }}\nnotify = ['hook']\n"
        );
    }
    let mut daemon = Daemon::run(&text, None)?;
    let flooded = of_target(&mut daemon, "flood", "starts too many")?;
    service.signal("USR1")?;
    let hot = of_target(&mut daemon, "checkout", "")?;
    expect_culprit(&daemon.sidecar(&hot)?)?;
    let folded = daemon.folded(&hot)?;
    folded.expect("match_rules", 0.5)?;
    folded.expect("clone3", 0.9)?;
    for id in [&hot, &flooded] {
        let losses = daemon.sidecar(id)?["losses"].to_string();
        ensure!(losses.contains("flood") == (*id == flooded), "{losses}");
    }
    drop(floods);
    daemon.stop()
}

/// Waits for a snapshot of a target that has lost something for this reason.
fn of_target(daemon: &mut Daemon, target: &str, reason: &str) -> Result<String> {
    let found = poll::until("a snapshot", BREACH, || find(daemon, target, reason).transpose());
    found.and_then(|id| id).with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))
}

fn find(daemon: &mut Daemon, target: &str, reason: &str) -> Result<Option<String>> {
    daemon.expect_alive()?;
    for id in daemon.ids()? {
        let sidecar = daemon.sidecar(&id)?;
        if sidecar["target"] == target && sidecar["losses"].to_string().contains(reason) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
