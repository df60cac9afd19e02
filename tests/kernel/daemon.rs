//! The daemon: what a breach leaves behind, and what goes wrong around it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::webhook::Webhook;
use probe_tests::{poll, probe, workload};
use serde_json::Value;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("daemon::calm_then_hot_leaves_exactly_one_snapshot_of_before_and_after", calm_then_hot),
        trial("daemon::a_target_that_starts_later_is_found_by_its_executable", starts_later),
        trial("daemon::a_target_that_dies_at_the_breach_keeps_its_names", dies),
        trial("daemon::a_failing_webhook_loses_no_snapshot", failing_webhook),
        trial("daemon::a_full_disk_loses_neither_the_snapshot_nor_the_alert", full_disk),
        trial("daemon::snapshots_are_listed_read_and_removed", snapshots),
        trial("daemon::a_leak_of_a_known_rate_is_found_and_blamed", leak),
        trial("daemon::resident_memory_above_a_size_is_a_breach", resident),
        trial("daemon::resident_memory_is_compared_with_what_the_host_has", share),
    ]
}

/// How long a breach may take from its cause to the stored snapshot: calm, `for`, `after`, and a busy machine.
pub(super) const BREACH: Duration = Duration::from_secs(45);

/// A daemon with a store of its own.
pub(super) struct Daemon {
    pub(super) running: Running,
    pub(super) config: PathBuf,
    log: PathBuf,
    store: PathBuf,
    _folders: [tempfile::TempDir; 2],
}

impl Daemon {
    /// Starts a daemon with one rule on the targets of a condition, with its store in `store` or a folder of its own.
    pub(super) fn start(condition: &str, url: &str, store: Option<&Path>) -> Result<Self> {
        Self::with_rule(condition, ("cpu", "30.0"), url, store)
    }

    /// The same with a rule on a metric: its name and the threshold, as they are written.
    fn with_rule(condition: &str, rule: (&str, &str), url: &str, store: Option<&Path>) -> Result<Self> {
        let (metric, above) = rule;
        let text = format!(
            r#"
[sampling]
frequency = 49
[[target]]
name = "checkout"
match = {{ {condition} }}
[[rule]]
name = "checkout-cpu"
target = "checkout"
metric = "{metric}"
above = {above}
for = "2s"
cooldown = "10m"
snapshot = {{ threads = 2, before = "4s", after = "2s" }}
notify = ["hook"]
[[notify]]
name = "hook"
type = "webhook"
url = "{url}"
"#,
        );
        Self::run(&text, store)
    }

    /// Starts a daemon by the rest of its configuration, with its store in `store` or a folder of its own.
    pub(super) fn run(text: &str, store: Option<&Path>) -> Result<Self> {
        Self::run_with(text, store, &[])
    }

    /// The same with variables of its environment.
    pub(super) fn run_with(text: &str, store: Option<&Path>, environment: &[(&str, &str)]) -> Result<Self> {
        Self::launch(text, store, |command, config| {
            command.envs(environment.iter().copied()).arg(config);
        })
    }

    /// Starts a daemon that is given its configuration by a relative path.
    pub(super) fn run_in_its_folder(text: &str) -> Result<Self> {
        Self::launch(text, None, |command, config| {
            command.current_dir(config.parent().unwrap_or(config)).arg("probe.toml");
        })
    }

    /// Starts a daemon; `complete` is given the command up to `--config`, and the file.
    fn launch(text: &str, store: Option<&Path>, complete: impl FnOnce(&mut Command, &Path)) -> Result<Self> {
        let folder = workload::scratch()?;
        // The server, which is not root, has its way through it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        // One of its own, which the server has no other reason to see.
        let place = workload::scratch()?;
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
        let config = place.path().join("probe.toml");
        let log = folder.path().join("log");
        let store = store.map_or_else(|| folder.path().join("store"), Path::to_path_buf);
        fs::write(&config, with_store(&store, text))?;
        let mut command = Command::new(fs::canonicalize(probe::binary())?);
        command.args(["daemon", "-v", "--config"]).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        complete(&mut command, &config);
        Ok(Self { running: Running::start(&mut command)?, config, log, store, _folders: [folder, place] })
    }

