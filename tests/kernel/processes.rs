//! The processes of the daemon: what each may do, and that either may be killed at any time.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::poll;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::webhook::Webhook;

use crate::daemon::{BREACH, Daemon, called, pid, service};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("processes::the_collector_has_its_capabilities_and_no_network", collector_is_confined),
        trial("processes::the_server_is_nobody_and_has_no_capability", server_is_confined),
        trial("processes::a_collector_that_is_killed_comes_back_and_keeps_its_snapshots", collector_is_killed),
        trial("processes::an_alert_leaves_though_nothing_can_be_named", names_hang),
        trial("processes::a_file_that_the_server_cannot_read_is_refused_by_both", unreadable),
        trial("processes::it_starts_again_at_once_when_its_supervisor_was_killed", starts_again_at_once),
        trial("processes::a_server_that_is_killed_comes_back_and_tells_what_it_had_to", server_is_killed),
        trial("processes::both_end_with_their_supervisor", supervisor_is_killed),
        trial("processes::it_stops_within_five_seconds", stops),
        trial("processes::a_bad_file_changes_nothing_and_says_why", bad_file),
        trial("processes::a_file_that_does_not_go_with_changes_is_refused_by_both", misfit),
        trial("processes::the_file_is_found_again_by_a_relative_path", relative_path),
        trial("processes::the_service_manager_is_told", service_manager),
    ]
}

/// CAP_DAC_READ_SEARCH, IPC_LOCK, SYS_PTRACE, SYS_RESOURCE, SYSLOG, PERFMON, BPF and CHECKPOINT_RESTORE.
const CAPABILITIES: u64 = 1 << 2 | 1 << 14 | 1 << 19 | 1 << 24 | 1 << 34 | 1 << 38 | 1 << 39 | 1 << 40;

/// How long a process may take to come back, on a busy machine.
const BACK: Duration = Duration::from_secs(20);

const CALM: &str = "[[target]]\nname = \"nothing\"\nmatch = { comm = \"no-such-name\" }\n";

/// A daemon with both of its processes at work.
fn started(text: &str) -> Result<Daemon> {
    let daemon = Daemon::run(text, None)?;
    for name in ["collector", "server"] {
        is_ready(&daemon, name, 1)?;
    }
    Ok(daemon)
}

/// Waits until a process has said so many times that it is ready.
pub(super) fn is_ready(daemon: &Daemon, name: &str, times: usize) -> Result<()> {
    let said = format!("the {name} is ready");
    poll::until(&said, BACK, || (daemon.read_log().matches(&said).count() >= times).then_some(()))
        .with_context(|| daemon.read_log())
}

/// A field of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {field} of pid {pid}"))?.trim().to_owned())
}

fn capabilities(pid: u32, field: &str) -> Result<u64> {
    Ok(u64::from_str_radix(&status(pid, field)?, 16)?)
}

/// The numbers of the sockets that a process has open.
fn sockets(pid: u32) -> Result<BTreeSet<String>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let number =
        |link: std::path::PathBuf| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    Ok(links.filter_map(number).collect())
}

/// The numbers of the sockets of a family that its network has.
fn of_network(pid: u32, tables: &[&str], column: usize) -> BTreeSet<String> {
    let texts = tables.iter().filter_map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok());
    let numbers = |text: String| -> Vec<String> {
        text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(column).map(str::to_owned)).collect()
    };
    texts.flat_map(numbers).collect()
}

