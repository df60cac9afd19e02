//! The two containers of the pod as processes: with the users, groups, capabilities, arguments, configuration and folders that
//! the manifest and a kubelet would give them, on a real breach of a process of somebody else.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Container;
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{poll, probe, workload};
use serde_json::Value;

use crate::manifest::{Manifest, capabilities};

pub fn tests() -> Vec<Trial> {
    vec![trial("pod::a_breach_is_kept_and_served_with_exactly_these_privileges", breach)]
}

/// From the start of the processes to the stored snapshot, on a busy machine.
const BREACH: Duration = Duration::from_secs(90);

/// The user of the service: neither root nor the server's.
const SERVICE: u32 = 47_117;

/// What a kubelet would tell of the node, by the paths of fields.
const NODE: [(&str, &str); 2] = [("spec.nodeName", "node-7"), ("status.hostIP", "192.0.2.7")];

const TOKEN: &str = "0123456789abcdef-read";

fn breach() -> Result<()> {
    let manifest = Manifest::read()?;
    let folder = workload::scratch()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let (service, exe) = service(folder.path())?;
    let volumes = Volumes::make(&manifest, folder.path(), &exe)?;
    let mut collector = start(&manifest, "collector", &volumes)?;
    let mut server = start(&manifest, "server", &volumes)?;
    let logs = || format!("the collector: {}\nthe server: {}", volumes.log("collector"), volumes.log("server"));

    let sidecar = poll::until("a snapshot from the server", BREACH, || {
        if !collector.is_alive() || !server.is_alive() {
            return Some(Err(anyhow::anyhow!("one of them has ended")));
        }
        let (_, list) = volumes.get("/api/v1/snapshots", Some(TOKEN)).ok()?;
        let list: Value = serde_json::from_str(&list).ok()?;
        let id = list["snapshots"].get(0)?["id"].as_str()?;
        let (_, sidecar) = volumes.get(&format!("/api/v1/snapshots/{id}"), Some(TOKEN)).ok()?;
        Some(serde_json::from_str::<Value>(&sidecar).context("no sidecar"))
    });
    let sidecar = sidecar.and_then(|sidecar| sidecar).with_context(logs)?;
    ensure!(sidecar["host"]["name"] == "node-7" && sidecar["host"]["ip"] == "192.0.2.7", "{:#}", sidecar["host"]);
    ensure!(sidecar["process"]["pid"] == service.pid(), "another process: {sidecar:#}");
    ensure!(sidecar["threads"][0]["name"] == "matcher", "the hottest thread: {sidecar:#}");
    ensure!(sidecar["threads"][0]["samples"].as_u64() >= Some(20), "hardly a sample: {sidecar:#}");
    let culprit = &sidecar["culprits"][0];
    ensure!(culprit["function"].as_str().is_some_and(|name| name.contains("match_rules")), "{culprit:#}");
    ensure!(culprit["file"].as_str().is_some_and(|file| file.ends_with("hotcold.c")), "no file: {culprit:#}");

    // What kubelet asks, without a token; and nobody else gets anything without one.
    for (path, token, status) in
        [("/healthz", None, 200), ("/readyz", None, 200), ("/api/v1/snapshots", None, 401), ("/metrics", None, 401)]
    {
        let (answered, body) = volumes.get(path, token)?;
        ensure!(answered == status, "{path}: {answered} {body}\n{}", logs());
    }
    // Not merely in spite of what is missing.
    let log = volumes.log("collector");
    for word in ["not permitted", "denied", "\"ERROR\""] {
        ensure!(!log.contains(word), "{word} in the collector's log: {log}");
    }
    for running in [&mut collector, &mut server] {
        running.signal("TERM")?;
        let status = running.wait(Duration::from_secs(10))?;
        ensure!(status.success(), "it ends with {status}: {}", logs());
    }
    Ok(())
}

/// Starts a service as a user of its own, from a folder that only this user sees; it is hot after five seconds.
fn service(folder: &Path) -> Result<(Running, PathBuf)> {
    let home = folder.join("home");
    fs::create_dir(&home)?;
    let exe = home.join("checkout");
    fs::copy(workload::c("hotcold.c", &[])?, &exe)?;
    for (path, mode) in [(&exe, 0o700), (&home, 0o700)] {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        chown(path, Some(SERVICE), Some(SERVICE))?;
    }
    let mut command = Command::new(require("setpriv")?);
    let user = SERVICE.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
    Ok((Running::ready(command.arg("--").arg(&exe).args(["5", "0"]))?, exe))
}