    /// Has it go on by another configuration.
    pub(super) fn reload(&self, text: &str) -> Result<()> {
        fs::write(&self.config, with_store(&self.store, text))?;
        self.running.signal("HUP")
    }

    /// `probe snapshots` with this daemon's store.
    pub(super) fn snapshots(&self, arguments: &[&str]) -> Result<probe::Output> {
        let config = self.config.to_str().context("a readable path")?;
        probe::run([&["snapshots"], arguments, &["--config", config]].concat())
    }

    /// The ids of the stored snapshots.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let list = self.snapshots(&["ls", "--json"])?.expect(0)?.json()?;
        let list = list.as_array().with_context(|| format!("not a list: {list}"))?;
        let id = |snapshot: &Value| snapshot["id"].as_str().map(str::to_owned).context("a snapshot without an id");
        list.iter().map(id).collect()
    }

    /// Waits for a snapshot.
    pub(super) fn snapshot(&mut self) -> Result<String> {
        let found = poll::until("a snapshot", BREACH, || {
            let alive = self.expect_alive();
            alive.and_then(|()| Ok(self.ids()?.pop())).transpose()
        });
        found.and_then(|id| id).with_context(|| format!("the daemon's log:\n{}", self.read_log()))
    }

    /// The sidecar of a snapshot.
    pub(super) fn sidecar(&self, id: &str) -> Result<Value> {
        self.snapshots(&["get", id, "--json"])?.expect(0)?.json()
    }

    /// The stacks of a snapshot.
    pub(super) fn folded(&self, id: &str) -> Result<Folded> {
        let output = self.snapshots(&["get", id, "-f", "folded", "-o", "-"])?.expect(0)?;
        Folded::parse(&output.stdout)
    }

    pub(super) fn read_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails unless the daemon still runs.
    pub(super) fn expect_alive(&mut self) -> Result<()> {
        ensure!(self.running.is_alive(), "the daemon has ended:\n{}", self.read_log());
        Ok(())
    }

    /// Ends it as a service manager would.
    pub(super) fn stop(mut self) -> Result<()> {
        self.expect_alive()?;
        self.running.signal("TERM")?;
        let status = self.running.wait(Duration::from_secs(15))?;
        ensure!(status.success(), "the daemon ends with {status}:\n{}", self.read_log());
        Ok(())
    }
}

fn with_store(store: &Path, text: &str) -> String {
    format!("[store]\npath = \"{}\"\n{text}", store.display())
}

/// Starts the service: calm for five seconds, then hot in `match_rules` of its thread `matcher`.
pub(super) fn service(hot_seconds: u32) -> Result<Running> {
    let binary = workload::c("hotcold.c", &[])?;
    Running::ready(Command::new(binary).args(["5", &hot_seconds.to_string()]))
}

pub(super) fn pid(service: &Running) -> String {
    format!("pid = {}", service.pid())
}

/// Waits for a request of a webhook and returns its body.
pub(super) fn called(webhook: &Webhook, daemon: &mut Daemon) -> Result<String> {
    let body = poll::until("a call of the webhook", BREACH, || {
        let alive = daemon.expect_alive();
        alive.map(|()| webhook.bodies().pop()).transpose()
    });
    body.and_then(|body| body).with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))
}

pub(super) fn expect_culprit(sidecar: &Value) -> Result<()> {
    ensure!(sidecar["threads"][0]["name"] == "matcher", "the hottest thread: {sidecar:#}");
    let culprit = sidecar["culprits"][0]["function"].as_str().unwrap_or_default();
    ensure!(culprit.contains("match_rules"), "the culprit is {culprit:?}: {sidecar:#}");
    Ok(())
}

