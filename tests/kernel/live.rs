//! Breaches of memory: what the process has allocated and not freed, followed from when a rule is about to be broken.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::golang::{self, Go};
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, workload};
use serde_json::Value;

use crate::daemon::Daemon;

/// What `leaks` of heap.c leaves, in bytes a second.
const LEAK: f64 = 2e6;
/// How long it may take until traps are gone.
const GONE: Duration = Duration::from_secs(10);

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial("live::a_leak_is_followed_from_pending_to_the_snapshot", leak),
        trial("live::who_leaks_is_blamed_where_others_touch_fresh_pages", hidden),
        trial("live::a_small_budget_still_tells_who_leaks", within_budget),
        trial("live::a_target_may_be_followed_always", always),
    ];
    tests.extend(golang::trials("live::what_cannot_be_followed_is_said_and_growth_is_kept", refused));
    tests
}

fn daemon(pid: u32, (metric, above): (&str, &str), max_overhead: u32, more: &str) -> Result<Daemon> {
    let text = format!(
        r#"
[sampling]
max_overhead = {max_overhead}
[[target]]
name = "checkout"
match = {{ pid = {pid} }}
{more}
[[rule]]
name = "leak"
target = "checkout"
metric = "{metric}"
above = "{above}"
for = "5s"
cooldown = "10m"
snapshot = {{ threads = 2, before = "5s", after = "5s" }}
"#
    );
    Daemon::run(&text, None)
}

fn heap(role: &str) -> Result<Running> {
    Running::ready(Command::new(workload::c("heap.c", &[])?).arg(role))
}

/// The window `live` of a snapshot: bytes in use by function, over the seconds in which they were followed.
struct Live {
    folded: Folded,
    seconds: f64,
    sidecar: Value,
}

impl Live {
    fn of(daemon: &mut Daemon) -> Result<Self> {
        let id = daemon.snapshot()?;
        let sidecar = daemon.sidecar(&id)?;
        let get = |format: &str| {
            daemon
                .snapshots(&["get", &id, "--window", "live", "-f", format, "-o", "-"])?
                .expect(0)
                .with_context(|| format!("{sidecar:#}\nthe daemon's log:\n{}", daemon.read_log()))
        };
        let folded = Folded::parse(&get("folded")?.stdout)?;
        let profile = get("json")?.json()?;
        ensure!(profile["profile"]["header"]["event"] == "malloc-live", "{}", profile["profile"]["header"]);
        let seconds = profile["profile"]["header"]["duration_ns"].as_f64().context("how long it was followed")? / 1e9;
        let listed = sidecar["profiles"].as_array().into_iter().flatten().any(|profile| profile["window"] == "live");
        ensure!(listed, "the sidecar lists it: {sidecar:#}");
        let text = daemon.snapshots(&["get", &id])?.expect(0)?.stdout;
        ensure!(text.contains("live      ") && text.contains("in use of what was allocated since"), "{text}");
        Ok(Self { folded, seconds, sidecar })
    }

    /// Bytes in use that a function has allocated.
    fn bytes(&self, function: &str) -> f64 {
        let stacks = self.folded.stacks().filter(|(frames, _)| frames.iter().any(|frame| frame == function));
        stacks.map(|(_, bytes)| bytes).sum::<u64>() as f64
    }

    fn number(&self, key: &str) -> Result<f64> {
        self.sidecar["live"][key].as_f64().with_context(|| format!("no {key}: {:#}", self.sidecar))
    }

    /// The leak is the first culprit, because it keeps what it allocates.
    fn expect_culprit(&self) -> Result<()> {
        let culprit = &self.sidecar["culprits"][0];
        let is_kept = culprit["kept_for_ns"].as_u64().is_some_and(|time| time > 1_000_000_000);
        ensure!(culprit["function"] == "leaks" && is_kept, "{:#}", self.sidecar["culprits"]);
        Ok(())
    }
}

/// Bytes of the code of a library in a process that are not as in its file: traps.
fn traps(pid: u32, library: &str) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains(" r-xp ") && line.contains(library));
    let words: Vec<&str> = line.with_context(|| format!("no {library} in pid {pid}"))?.split_whitespace().collect();
    let (from, to) = words[0].split_once('-').context("a range")?;
    let [from, to, offset] = [from, to, words[2]].map(|number| u64::from_str_radix(number, 16));
    let (from, to, offset) = (from?, to?, offset?);
    let mut memory = vec![0; (to - from) as usize];
    fs::File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut memory, from)?;
    let mut file = vec![0; memory.len()];
    let read = fs::File::open(Path::new(words[5]))?.read_at(&mut file, offset)?;
    Ok(memory.iter().zip(&file[..read]).filter(|(here, there)| here != there).count())
}

fn expect_no_traps(pid: u32, daemon: &Daemon) -> Result<()> {
    let gone = poll::until("no trap in the C library", GONE, || {
        traps(pid, "libc.so.6").map(|count| (count == 0).then_some(())).transpose()
    });
    gone.and_then(|gone| gone).with_context(|| format!("the daemon's log:\n{}", daemon.read_log()))
}

