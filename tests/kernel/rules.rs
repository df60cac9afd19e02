//! Rules: when breaches begin and end, on processes whose behaviour is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{Skip, trial};
use probe_tests::{poll, workload};
use serde_json::Value;

use crate::daemon::{BREACH, Daemon};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("rules::a_step_is_a_change_against_the_average", change),
        trial("rules::a_breach_is_over_when_it_was_calm_for_long_enough", recovers),
        trial("rules::every_target_is_watched_by_one_rule", any_target),
        trial("rules::a_service_is_watched_as_a_whole", service),
        trial("rules::open_files_and_threads_are_counted", counts),
        trial("rules::what_is_too_hot_is_told_of_but_not_profiled", too_hot),
        trial("rules::quiet_hours_and_the_time_after_the_start_are_left_out", quiet),
        trial("rules::processor_time_is_compared_with_the_quota", quota),
        trial("rules::a_process_is_known_by_its_container_and_pod", container),
        trial("rules::waits_writes_switches_and_the_host_are_measured", others),
        trial("rules::a_process_is_sampled_faster_from_pending_to_resolved", faster),
    ]
}

/// A target of a process.
fn target(name: &str, pid: u32) -> String {
    format!("[[target]]\nname = \"{name}\"\nmatch = {{ pid = {pid} }}\n")
}

/// A rule, with a snapshot that is soon complete.
fn rule(name: &str, target: &str, metric: &str, more: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\ntarget = \"{target}\"\nmetric = \"{metric}\"\n\
         snapshot = {{ before = \"2s\", after = \"1s\" }}\n{more}\n"
    )
}

/// A workload that uses something, see `uses.c`.
fn uses(what: &str, number: &str, times: &[&str]) -> Result<Running> {
    let binary = workload::c("uses.c", &[])?;
    // Ahead of others: a machine that does much else is to leave it its processor time.
    Running::ready(Command::new("nice").args(["-n", "-15"]).arg(binary).args([what, number]).args(times))
}

/// Waits until so many snapshots are stored; their sidecars.
fn sidecars(daemon: &mut Daemon, count: usize) -> Result<Vec<Value>> {
    let found = poll::until(&format!("{count} snapshots"), BREACH, || {
        let ids = daemon.expect_alive().and_then(|()| daemon.ids());
        ids.map(|ids| (ids.len() >= count).then_some(ids)).transpose()
    });
    let ids = found.and_then(|ids| ids).with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))?;
    ids.iter().map(|id| daemon.sidecar(id)).collect()
}

fn only(mut sidecars: Vec<Value>) -> Result<Value> {
    ensure!(sidecars.len() == 1, "{} snapshots", sidecars.len());
    sidecars.pop().context("there is one")
}

fn number(sidecar: &Value, key: &str) -> Result<f64> {
    sidecar[key].as_f64().with_context(|| format!("no {key}: {sidecar:#}"))
}

/// Waits until the log says something, so many times.
fn log_says(daemon: &mut Daemon, text: &str, times: usize) -> Result<()> {
    let found = poll::until(&format!("`{text}` in the log"), BREACH, || {
        (daemon.read_log().matches(text).count() >= times).then_some(())
    });
    found.with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))?;
    daemon.expect_alive()
}

fn change() -> Result<()> {
    // The average is taken while it is calm.
    let service = uses("cpu", "0", &["10", "600"])?;
    let more = "change = 100\nwindows = 4\nmin = 10\nfor = \"2s\"";
    let text = target("stepper", service.pid()) + &rule("step", "stepper", "cpu", more);
    let mut daemon = Daemon::run(&text, None)?;
    let sidecar = only(sidecars(&mut daemon, 1)?)?;
    let (value, threshold) = (number(&sidecar, "value")?, number(&sidecar, "threshold")?);
    ensure!((10.0..60.0).contains(&threshold) && value > threshold, "{value} above {threshold}: {sidecar:#}");
    ensure!(sidecar["unit"] == "percent of one core" && sidecar["side"] == "above", "{sidecar:#}");
    ensure!(sidecar["culprits"][0]["function"] == "burns", "{sidecar:#}");
    daemon.stop()
}