fn calm_then_hot() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let target = service(0)?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), None)?;
    let id = daemon.snapshot()?;
    let sidecar = daemon.sidecar(&id)?;
    ensure!(sidecar["id"] == id.as_str() && sidecar["target"] == "checkout" && sidecar["rule"] == "checkout-cpu");
    ensure!(sidecar["process"]["pid"] == target.pid(), "the process: {sidecar:#}");
    expect_culprit(&sidecar)?;
    let time = |name: &str| instant(&sidecar[name]).with_context(|| format!("{name} in {sidecar:#}"));
    let (start, breach, end) = (time("started_at")?, time("breached_at")?, time("ended_at")?);
    ensure!(start < breach && breach < end, "from {start} over {breach} to {end}");
    // The windows before the breach are calm: the same thread did something else.
    daemon.folded(&id)?.expect("match_rules", 0.5)?;
    // All threads in the moment of the breach: the hot one, and the one that waits for it.
    let dump = daemon.snapshots(&["get", &id, "--window", "dump", "-f", "folded", "-o", "-"])?.expect(0)?;
    let dump = Folded::parse(&dump.stdout)?;
    ensure!(dump.total() == sidecar["process"]["threads"].as_u64().unwrap_or(0), "all threads: {}", dump.show());
    dump.expect("match_rules", 0.3)?;
    let states: Vec<_> = sidecar["threads"].as_array().into_iter().flatten().map(|thread| &thread["state"]).collect();
    ensure!(states.iter().any(|state| *state == "running" || *state == "runnable"), "{states:?}");
    let body = called(&webhook, &mut daemon)?;
    for word in ["checkout", "checkout-cpu", "match_rules", &id] {
        ensure!(body.contains(word), "no {word} in the webhook's {body}");
    }
    // It stays hot, but the rule is cooling down: neither a second snapshot nor a second call.
    let quiet = Instant::now();
    poll::until("six seconds", Duration::from_secs(8), || (quiet.elapsed().as_secs() >= 6).then_some(()))?;
    daemon.expect_alive()?;
    ensure!(daemon.ids()? == [id], "more than one snapshot: {:?}", daemon.ids()?);
    ensure!(webhook.bodies().len() == 1, "the webhook was called more than once: {:?}", webhook.bodies());
    daemon.stop()
}

/// A time of the sidecar as text that sorts by time: RFC 3339 in UTC does.
fn instant(value: &Value) -> Result<&str> {
    match value.as_str() {
        Some(text) if text.ends_with('Z') && text.contains('T') => Ok(text),
        _ => bail!("not a time in UTC: {value}"),
    }
}

fn starts_later() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let folder = workload::scratch()?;
    let binary = folder.path().join("checkout-late");
    fs::copy(workload::c("hotcold.c", &[])?, &binary)?;
    let mut daemon = Daemon::start(&format!("exe = \"{}*\"", binary.display()), webhook.url(), None)?;
    let target = Running::ready(Command::new(&binary).args(["4", "0"]))?;
    let id = daemon.snapshot()?;
    let sidecar = daemon.sidecar(&id)?;
    ensure!(sidecar["process"]["pid"] == target.pid(), "the process: {sidecar:#}");
    expect_culprit(&sidecar)?;
    daemon.stop()
}

fn dies() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    // Hot for four seconds: long enough to break the rule, gone before the snapshot is complete.
    let target = service(4)?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), None)?;
    let id = daemon.snapshot()?;
    expect_culprit(&daemon.sidecar(&id)?)?;
    daemon.folded(&id)?.expect("match_rules", 0.5)?;
    called(&webhook, &mut daemon)?;
    daemon.stop()
}

fn failing_webhook() -> Result<()> {
    let webhook = Webhook::listen("500 Internal Server Error")?;
    let target = service(0)?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), None)?;
    let id = daemon.snapshot()?;
    expect_culprit(&daemon.sidecar(&id)?)?;
    poll::until("a second attempt", BREACH, || (webhook.bodies().len() >= 2).then_some(()))?;
    daemon.expect_alive()?;
    daemon.stop()
}