fn collector_is_confined() -> Result<()> {
    let daemon = started(CALM)?;
    let collector = daemon.running.descendant("probe-collector")?;
    let own = capabilities(std::process::id(), "CapPrm")?;
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        let held = capabilities(collector, field)?;
        // Not those that this host does not give to anybody.
        ensure!(held == CAPABILITIES & own, "{field} is {held:x}");
    }
    ensure!(status(collector, "NoNewPrivs")? == "1" && status(collector, "Seccomp")? == "2", "it can have more again");
    // By all of its threads.
    for thread in fs::read_dir(format!("/proc/{collector}/task"))?.flatten() {
        let text = fs::read_to_string(thread.path().join("status"))?;
        ensure!(text.contains("Seccomp:\t2") && text.contains("NoNewPrivs:\t1"), "a thread is not confined: {text}");
        let held = format!("CapEff:\t{:016x}", CAPABILITIES & own);
        ensure!(text.contains(&held), "a thread has more: {text}");
    }
    let open = sockets(collector)?;
    let local = of_network(collector, &["unix"], 6);
    let foreign: Vec<_> = open.difference(&local).collect();
    ensure!(!open.is_empty() && foreign.is_empty(), "sockets {foreign:?} of {open:?} are not within the host");
    let inet = of_network(collector, &["tcp", "tcp6", "udp", "udp6", "raw", "raw6"], 9);
    ensure!(open.is_disjoint(&inet), "it has a socket of the network");
    ensure!(daemon.read_log().contains("sockets of the network are refused"), "{}", daemon.read_log());
    daemon.stop()
}

fn server_is_confined() -> Result<()> {
    let daemon = started(CALM)?;
    let server = daemon.running.descendant("probe-server")?;
    for field in ["CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"] {
        ensure!(capabilities(server, field)? == 0, "{field} is {}", status(server, field)?);
    }
    let uids = status(server, "Uid")?;
    let uids: Vec<&str> = uids.split_whitespace().collect();
    ensure!(uids.iter().all(|uid| *uid == uids[0]) && uids[0] != "0", "it runs as {uids:?}");
    ensure!(status(server, "Groups")?.is_empty(), "it has groups: {}", status(server, "Groups")?);
    ensure!(status(server, "NoNewPrivs")? == "1" && status(server, "Seccomp")? == "2", "it can have more again");
    // The supervisor has nothing that could be reached.
    ensure!(sockets(daemon.running.pid())?.is_empty(), "the supervisor has sockets");
    daemon.stop()
}

/// Kills a process of the daemon, and waits until another has taken its place.
fn kill(daemon: &Daemon, comm: &str, name: &str, times: usize) -> Result<()> {
    let pid = daemon.running.descendant(comm)?;
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    ensure!(killed.success(), "pid {pid} cannot be killed");
    is_ready(daemon, name, times)?;
    ensure!(daemon.running.descendant(comm)? != pid, "it is the same process");
    ensure!(daemon.read_log().contains(&format!("the {name} ended by signal 9; it is started again")));
    Ok(())
}

fn collector_is_killed() -> Result<()> {
    let webhook = Webhook::listen("200 OK")?;
    let mut target = service(0)?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), None)?;
    let first = daemon.snapshot()?;
    called(&webhook, &mut daemon)?;
    kill(&daemon, "probe-collector", "collector", 2)?;
    ensure!(daemon.ids()?.contains(&first), "the snapshot is gone");
    // It goes on from where the other was: nothing is told again, and the end is told as soon as it is known.
    let goes_on = || daemon.read_log().contains("it was firing before and is still watched").then_some(());
    poll::until("the alert goes on", BACK, goes_on).with_context(|| daemon.read_log())?;
    target.signal("KILL")?;
    target.wait(BACK)?;
    let ended = || webhook.bodies().iter().any(|body| body.contains("\"status\":\"resolved\"")).then_some(());
    poll::until("the end is told", BACK, ended).with_context(|| daemon.read_log())?;
    let firing = webhook.bodies().iter().filter(|body| body.contains("\"status\":\"firing\"")).count();
    ensure!(firing == 1 && daemon.ids()?.len() == 1, "told {firing} times:\n{}", daemon.read_log());
    daemon.stop()
}

/// A file beside the executable that can be opened, and from which nothing ever comes.
fn names_hang() -> Result<()> {
    let folder = probe_tests::workload::scratch()?;
    let program = folder.path().join("hotcold");
    fs::copy(probe_tests::workload::c("hotcold.c", &[])?, &program)?;
    let fifo = Command::new("mkfifo").arg(folder.path().join("hotcold.dwp")).status()?;
    ensure!(fifo.success(), "there is no FIFO");
    let webhook = Webhook::listen("200 OK")?;
    let target = Running::ready(Command::new(&program).args(["5", "0"]))?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), None)?;
    let body = called(&webhook, &mut daemon)?;
    ensure!(body.contains("\"snapshot\""), "without a link: {body}");
    daemon.running.signal("KILL")?;
    Ok(())
}

