//! `cargo xtask demo`: the whole product in one command. A service turns hot, the daemon notices, keeps the scene and
//! calls a webhook; what it found is printed, and the flamegraph is a file to open.

mod listener;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell;
use listener::Listener;

/// How long to wait for the alert: calm, the rule's `for`, the snapshot's `after`, and a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `cargo xtask demo`.
pub fn run() -> Result<()> {
    let root = shell::as_root("true");
    ensure!(root.is_some(), "the demonstration loads programs into the kernel: run it as root, or with sudo set up");
    let probe = shell::build_probe()?;
    let folder = shell::target_dir().join("demo");
    // An earlier demonstration's store belongs to root.
    shell::run(shell::as_root("rm").context("root is here")?.arg("-rf").arg(&folder))?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;

    let webhook = Listener::start()?;
    let service = Ended(Command::new(build_service(&folder)?).stdout(Stdio::null()).spawn()?);
    let config = folder.join("probe.toml");
    fs::write(&config, configuration(service.0.id(), &folder, webhook.url()))?;
    println!("The service `checkout` runs as process {}: calm now, hot in eight seconds.", service.0.id());
    println!("probe daemon --config {}", config.display());
    let log = folder.join("daemon.log");
    let mut daemon = start_daemon(&probe, &config, &log)?;

    let alert = wait_for_alert(&webhook, &mut daemon, &log)?;
    println!("\nThe alert that the webhook was sent:\n{}", pretty(&alert));
    let snapshots = |arguments: &[&str]| -> Result<String> {
        let mut command = shell::as_root(&probe).context("root is here")?;
        command.arg("snapshots").args(arguments).arg("--config").arg(&config);
        shell::output(&mut command).with_context(|| format!("`{}` failed", shell::show(&command)))
    };
    let list: Value =
        serde_json::from_str(&snapshots(&["ls", "--json"])?).context("the list of snapshots is no JSON")?;
    let id = list[0]["id"].as_str().context("an alert, but no snapshot")?;
    let sidecar =
        serde_json::from_str(&snapshots(&["get", id, "--json"])?).context("the snapshot's sidecar is no JSON")?;
    let flamegraph = folder.join("flamegraph.html");
    snapshots(&["get", id, "-o", flamegraph.to_str().context("the checkout's path is not readable")?])?;
    print_findings(&sidecar, id);
    println!("Flamegraph: {}", flamegraph.display());
    Ok(())
}

/// A program that is ended, by its process id, when it is no longer needed.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Through kill and not through the standard library, because what runs under sudo is root's; sudo hands it on.
        if let Some(mut kill) = shell::as_root("kill") {
            let _ = kill.arg("-TERM").arg(self.0.id().to_string()).stderr(Stdio::null()).status();
        }
        let _ = self.0.wait();
    }
}

fn build_service(folder: &Path) -> Result<PathBuf> {
    let binary = folder.join("checkout");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-O", "-g", "-Cforce-frame-pointers=yes", "-o"]).arg(&binary);
    shell::run(rustc.arg(shell::checkout().join("xtask/demo/checkout.rs")))?;
    Ok(binary)
}

fn configuration(pid: u32, folder: &Path, url: &str) -> String {
    format!(
        r#"[store]
path = "{}"

[[target]]
name = "checkout"
match = {{ pid = {pid} }}

[[rule]]
name = "checkout-cpu"
target = "checkout"
metric = "cpu"       # percent of one core
above = 50.0
for = "3s"
snapshot = {{ threads = 2, before = "10s", after = "3s" }}
notify = ["demo"]

[[notify]]
name = "demo"
type = "webhook"
url = "{url}"
"#,
        folder.join("store").display()
    )
}

fn start_daemon(probe: &Path, config: &Path, log: &Path) -> Result<Ended> {
    let mut command = shell::as_root(probe).context("root is here")?;
    command.args(["daemon", "-v", "--config"]).arg(config);
    let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?).spawn();
    Ok(Ended(daemon.with_context(|| format!("cannot run `{}`", shell::show(&command)))?))
}

fn wait_for_alert(webhook: &Listener, daemon: &mut Ended, log: &Path) -> Result<String> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        if let Some(body) = webhook.next(Duration::from_millis(500)) {
            return Ok(body);
        }
        if let Some(status) = daemon.0.try_wait()? {
            bail!("the daemon has ended with {status}:\n{}", fs::read_to_string(log).unwrap_or_default());
        }
    }
    bail!("no alert within {LIMIT:?}; the daemon's log:\n{}", fs::read_to_string(log).unwrap_or_default())
}

/// JSON with a line for each member; anything else as it is.
fn pretty(body: &str) -> String {
    let json = serde_json::from_str::<Value>(body).ok();
    json.and_then(|json| serde_json::to_string_pretty(&json).ok()).unwrap_or_else(|| body.to_owned())
}

fn print_findings(sidecar: &Value, id: &str) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    println!("\nSnapshot:   {id}, from {} to {}", text(&sidecar["started_at"]), text(&sidecar["ended_at"]));
    for thread in sidecar["threads"].as_array().into_iter().flatten() {
        println!("Thread:     {} at {} % of a core", text(&thread["name"]), text(&thread["cpu_percent"]));
    }
    let culprit = &sidecar["culprits"][0];
    let percent = |value: &Value| value.as_f64().map_or_else(|| "?".to_owned(), |share| format!("{share:.0} %"));
    println!(
        "Culprit:    {}, {} of the samples, {} before",
        text(&culprit["function"]),
        percent(&culprit["share"]),
        percent(&culprit["baseline_share"])
    );
}