fn full_disk() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let disk = Disk::tiny()?;
    let target = service(0)?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), Some(&disk.store()))?;
    // The disk fills while the daemon runs, as disks do.
    disk.fill()?;
    poll::until("the daemon says that the disk is full", BREACH, || {
        daemon.read_log().contains("No space left on device").then_some(())
    })?;
    daemon.expect_alive()?;
    ensure!(daemon.ids()?.is_empty(), "half a snapshot is listed: {:?}", daemon.ids()?);
    // What was seen meanwhile is kept as soon as there is room for it.
    disk.empty()?;
    let id = daemon.snapshot()?;
    expect_culprit(&daemon.sidecar(&id)?)?;
    let body = called(&webhook, &mut daemon)?;
    ensure!(body.contains(&id), "the webhook's {body}");
    daemon.stop()
}

/// A file system of its own that is soon full.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn tiny() -> Result<Self> {
        let folder = workload::scratch()?;
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(folder.path()).status()?;
        ensure!(mount.success(), "mount: {mount}");
        let disk = Self { folder };
        fs::create_dir(disk.store())?;
        Ok(disk)
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> Result<()> {
        for block in [65536, 4096, 1] {
            for number in 0.. {
                let file = self.folder.path().join(format!("filler-{block}-{number}"));
                if fs::write(file, vec![0; block]).is_err() {
                    break;
                }
                ensure!(number < 1000, "the file system does not become full");
            }
        }
        Ok(())
    }

    /// Makes room again.
    fn empty(&self) -> Result<()> {
        for entry in fs::read_dir(self.folder.path())? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"filler-") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

fn snapshots() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let target = service(0)?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), None)?;
    ensure!(daemon.ids()?.is_empty(), "snapshots of a new store: {:?}", daemon.ids()?);
    let id = daemon.snapshot()?;
    let table = daemon.snapshots(&["ls"])?.expect(0)?.stdout;
    ensure!(table.contains(&id) && table.contains("checkout"), "the table:\n{table}");
    for (filter, is_found) in [
        (&["--target", "checkout", "--rule", "checkout-cpu", "--since", "10m", "--limit", "5"] as &[&str], true),
        (&["--target", "search"], false),
        (&["--rule", "checkout"], false),
        (&["--until", "10m"], false),
        (&["--before", &id], false),
    ] {
        let found = daemon.snapshots(&[&["ls"], filter].concat())?.expect(0)?.stdout.contains(&id);
        ensure!(found == is_found, "ls {filter:?}");
    }
    // Its alert is still firing.
    ensure!(daemon.store.join(&id).join("pinned").exists(), "the snapshot is not pinned");
    let folder = workload::scratch()?;
    for name in ["out.html", "out.pb.gz", "out.svg"] {
        let file = folder.path().join(name);
        daemon.snapshots(&["get", &id, "-o", file.to_str().context("a readable path")?])?.expect(0)?;
        ensure!(fs::metadata(&file)?.len() > 100, "{name} is empty");
    }
    let nothing = daemon.snapshots(&["rm", "--target", "search"])?.expect(0)?;
    nothing.expect_stderr("removed 0 snapshots")?;
    daemon.snapshots(&["rm"])?.expect(2)?.expect_stderr("--since")?;
    ensure!(daemon.ids()? == [id.as_str()], "left after rm: {:?}", daemon.ids()?);
    daemon
        .snapshots(&["rm", "--target", "checkout", "--since", "1h"])?
        .expect(0)?
        .expect_stderr("removed 1 snapshot")?;
    ensure!(daemon.ids()?.is_empty(), "left after rm: {:?}", daemon.ids()?);
    let missing = daemon.snapshots(&["get", &id, "--json"])?;
    ensure!(missing.code.is_some_and(|code| code != 0), "{missing:#?}");
    missing.expect_stderr(&id)?;
    daemon.stop()
}

/// A service that leaks at a known rate in MiB a second, and gives back in another thread.
fn leaking(rate: f64) -> Result<Running> {
    let binary = workload::c("grows.c", &[])?;
    Running::ready(Command::new(binary).args(["leaks", "takes-and-gives"]).env("RATE_MIB", rate.to_string()))
}