fn recovers() -> Result<()> {
    // Twenty files in use, none for a moment, in use again, then none for ever.
    let service = uses("files", "20", &["6", "4", "2", "4", "600"])?;
    let more = "above = 15\nclear_below = 10\nfor = \"1s\"\ncooldown = 0\nkeep_firing_for = \"6s\"";
    let plain = rule("plain", "opener", "fds", "above = 15\nfor = \"1s\"\ncooldown = 0");
    let text = target("opener", service.pid()) + &rule("patient", "opener", "fds", more) + &plain;
    let mut daemon = Daemon::run(&text, None)?;
    log_says(&mut daemon, "patient: opener (pid ", 1)?;
    log_says(&mut daemon, "): resolved after", 3)?;
    let log = daemon.read_log();
    let resolved = |name: &str| {
        let lines = log.lines().filter(|line| line.contains("resolved after"));
        lines.filter(|line| line.contains(&format!("{name}: opener"))).count()
    };
    ensure!((resolved("patient"), resolved("plain")) == (1, 2), "{log}");
    let of_rule = |sidecars: &[Value], rule: &str| sidecars.iter().filter(|sidecar| sidecar["rule"] == rule).count();
    let sidecars = sidecars(&mut daemon, 3)?;
    ensure!((of_rule(&sidecars, "patient"), of_rule(&sidecars, "plain")) == (1, 2), "{log}");
    daemon.stop()
}

fn quiet() -> Result<()> {
    let service = uses("files", "30", &["1", "600"])?;
    let all_week = "quiet = [\"Mon-Sun 00:00-24:00\"]";
    let rule = |name: &str, more: &str| rule(name, "opener", "fds", &format!("above = 25\nfor = \"1s\"\n{more}"));
    // One that begins at once, and one that begins when both of the others would have begun long ago.
    let text = target("opener", service.pid())
        + &rule("asleep", all_week)
        + &rule("new", "warm_up = \"1h\"")
        + &rule("early", "")
        + &rule("late", "warm_up = \"15s\"");
    let mut daemon = Daemon::run(&text, None)?;
    let sidecars = sidecars(&mut daemon, 2)?;
    let mut names: Vec<_> = sidecars.iter().filter_map(|sidecar| sidecar["rule"].as_str()).collect();
    names.sort_unstable();
    ensure!(names == ["early", "late"], "{names:?}");
    let log = daemon.read_log();
    ensure!(!log.contains("asleep: ") && !log.contains("new: "), "{log}");
    daemon.stop()
}

fn any_target() -> Result<()> {
    let (one, other) = (uses("files", "30", &["3", "600"])?, uses("files", "30", &["3", "600"])?);
    let calm = uses("files", "3", &["3", "600"])?;
    let targets = target("one", one.pid()) + &target("other", other.pid()) + &target("calm", calm.pid());
    let mut daemon = Daemon::run(&(targets + &rule("many", "*", "fds", "above = 25\nfor = \"1s\"")), None)?;
    let sidecars = sidecars(&mut daemon, 2)?;
    let who = |sidecar: &Value| {
        (
            sidecar["target"].as_str().unwrap_or_default().to_owned(),
            sidecar["process"]["pid"].as_u64().unwrap_or_default(),
        )
    };
    let mut found: Vec<_> = sidecars.iter().map(who).collect();
    found.sort();
    ensure!(found == [("one".into(), one.pid().into()), ("other".into(), other.pid().into())], "{found:?}");
    daemon.stop()
}

fn service() -> Result<()> {
    let (one, other) = (uses("threads", "6", &["3", "600"])?, uses("threads", "9", &["3", "600"])?);
    let binary = workload::c("uses.c", &[])?.canonicalize()?;
    // Others may run the same workload: what is watched is told apart by its arguments.
    let matches = format!("match = {{ exe = \"{}\", cmdline = \"threads [69] 3 600\" }}\n", binary.display());
    let text = format!("[[target]]\nname = \"crew\"\n{matches}")
        + &rule("crowd", "crew", "threads", "per = \"service\"\nabove = 16\nfor = \"1s\"");
    let mut daemon = Daemon::run(&text, None)?;
    let sidecar = only(sidecars(&mut daemon, 1)?)?;
    ensure!(number(&sidecar, "value")? == 17.0, "7 and 10 threads: {sidecar:#}");
    ensure!(sidecar["process"]["pid"] == other.pid(), "the one with most of them, not {}: {sidecar:#}", one.pid());
    daemon.stop()
}

fn counts() -> Result<()> {
    let (files, threads) = (uses("files", "200", &["4", "600"])?, uses("threads", "50", &["4", "600"])?);
    let text = target("files", files.pid())
        + &target("threads", threads.pid())
        + &rule("files", "files", "fds", "above = 150\nfor = \"1s\"")
        + &rule("threads", "threads", "threads", "above = 40\nfor = \"1s\"");
    let mut daemon = Daemon::run(&text, None)?;
    for sidecar in sidecars(&mut daemon, 2)? {
        let (value, pid) = (number(&sidecar, "value")?, &sidecar["process"]["pid"]);
        if sidecar["rule"] == "files" {
            ensure!((200.0..210.0).contains(&value) && *pid == files.pid(), "{sidecar:#}");
        } else {
            ensure!(value == 51.0 && *pid == threads.pid() && sidecar["unit"] == "threads", "{sidecar:#}");
        }
    }
    daemon.stop()
}

