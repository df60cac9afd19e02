//! Programs whose code in memory is not what their file has: no probe may be set there, and none counts nothing in silence.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::code::Code;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, probe, workload};
use serde_json::Value;

use super::daemon::Daemon;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("patched::a_function_is_refused_and_goes_on_as_it_was", function),
        trial("patched::a_function_that_is_patched_later_is_timed_no_longer", later),
        trial("patched::allocations_are_refused", allocations),
        trial("patched::a_daemon_with_rules_on_it_says_why_and_harms_nothing", daemon),
        trial("patched::the_file_that_an_overlay_has_copied_is_not_the_one_that_runs", overlay),
        trial("patched::a_closer_that_is_killed_is_replaced", closer),
    ]
}

const REASON: &str = "has other code in memory";
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn patches(arguments: &[&str]) -> Result<Running> {
    Running::ready(Command::new(workload::c("patches.c", &["-O2", "-fno-builtin"])?).args(arguments))
}

/// It ends when what it has replaced runs.
fn goes_on(target: &mut Running) -> Result<()> {
    std::thread::sleep(Duration::from_millis(200));
    ensure!(target.is_alive(), "the target has ended: what it had replaced ran");
    Ok(())
}

fn function() -> Result<()> {
    let mut target = patches(&["own"])?;
    let pid = target.pid().to_string();
    let alone = probe::run(["latency", "-d", "1", "-p", &pid, "replaced"])?.expect(1)?;
    alone.expect_stderr(REASON)?.expect_stderr("hint: ")?;
    goes_on(&mut target)?;
    let output = probe::run(["latency", "-d", "2", "--json", "-p", &pid, "replaced", "replacement"])?.expect(0)?;
    let rows = output.json()?;
    let row = |name: &str| {
        let rows = rows.as_array().into_iter().flatten();
        let mut named = rows.filter(|row| row["name"].as_str().is_some_and(|full| full.ends_with(&format!(":{name}"))));
        named.next().with_context(|| format!("no row of {name}: {rows:#?}", rows = named.collect::<Vec<_>>()))
    };
    ensure!(row("replaced")?["problem"].as_str().unwrap_or_default().contains(REASON), "{rows:#}");
    let timed = row("replacement")?;
    ensure!(timed["calls"].as_u64() > Some(100) && timed["problem"].is_null(), "{rows:#}");
    goes_on(&mut target)
}

fn later() -> Result<()> {
    let mut target = patches(&["own", "later"])?;
    let code = Code::of(target.pid(), &workload::c("patches.c", &["-O2", "-fno-builtin"])?, "replaced")?;
    let mut command = Command::new(probe::binary());
    command.args(["latency", "-d", "5", "--json", "-p", &target.pid().to_string(), "replaced"]);
    let folder = workload::scratch()?;
    let out = folder.path().join("out");
    let mut probe = Running::start(command.stdout(fs::File::create(&out)?))?;
    poll::until("a probe", PATIENCE, || code.is_probed().then_some(()))?;
    std::thread::sleep(Duration::from_millis(300));
    target.signal("USR1")?;
    ensure!(probe.wait(PATIENCE)?.success(), "it ends with an error");
    let rows: Value = serde_json::from_str(&fs::read_to_string(&out)?)?;
    ensure!(rows[0]["calls"].as_u64() > Some(0), "what was seen before: {rows:#}");
    ensure!(rows[0]["problem"].as_str().unwrap_or_default().contains(REASON), "{rows:#}");
    ensure!(!code.is_probed(), "a trap is left");
    goes_on(&mut target)
}

fn allocations() -> Result<()> {
    let mut target = patches(&["malloc"])?;
    let pid = target.pid().to_string();
    let folder = workload::scratch()?;
    let out = folder.path().join("out.folded");
    let out = out.to_string_lossy();
    for more in [&[][..], &["--live"]] {
        let arguments = [&["record", "-e", "malloc", "-d", "1", "-p", &pid, "-o"][..], &[&*out], more].concat();
        let output = probe::run(arguments)?.expect(1)?;
        output.expect_stderr(REASON)?.expect_stderr("-e page-fault")?;
        goes_on(&mut target)?;
    }
    Ok(())
}