/// The snapshot of a breach on memory: the leak is the culprit, by bytes, and both windows hold its growth.
fn expect_leak(daemon: &mut Daemon, metric: &str) -> Result<Value> {
    let id = daemon.snapshot()?;
    let sidecar = daemon.sidecar(&id)?;
    ensure!(sidecar["metric"] == metric, "the metric: {sidecar:#}");
    let culprit = &sidecar["culprits"][0];
    ensure!(culprit["function"] == "leaks", "the culprit: {sidecar:#}");
    let bytes = culprit["bytes"].as_u64().context("bytes of the culprit")?;
    ensure!(bytes > 4 << 20 && culprit["share"].as_f64() > Some(70.0), "the culprit: {sidecar:#}");
    ensure!(sidecar["threads"][0]["name"] == "leaks", "the thread that takes most: {sidecar:#}");
    for window in ["before", "breach"] {
        let output = daemon.snapshots(&["get", &id, "--window", window, "-f", "folded", "-o", "-"])?.expect(0)?;
        let folded = Folded::parse(&output.stdout)?;
        let is_growth = |frames: &[String]| {
            let has = |name: &str| frames.iter().any(|frame| frame == name);
            has("[resident]") && has("leaks") && has("start_thread")
        };
        let grown = folded.share(is_growth) * folded.total() as f64;
        ensure!(grown > f64::from(2 << 20), "{window} has {grown} bytes of the leak:\n{}", folded.show());
    }
    let cpu = daemon.snapshots(&["get", &id, "-e", "cpu", "-f", "folded", "-o", "-"])?.expect(0)?;
    ensure!(!cpu.stdout.contains("[resident]"), "time has no memory in it: {}", cpu.stdout);
    let text = daemon.snapshots(&["get", &id])?.expect(0)?.stdout;
    ensure!(text.contains("leaks (grows.c") && text.contains("MiB"), "{text}");
    Ok(sidecar)
}

fn leak() -> Result<()> {
    const RATE: f64 = 4.0;
    let webhook = Webhook::listen("200 OK")?;
    let target = leaking(RATE)?;
    let mut daemon = Daemon::with_rule(&pid(&target), ("memory.growth", "\"60MiB\""), webhook.url(), None)?;
    let sidecar = expect_leak(&mut daemon, "memory.growth")?;
    let (value, expected) = (sidecar["value"].as_f64().context("a value")?, RATE * 60.0 * 1048576.0);
    ensure!((0.85..1.15).contains(&(value / expected)), "{value} bytes a minute, not {expected}: {sidecar:#}");
    ensure!(sidecar["unit"] == "bytes a minute" && sidecar["threshold"] == 62_914_560.0, "{sidecar:#}");
    let body = called(&webhook, &mut daemon)?;
    ensure!(body.contains("leaks") && body.contains("60.0 MiB a minute"), "{body}");
    daemon.stop()
}

fn resident() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let target = leaking(4.0)?;
    let mut daemon = Daemon::with_rule(&pid(&target), ("memory.rss", "\"30MiB\""), webhook.url(), None)?;
    let sidecar = expect_leak(&mut daemon, "memory.rss")?;
    // The highest of the two seconds above: at most some seconds' growth.
    let value = sidecar["value"].as_f64().context("a value")? / 1048576.0;
    ensure!((30.0..60.0).contains(&value), "{value} MiB: {sidecar:#}");
    daemon.stop()
}

fn share() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    let total: f64 = total.trim().trim_end_matches(" kB").parse()?;
    // 30 MiB, if nothing limits the process; a limit lets it break sooner.
    let percent = format!("\"{:.4}%\"", 100.0 * 30.0 * 1024.0 / total);
    let target = leaking(4.0)?;
    let mut daemon = Daemon::with_rule(&pid(&target), ("memory.rss_percent", &percent), webhook.url(), None)?;
    let sidecar = expect_leak(&mut daemon, "memory.rss_percent")?;
    ensure!(sidecar["process"]["rss_bytes"].as_u64() > Some(8 << 20), "{sidecar:#}");
    daemon.stop()
}