fn unreadable() -> Result<()> {
    let daemon = started(CALM)?;
    let (server, file) = (daemon.running.descendant("probe-server")?, daemon.config.clone());
    if status(server, "Uid")?.starts_with('0') {
        return Ok(());
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    daemon.reload(&CALM.replace("nothing", "something"))?;
    let refused = || daemon.read_log().contains("cannot read the configuration").then_some(());
    poll::until("it is refused", BACK, refused).with_context(|| daemon.read_log())?;
    ensure!(!daemon.read_log().contains("the configuration has changed"), "{}", daemon.read_log());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    daemon.running.signal("HUP")?;
    let taken = || daemon.read_log().contains("the configuration has changed").then_some(());
    poll::until("both take it over", BACK, taken).with_context(|| daemon.read_log())?;
    daemon.stop()
}

fn starts_again_at_once() -> Result<()> {
    let folder = probe_tests::workload::scratch()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let store = folder.path().join("store");
    for _ in 0..3 {
        let daemon = Daemon::run(CALM, Some(&store))?;
        is_ready(&daemon, "server", 1)?;
        is_ready(&daemon, "collector", 1)?;
        daemon.running.signal("KILL")?;
    }
    let daemon = Daemon::run(CALM, Some(&store))?;
    is_ready(&daemon, "collector", 1)?;
    daemon.stop()
}

fn server_is_killed() -> Result<()> {
    // It is asked, and does not want: the alert has to outlive whoever tells it.
    let unwilling = Webhook::listen("500 Internal Server Error")?;
    let target = service(0)?;
    let mut daemon = Daemon::start(&pid(&target), unwilling.url(), None)?;
    let id = daemon.snapshot()?;
    called(&unwilling, &mut daemon)?;
    kill(&daemon, "probe-server", "server", 2)?;
    let before = unwilling.bodies().len();
    let again = poll::until("the next server tells the alert", BREACH, || {
        unwilling.bodies().get(before..).and_then(|bodies| bodies.iter().find(|body| body.contains(&id)).cloned())
    });
    again.with_context(|| daemon.read_log())?;
    daemon.stop()
}

fn supervisor_is_killed() -> Result<()> {
    let daemon = started(CALM)?;
    let both = [daemon.running.descendant("probe-collector")?, daemon.running.descendant("probe-server")?];
    daemon.running.signal("KILL")?;
    poll::until("both have ended", Duration::from_secs(10), || {
        both.iter()
            .all(|pid| {
                status(*pid, "State").is_ok_and(|state| state.starts_with('Z')) || status(*pid, "State").is_err()
            })
            .then_some(())
    })
    .with_context(|| daemon.read_log())
}

fn stops() -> Result<()> {
    let target = service(0)?;
    let webhook = Webhook::listen("500 Internal Server Error")?;
    let mut daemon = Daemon::start(&pid(&target), webhook.url(), None)?;
    daemon.snapshot()?;
    let both = [daemon.running.descendant("probe-collector")?, daemon.running.descendant("probe-server")?];
    let begin = Instant::now();
    daemon.running.signal("TERM")?;
    let status = daemon.running.wait(Duration::from_secs(15))?;
    let took = begin.elapsed();
    ensure!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}:\n{}", daemon.read_log());
    ensure!(both.iter().all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)), "something is left");
    ensure!(!daemon.read_log().contains("by signal"), "it was killed:\n{}", daemon.read_log());
    Ok(())
}

fn bad_file() -> Result<()> {
    let mut daemon = started(CALM)?;
    let both = [daemon.running.descendant("probe-collector")?, daemon.running.descendant("probe-server")?];
    daemon.reload("[[rule]]\nname = \"x\"\ntarget = \"nothng\"\n")?;
    let refused = "the configuration stays as it was";
    poll::until("it is refused", BACK, || daemon.read_log().contains(refused).then_some(()))
        .with_context(|| daemon.read_log())?;
    ensure!(daemon.read_log().contains("there is no [[target]] named `nothng`"), "{}", daemon.read_log());
    daemon.reload(&CALM.replace("nothing", "something"))?;
    poll::until("the next is taken", BACK, || {
        daemon.read_log().contains("the configuration has changed").then_some(())
    })
    .with_context(|| daemon.read_log())?;
    daemon.expect_alive()?;
    let now = [daemon.running.descendant("probe-collector")?, daemon.running.descendant("probe-server")?];
    ensure!(both == now, "a process was started again:\n{}", daemon.read_log());
    daemon.stop()
}