fn daemon() -> Result<()> {
    let mut target = patches(&["malloc"])?;
    let pid = target.pid();
    let text = format!(
        "[[target]]\nname = \"app\"\nmatch = {{ pid = {pid} }}\n\
         [[function]]\nname = \"allocates\"\ntarget = \"app\"\nsymbol = \"libc.so.6:malloc\"\n\
         [[rule]]\nname = \"rss\"\ntarget = \"app\"\nmetric = \"memory.rss\"\nabove = \"1MiB\"\nfor = \"1s\"\n"
    );
    let daemon = Daemon::run(&text, None)?;
    let has_said = |what: &str| daemon.read_log().lines().any(|line| line.contains(what) && line.contains(REASON));
    poll::until("why allocations are not followed", PATIENCE, || has_said("cannot be followed").then_some(()))?;
    poll::until("why the function is not timed", PATIENCE, || has_said("function allocates: not timed").then_some(()))?;
    goes_on(&mut target)?;
    daemon.stop()?;
    goes_on(&mut target)
}

fn overlay() -> Result<()> {
    let folder = workload::scratch()?;
    let at = |name: &str| folder.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(at(name))?;
    }
    fs::copy(workload::c("calls.c", &["-O2"])?, at("lower").join("app"))?;
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(at("merged")).output()?;
    ensure!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    let counted = count_after_copy(&at("merged").join("app"));
    let _ = Command::new("umount").arg("--lazy").arg(at("merged")).status();
    let (calls, rows) = counted?;
    ensure!(calls > 20, "{rows:#}");
    Ok(())
}

/// The calls that are seen of a program that was copied up while it ran.
fn count_after_copy(program: &Path) -> Result<(u64, Value)> {
    let target = Running::ready(&mut Command::new(program))?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o744))?;
    let output = probe::run(["latency", "-d", "2", "--json", "-p", &target.pid().to_string(), "sends"])?.expect(0)?;
    let rows = output.json()?;
    Ok((rows[0]["calls"].as_u64().context("calls")?, rows))
}

fn closer() -> Result<()> {
    let mut target = Running::ready(&mut Command::new(workload::c("calls.c", &["-O2"])?))?;
    let code = Code::of(target.pid(), &workload::c("calls.c", &["-O2"])?, "sends")?;
    let before = code.untouched()?;
    let folder = workload::scratch()?;
    let log = folder.path().join("log");
    let mut command = Command::new(probe::binary());
    command.args(["latency", "-d", "60", "-p", &target.pid().to_string(), "sends"]).stderr(fs::File::create(&log)?);
    let mut probe = Running::start(command.stdout(std::process::Stdio::null()))?;
    poll::until("a probe", PATIENCE, || code.is_probed().then_some(()))?;
    let first = poll::until("a closer", PATIENCE, || closer_of(probe.pid()))?;
    kill(first)?;
    poll::until("another closer", PATIENCE, || closer_of(probe.pid()).filter(|pid| *pid != first))?;
    let said = fs::read_to_string(&log)?;
    ensure!(said.contains("was killed by signal 9; another one is started"), "{said}");
    ensure!(code.is_probed(), "its probes stay");
    probe.signal("KILL")?;
    probe.wait(PATIENCE)?;
    let since = Instant::now();
    poll::until("the target's code as it was", PATIENCE, || (code.bytes().ok()? == before).then_some(()))?;
    ensure!(target.is_alive(), "the target has ended, {:?} after the probes went", since.elapsed());
    Ok(())
}

/// Whichever of its threads has started it.
fn closer_of(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<u32> =
        children.flat_map(|pids| pids.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    let is_closer =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "probe-closer\n");
    pids.into_iter().find(is_closer)
}

fn kill(pid: u32) -> Result<()> {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    ensure!(status.success(), "pid {pid} cannot be killed");
    Ok(())
}