fn leak() -> Result<()> {
    let mut target = heap("leak")?;
    let mut daemon = daemon(target.pid(), ("memory.growth", "60MiB"), 100, "")?;
    poll::until("the daemon watches", GONE, || daemon.read_log().contains("watching pid").then_some(()))?;
    ensure!(traps(target.pid(), "libc.so.6")? == 0, "it is followed though nothing is wrong");
    let live = Live::of(&mut daemon)?;
    // What is freed while nobody looks seems to be in use.
    ensure!(
        live.number("attached_share")? > 0.99 && live.number("sample_bytes")? == 32768.0,
        "{:#}",
        live.sidecar["live"]
    );
    let (leaked, expected) = (live.bytes("leaks"), LEAK * live.seconds);
    ensure!((leaked / expected - 1.0).abs() < 0.15, "{leaked} bytes, not {expected}:\n{}", live.folded.show());
    // 256 blocks of 5000 bytes are in use of what churns ten times as much.
    ensure!(live.bytes("churns") < 0.15 * leaked, "what was freed is not in use:\n{}", live.folded.show());
    let all = live.number("in_use_bytes")?;
    ensure!((all / live.folded.total() as f64 - 1.0).abs() < 1e-3, "{all}, not {}", live.folded.total());
    live.expect_culprit()?;
    expect_no_traps(target.pid(), &daemon)?;
    ensure!(target.is_alive(), "the target is gone");
    daemon.stop()
}

fn hidden() -> Result<()> {
    let target = heap("hidden")?;
    let mut daemon = daemon(target.pid(), ("memory.growth", "60MiB"), 100, "")?;
    let live = Live::of(&mut daemon)?;
    let (leaked, expected) = (live.bytes("leaks"), LEAK * live.seconds);
    ensure!((leaked / expected - 1.0).abs() < 0.15, "{leaked} bytes, not {expected}:\n{}", live.folded.show());
    live.expect_culprit()?;
    let culprit = &live.sidecar["culprits"][0];
    ensure!(culprit["share"].as_f64() > Some(90.0), "what recycles keeps nothing for long: {culprit:#}");
    daemon.stop()
}

fn within_budget() -> Result<()> {
    let mut target = heap("leak")?;
    let mut daemon = daemon(target.pid(), ("memory.growth", "60MiB"), 1, "")?;
    let live = Live::of(&mut daemon)?;
    let share = live.number("attached_share")?;
    ensure!((0.001..0.6).contains(&share), "16,000 hits a second are more than 1 % of a core: {:#}", live.sidecar);
    let leaked = live.bytes("leaks") / live.seconds;
    ensure!((0.4 * LEAK..2.5 * LEAK).contains(&leaked), "{leaked} bytes a second:\n{}", live.folded.show());
    let churned = live.bytes("churns") / live.seconds;
    ensure!(churned < 0.5 * leaked, "of ten times as much nearly all was freed:\n{}", live.folded.show());
    live.expect_culprit()?;
    let interval = &live.sidecar["live"]["in_use_interval"];
    let (low, high) = (interval[0].as_f64(), interval[1].as_f64());
    let all = Some(live.number("in_use_bytes")?);
    ensure!(low < all && all < high, "{:#}", live.sidecar["live"]);
    expect_no_traps(target.pid(), &daemon)?;
    ensure!(target.is_alive(), "the target is gone");
    daemon.stop()
}

fn always() -> Result<()> {
    let target = heap("leak")?;
    let mut daemon = daemon(target.pid(), ("memory.rss", "60MiB"), 100, "live = true")?;
    poll::until("it is followed", GONE, || daemon.read_log().contains("following the allocations").then_some(()))?;
    let live = Live::of(&mut daemon)?;
    // 60 MiB take half a minute, of which the evidence is 15 seconds.
    let (since, started) = (&live.sidecar["live"]["since"], &live.sidecar["started_at"]);
    ensure!(since.as_str() < started.as_str() && live.seconds > 20.0, "since {since}: {:#}", live.sidecar);
    let (leaked, expected) = (live.bytes("leaks"), LEAK * live.seconds);
    ensure!((leaked / expected - 1.0).abs() < 0.15, "{leaked} bytes, not {expected}:\n{}", live.folded.show());
    live.expect_culprit()?;
    ensure!(traps(target.pid(), "libc.so.6")? > 0, "it is followed on");
    daemon.stop()?;
    poll::until("no trap in the C library", GONE, || (traps(target.pid(), "libc.so.6").ok()? == 0).then_some(()))
}

fn refused(go: Go) -> Result<()> {
    let target = Running::workload(&go.build("routines.go", &[])?)?;
    let mut daemon = daemon(target.pid(), ("memory.rss", "1MiB"), 1, "")?;
    let id = daemon.snapshot()?;
    let sidecar = daemon.sidecar(&id)?;
    let losses = sidecar["losses"].as_object().context("losses")?;
    let is_said = losses.keys().any(|reason| reason.starts_with("allocations not followed: ") && reason.contains("Go"));
    ensure!(is_said && sidecar["live"].is_null(), "{sidecar:#}");
    daemon.snapshots(&["get", &id, "--window", "breach", "-f", "json", "-o", "-"])?.expect(0)?;
    daemon.snapshots(&["get", &id, "--window", "live", "-f", "json", "-o", "-"])?.expect(1)?.expect_stderr("live")?;
    daemon.stop()
}
