//! Thread dumps: every thread, with its state and its stack, of a process that goes on.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{probe, workload};
use serde_json::Value;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("dump::every_thread_with_state_time_and_share", every_thread),
        trial("dump::identical_stacks_are_shown_once", grouped),
        trial("dump::folded_counts_threads", folded),
        trial("dump::the_busiest", top),
        trial("dump::an_interpreter", python),
        trial("dump::a_process_that_is_gone_or_a_thread", errors),
        trial("dump::a_thousand_threads", thousand),
    ]
}

fn target(roles: &[&str]) -> Result<Running> {
    let bare = ["-O2", "-fomit-frame-pointer"];
    Running::ready(Command::new(workload::c("waits.c", &bare)?).args(roles))
}

fn json(pid: u32, more: &[&str]) -> Result<Value> {
    probe::run([&["dump", "--json", "-p", &pid.to_string()], more].concat())?.expect(0)?.json()
}

fn threads(dump: &Value) -> Result<&Vec<Value>> {
    dump["threads"].as_array().with_context(|| format!("no threads in {dump}"))
}

/// The functions of a thread, leaf first.
fn functions(thread: &Value) -> Vec<&str> {
    let frames = thread["stack"].as_array().into_iter().flatten();
    frames.filter_map(|frame| frame["function"].as_str()).collect()
}

fn named<'a>(dump: &'a Value, name: &str) -> Result<&'a Value> {
    let found = threads(dump)?.iter().find(|thread| thread["name"] == name);
    found.with_context(|| format!("no thread {name} in {dump:#}"))
}

fn every_thread() -> Result<()> {
    let begin = Instant::now();
    let target = target(&["sleeps", "competes", "forks"])?;
    let dump = json(target.pid(), &[])?;
    let lived_ns = begin.elapsed().as_nanos() as u64;
    ensure!(threads(&dump)?.len() == 5, "five threads: {dump:#}");
    let sleeper = named(&dump, "sleeper")?;
    let names = functions(sleeper);
    ensure!(sleeper["state"] == "sleeping", "{sleeper:#}");
    ensure!(names.contains(&"waits_for_ever") && names.contains(&"start_thread"), "{names:?}");
    ensure!(names.iter().any(|name| name.contains("sys_pause")), "the kernel's part: {names:?}");
    ensure!(sleeper["truncated"].is_null(), "{sleeper:#}");
    let slept = sleeper["state_ns"].as_u64().context("a time")?;
    ensure!((1_000_000_000..lived_ns).contains(&slept), "asleep for {slept} ns of {lived_ns}");
    ensure!(sleeper["cpu_percent"].as_f64().is_some_and(|share| share < 1.0), "{sleeper:#}");
    for rival in threads(&dump)?.iter().filter(|thread| thread["name"] == "rival") {
        let share = rival["cpu_percent"].as_f64().context("a share")?;
        ensure!((5.0..75.0).contains(&share), "half of a CPU, on a busy machine less: {share}");
        let state = rival["state"].as_str().context("a state")?;
        ensure!(["running", "runnable"].contains(&state), "{rival:#}");
        ensure!(functions(rival).contains(&"wants_the_cpu"), "{rival:#}");
    }
    let parent = named(&dump, "parent")?;
    if parent["state"] == "uninterruptible" {
        ensure!(["__libc_vfork", "waits_for_child"].iter().all(|name| functions(parent).contains(name)), "{parent:#}");
        ensure!(parent["truncated"].is_null(), "{parent:#}");
    }
    ensure!(dump["pid"] == target.pid() && dump["exe"].as_str().is_some_and(|exe| exe.ends_with("waits")), "{dump:#}");
    Ok(())
}

fn grouped() -> Result<()> {
    let target = target(&["sleeps", "sleeps", "sleeps"])?;
    let text = probe::run(["dump", "-p", &target.pid().to_string(), "-d", "0"])?.expect(0)?.stdout;
    ensure!(text.contains("\n3 threads\n") && text.matches("waits_for_ever").count() == 1, "{text}");
    ensure!(text.matches("\"sleeper\" sleeping for ").count() == 3, "{text}");
    Ok(())
}

fn folded() -> Result<()> {
    let target = target(&["sleeps", "sleeps", "naps"])?;
    let output = probe::run(["dump", "-p", &target.pid().to_string(), "-d", "0", "-f", "folded"])?.expect(0)?;
    let folded = Folded::parse(&output.stdout)?;
    ensure!(folded.total() == 4, "four threads: {}", folded.show());
    let sleepers = folded.stacks().filter(|(frames, _)| frames.iter().any(|frame| frame == "waits_for_ever"));
    ensure!(sleepers.map(|(_, count)| count).eq([2]), "{}", folded.show());
    Ok(())
}

fn top() -> Result<()> {
    let target = target(&["sleeps", "competes"])?;
    let dump = json(target.pid(), &["--top", "2"])?;
    let names: Vec<_> = threads(&dump)?.iter().filter_map(|thread| thread["name"].as_str()).collect();
    ensure!(names == ["rival", "rival"], "{names:?}");
    Ok(())
}

fn python() -> Result<()> {
    let script = "import threading, time\nthreading.Thread(target=lambda: time.sleep(60), daemon=True).start()\n\
                  time.sleep(0.2)\nprint('ready', flush=True)\ntime.sleep(60)";
    let target = Running::ready(Command::new(require("python3")?).args(["-c", script]))?;
    let dump = json(target.pid(), &["-d", "0"])?;
    for thread in threads(&dump)? {
        ensure!(thread["truncated"].is_null() && thread["state"] == "sleeping", "{thread:#}");
        ensure!(functions(thread).iter().any(|name| name.contains("nanosleep")), "{thread:#}");
    }
    ensure!(functions(&threads(&dump)?[0]).contains(&"Py_BytesMain"), "{dump:#}");
    Ok(())
}

fn errors() -> Result<()> {
    probe::run(["dump", "-p", "4194303"])?.expect(3)?.expect_stderr("no process")?;
    let target = target(&["sleeps"])?;
    let dump = json(target.pid(), &["-d", "0"])?;
    let thread = named(&dump, "sleeper")?["tid"].to_string();
    probe::run(["dump", "-p", &thread])?.expect(2)?.expect_stderr(&format!("thread of process {}", target.pid()))?;
    probe::run(["dump", "-p", &thread, "--top", "0"])?.expect(2)?;
    Ok(())
}

fn thousand() -> Result<()> {
    let target = target(&["sleeps"; 1000])?;
    let dump = json(target.pid(), &["-d", "0"])?;
    let whole = threads(&dump)?.iter().filter(|thread| functions(thread).contains(&"waits_for_ever"));
    let whole = whole.filter(|thread| functions(thread).contains(&"start_thread")).count();
    ensure!(whole == 1000, "{whole} of a thousand threads are whole; {}", dump["losses"]);
    Ok(())
}