fn too_hot() -> Result<()> {
    let service = uses("threads", "50", &["3", "4", "600"])?;
    let text = target("crowd", service.pid())
        + &rule("hot", "crowd", "threads", "above = 20\nmax = 40\nfor = \"1s\"\ncooldown = 0");
    let mut daemon = Daemon::run(&text, None)?;
    log_says(&mut daemon, "threads 51 above 20 threads; too busy to be profiled", 1)?;
    log_says(&mut daemon, "resolved after", 1)?;
    ensure!(daemon.ids()?.is_empty(), "{:?}", daemon.ids()?);
    daemon.stop()
}

/// A control group of its own with a quota; removed when it is dropped, after its processes.
struct Group(PathBuf);

impl Group {
    /// One below those that are there.
    fn new(parent: &Path, name: &str) -> Result<Self> {
        let folder = parent.join(name);
        fs::create_dir(&folder).map_err(|error| Skip(format!("no control group {}: {error}", folder.display())))?;
        Ok(Self(folder))
    }

    /// One that allows a part of a core.
    fn with_quota(cores: f64) -> Result<Self> {
        let quota = (cores * 100_000.0) as u64;
        let name = format!("probe-test-{}", std::process::id());
        for (root, file, text) in [
            ("/sys/fs/cgroup", "cpu.max", format!("{quota} 100000")),
            ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", quota.to_string()),
        ] {
            let folder = Path::new(root).join(&name);
            if fs::create_dir(&folder).is_ok() {
                let group = Self(folder);
                // Where the controller is not in this hierarchy there is no such file.
                if group.0.join(file).exists() && fs::write(group.0.join(file), text).is_ok() {
                    return Ok(group);
                }
            }
        }
        Err(Skip("no control group with a quota can be made".to_owned()).into())
    }

    fn take(&self, pid: u32) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("{} takes {pid}", self.0.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = poll::until("an empty group", Duration::from_secs(5), || fs::remove_dir(&self.0).ok());
    }
}

fn quota() -> Result<()> {
    let group = Group::with_quota(0.3)?;
    let service = uses("cpu", "0", &["4", "600"])?;
    group.take(service.pid())?;
    let text = target("small", service.pid())
        + &rule("throttled", "small", "cpu.quota", "above = 60\nfor = \"2s\"")
        + &rule("busy", "small", "cpu", "above = 60\nfor = \"2s\"");
    let mut daemon = Daemon::run(&text, None)?;
    let sidecar = only(sidecars(&mut daemon, 1)?)?;
    ensure!(sidecar["rule"] == "throttled", "{sidecar:#}");
    let value = number(&sidecar, "value")?;
    ensure!((60.0..140.0).contains(&value), "{value} percent of the quota: {sidecar:#}");
    let cpu = number(&sidecar["process"], "cpu_percent")?;
    ensure!((12.0..45.0).contains(&cpu), "{cpu} percent of a core: {sidecar:#}");
    drop(service);
    daemon.stop()
}

fn container() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let unified = root.join("unified");
    let root = if unified.exists() { unified.as_path() } else { root };
    // As a kubelet would name them; the ids say whose they are.
    let uid = format!("{:08x}-0000-4000-8000-000000000000", std::process::id());
    let id = format!("{:064x}", std::process::id());
    let pods = Group::new(root, &format!("probe-test-kubepods-{}", std::process::id()))?;
    let pod = Group::new(&pods.0, &format!("pod{uid}"))?;
    let group = Group::new(&pod.0, &format!("cri-containerd-{id}.scope"))?;
    let service = uses("files", "30", &["3", "600"])?;
    group.take(service.pid())?;
    let text = target("boxed", service.pid()) + &rule("many", "boxed", "fds", "above = 25\nfor = \"1s\"");
    let mut daemon = Daemon::run(&text, None)?;
    let sidecar = only(sidecars(&mut daemon, 1)?)?;
    let process = &sidecar["process"];
    ensure!(process["container"] == id.as_str() && process["pod"] == uid.as_str(), "{sidecar:#}");
    daemon.stop()?;
    drop(service);
    // The inner ones first.
    drop((group, pod, pods));
    Ok(())
}