/// A port that nobody has.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Asks the server, once it listens.
fn ask(port: u16, request: &str, body: &str) -> Result<String> {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(BACK))?;
        let length = body.len();
        let headers = format!(
            "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}"
        );
        stream.write_all(format!("{request} HTTP/1.1\r\n{headers}\r\n\r\n{body}").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    poll::until("an answer", BACK, || asked().ok())
}

fn channel(name: &str) -> String {
    format!("[[notify]]\nname = \"{name}\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n")
}

/// Whether the server has a channel.
fn sends_to(port: u16, name: &str) -> Result<bool> {
    Ok(ask(port, "GET /metrics", "")?.contains(&format!("probe_alerts_queued{{channel=\"{name}\"")))
}

fn misfit() -> Result<()> {
    let port = free_port()?;
    let without = format!("[serve]\nlisten = \"127.0.0.1:{port}\"\n{CALM}");
    let daemon = started(&format!("{without}{}", channel("ops")))?;
    let rule = r#"{ "target": "nothing", "metric": "cpu", "above": 5, "notify": ["ops"] }"#;
    let put = ask(port, "PUT /api/v1/rules/x", rule)?;
    ensure!(put.starts_with("HTTP/1.1 201"), "{put}");
    daemon.reload(&without)?;
    let refused = || daemon.read_log().matches("there is no [[notify]] named `ops`").count() >= 2;
    poll::until("both refuse it", BACK, || refused().then_some(())).with_context(|| daemon.read_log())?;
    ensure!(sends_to(port, "ops")?, "the channel is gone");
    // With the rule gone the same file is right for both.
    ask(port, "DELETE /api/v1/rules/x", "")?;
    daemon.reload(&without)?;
    let gone = poll::until("the channel is gone", BACK, || (!sends_to(port, "ops").unwrap_or(true)).then_some(()));
    gone.with_context(|| daemon.read_log())?;
    daemon.stop()
}

fn relative_path() -> Result<()> {
    let port = free_port()?;
    let text = format!("[serve]\nlisten = \"127.0.0.1:{port}\"\n{CALM}");
    let daemon = Daemon::run_in_its_folder(&text)?;
    ensure!(!sends_to(port, "late")?, "there is no channel yet");
    daemon.reload(&format!("{text}{}", channel("late")))?;
    poll::until("the server has the channel", BACK, || sends_to(port, "late").unwrap_or(false).then_some(()))
        .with_context(|| daemon.read_log())?;
    // The collector as well, though it may not have been ready when it was told to.
    let is_taken = || daemon.read_log().contains("the configuration has changed").then_some(());
    poll::until("the collector takes it over", BACK, is_taken).with_context(|| daemon.read_log())?;
    daemon.stop()
}

fn service_manager() -> Result<()> {
    let folder = probe_tests::workload::scratch()?;
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(BACK))?;
    let daemon = Daemon::run_with(
        CALM,
        None,
        &[("NOTIFY_SOCKET", path.to_str().context("a readable path")?), ("WATCHDOG_USEC", "3000000")],
    )?;
    let expect = |wanted: &str| -> Result<()> {
        let end = Instant::now() + BACK;
        let mut said = String::new();
        while Instant::now() < end && !said.lines().any(|line| line == wanted) {
            let mut bytes = [0; 512];
            let length = socket.recv(&mut bytes).with_context(|| format!("no {wanted} after {said}"))?;
            said.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        ensure!(said.lines().any(|line| line == wanted), "no {wanted} in {said}");
        Ok(())
    };
    expect("READY=1")?;
    let log = daemon.read_log();
    ensure!(log.contains("the collector is ready") && log.contains("the server is ready"), "too early: {log}");
    expect("WATCHDOG=1")?;
    daemon.running.signal("HUP")?;
    expect("RELOADING=1")?;
    expect("READY=1")?;
    daemon.running.signal("TERM")?;
    expect("STOPPING=1")
}