/// The volumes of the pod as a kubelet makes them, and the configuration with their paths.
struct Volumes {
    folder: PathBuf,
    port: u16,
}

impl Volumes {
    fn make(manifest: &Manifest, folder: &Path, exe: &Path) -> Result<Self> {
        // Free a moment ago; nobody else takes it on purpose.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let group = group(manifest)?;
        let volume = |name: &str, mode: u32, group: u32| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            chown(&path, Some(0), Some(group))?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            Ok(path)
        };
        // `DirectoryOrCreate` makes a folder of root's; what is empty or a secret belongs to the group of `fsGroup`.
        volume("store", 0o755, 0)?;
        volume("state", 0o755, 0)?;
        volume("run", 0o2777, group)?;
        let tokens = volume("tokens", 0o2755, group)?.join("tokens");
        fs::write(&tokens, format!("read {TOKEN}\n"))?;
        chown(&tokens, Some(0), Some(group))?;
        fs::set_permissions(&tokens, Permissions::from_mode(0o440))?;

        let mut text = manifest.probe_toml()?.to_owned();
        let at = |name: &str| format!("\"{}", folder.join(name).display());
        for (theirs, ours) in [
            ("\"/var/lib/probe-server", at("state")),
            ("\"/var/lib/probe", at("store")),
            ("\"/run/probe", at("run")),
            ("\"/etc/probe-tokens", at("tokens")),
            ("\"0.0.0.0:7117\"", format!("\"127.0.0.1:{port}\"")),
            ("\"/usr/bin/checkout*\"", format!("\"{}\"", exe.display())),
            // A busy machine gives it no more.
            ("above = 80.0", "above = 25.0".into()),
            ("for = \"10s\"", "for = \"2s\"".into()),
        ] {
            ensure!(text.contains(theirs), "{theirs} is not in the configuration: {text}");
            text = text.replacen(theirs, &ours, 1);
        }
        fs::write(folder.join("probe.toml"), text)?;
        Ok(Self { folder: folder.to_owned(), port })
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// Asks the server, and returns the status and the body of its answer.
    fn get(&self, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        // Version 1.0 has neither chunks nor connections that stay.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{token}\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }
}

fn group(manifest: &Manifest) -> Result<u32> {
    let context = manifest.pod()?.security_context.as_ref().context("no securityContext of the pod")?;
    Ok(u32::try_from(context.fs_group.context("no fsGroup")?)?)
}

/// Starts a container's process with what the manifest grants it, and nothing else.
fn start(manifest: &Manifest, name: &str, volumes: &Volumes) -> Result<Running> {
    let container: &Container = manifest.container(name)?;
    let context = container.security_context.as_ref().context("no securityContext")?;
    let number = |id: Option<i64>| id.map(|id| id.to_string()).context("no user or no group");
    let bounds = capabilities(container)?.iter().fold("-all".to_owned(), |bounds, name| {
        // By their numbers, as some tools do not know the newer names.
        let number = ::probe::sandbox::COLLECTOR.iter_names().find(|(known, _)| known == name);
        bounds + &number.map_or(String::new(), |(_, one)| format!(",+cap_{}", one.bits().trailing_zeros()))
    });
    let mut command = Command::new(require("setpriv")?);
    command.args(["--reuid", &number(context.run_as_user)?, "--regid", &number(context.run_as_group)?]);
    command.args(["--groups", &group(manifest)?.to_string(), "--inh-caps=-all", "--ambient-caps=-all"]);
    command.arg(format!("--bounding-set={bounds}")).arg("--no-new-privs").arg("--").arg(probe::binary());
    let config = volumes.folder.join("probe.toml");
    let config = config.to_str().context("a readable path")?;
    let arguments = container.args.iter().flatten();
    command.args(arguments.map(|argument| if argument == "/etc/probe/probe.toml" { config } else { argument }));
    let log = fs::File::create(volumes.folder.join(name))?;
    command.env_clear();
    for variable in container.env.iter().flatten() {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref()).context("no field")?;
        let (_, value) = NODE.iter().find(|(path, _)| *path == field.field_path).context("a field of the node")?;
        command.env(&variable.name, value);
    }
    Running::start(command.stdout(Stdio::null()).stderr(log))
}