fn others() -> Result<()> {
    let folder = workload::scratch()?;
    let file = folder.path().join("written");
    let writer = uses("disk", file.to_str().context("a readable path")?, &["1", "600"])?;
    // Twenty threads that wake fifty times a second.
    let switcher = uses("threads", "20", &["1", "600"])?;
    // Two threads that want a core each and have one of them together.
    let binary = workload::c("threads.c", &[])?;
    let queued = Running::ready(Command::new("taskset").args(["-c", "0"]).arg(binary))?;
    let targets =
        target("writer", writer.pid()) + &target("switcher", switcher.pid()) + &target("queued", queued.pid());
    let mut rules = vec![
        ("writes", "writer", "io.write", "above = \"2MiB/s\"", (2e6, 1e9), &writer),
        ("switches", "switcher", "switches.voluntary", "above = 300", (300.0, 1300.0), &switcher),
        ("queue", "queued", "offcpu.runqueue", "above = 50", (50.0, 210.0), &queued),
        ("either", "queued", "offcpu", "above = 50", (50.0, 400.0), &queued),
        ("thread", "queued", "cpu", "per = \"thread\"\nabove = 5", (5.0, 102.0), &queued),
        ("share", "queued", "cpu.host", "above = 2", (2.0, 102.0), &queued),
        ("host", "queued", "host.cpu", "above = 5", (5.0, 100.0), &queued),
        ("memory", "queued", "host.memory", "above = 0.1", (0.1, 100.0), &queued),
    ];
    if Path::new("/proc/pressure/cpu").exists() {
        rules.push(("pressure", "queued", "pressure.cpu", "above = 1", (1.0, 100.0), &queued));
    }
    let text: String = rules
        .iter()
        .map(|(name, target, metric, more, ..)| rule(name, target, metric, &format!("{more}\nfor = 0")))
        .collect();
    let mut daemon = Daemon::run(&(targets + &text), None)?;
    let sidecars = sidecars(&mut daemon, rules.len())?;
    for (name, _, metric, _, (low, high), process) in rules {
        let sidecar = sidecars.iter().find(|sidecar| sidecar["rule"] == name).with_context(|| format!("no {name}"))?;
        let value = number(sidecar, "value")?;
        ensure!((low..=high).contains(&value), "{metric} is {value}: {sidecar:#}");
        ensure!(sidecar["metric"] == metric && sidecar["process"]["pid"] == process.pid(), "{sidecar:#}");
    }
    let of = |rule: &str| sidecars.iter().find(|sidecar| sidecar["rule"] == rule).context("checked above");
    let (thread, process) = (number(of("thread")?, "value")?, number(&of("thread")?["process"], "cpu_percent")?);
    ensure!(thread < 0.9 * process, "the hottest of two threads has {thread} of {process} percent");
    daemon.stop()
}

fn faster() -> Result<()> {
    let service = uses("cpu", "0", &["6", "12", "600"])?;
    let text = "[sampling]\nfrequency = 19\n".to_owned()
        + &target("bursts", service.pid())
        + "[[rule]]\nname = \"burst\"\ntarget = \"bursts\"\nmetric = \"cpu\"\nabove = 10\nfor = \"2s\"\n\
           keep_firing_for = \"2s\"\nsnapshot = { before = \"4s\", after = \"5s\" }\n";
    let mut daemon = Daemon::run(&text, None)?;
    let sidecar = only(sidecars(&mut daemon, 1)?)?;
    let thread = &sidecar["threads"][0];
    let (samples, cpu_percent) = (number(thread, "samples")?, number(thread, "cpu_percent")?);
    // Two seconds of the rule, five after, and the one in which it began, which was over when it was looked at.
    const SECONDS: f64 = 8.0;
    let cpu_seconds = SECONDS * cpu_percent / 100.0;
    let rate = samples / cpu_seconds;
    ensure!((60.0..=100.0).contains(&rate), "{rate} samples for a second of processor time, of 99: {sidecar:#}");
    // Samples at either rate stand for the time that the kernel has counted.
    let counted = number(&sidecar["process"], "cpu_percent")?;
    ensure!((0.6..1.5).contains(&(cpu_percent / counted)), "{cpu_percent} of {counted} percent: {sidecar:#}");
    log_says(&mut daemon, "resolved after", 1)?;
    log_says(&mut daemon, "sampled as usual again", 1)?;
    ensure!(daemon.read_log().contains("sampled faster"), "{}", daemon.read_log());
    daemon.stop()
}
