//! Are stacks whole where code keeps no frame pointer? Each program is compiled as distributions compile theirs.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{probe, workload};

/// The share of whole stacks that small programs must have.
const SMALL: f64 = 0.995;
/// And large ones.
const LARGE: f64 = 0.98;

/// No frame pointers, whatever the flags before said.
const BARE: [&str; 2] = ["-O2", "-fomit-frame-pointer"];

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::a_recursion_of_1000_calls", deep),
        trial("unwind::the_heaviest_optimisation", heavily_optimised),
        trial("unwind::threads", threads),
        trial("unwind::calls_through_the_plt_and_into_the_kernel", calls),
        trial("unwind::cxx_exceptions", exceptions),
        trial("unwind::rust_without_panics", rust),
        trial("unwind::a_static_binary", || linked(&["-static"])),
        trial("unwind::a_static_binary_anywhere_in_memory", || linked(&["-static-pie"])),
        trial("unwind::a_stripped_binary", stripped),
        trial("unwind::a_library_loaded_at_run_time", dlopen),
        trial("unwind::a_signal_handler_and_what_it_interrupts", signal),
        trial("unwind::a_process_from_its_first_moment_on", command),
        trial("unwind::code_without_unwind_information_is_crossed_by_frame_pointer", guessed),
        trial("unwind::an_interpreter", python),
    ]
}

fn c(source: &str, more: &[&str]) -> Result<std::path::PathBuf> {
    workload::c(source, &[&BARE, more].concat())
}

/// Records a running program and fails unless enough of its stacks begin where its threads do.
fn whole(target: &Running, least: f64) -> Result<Folded> {
    let folded = probe::record(target.pid(), 3, &[])?;
    let share = folded.share(|frames| !frames.iter().any(|frame| frame.starts_with("[truncated")));
    ensure!(share >= least, "only {share:.4} of {} stacks are whole:\n{}", folded.total(), folded.show());
    Ok(folded)
}

fn is_deep(frames: &[String]) -> bool {
    frames.iter().filter(|frame| frame.starts_with("descend")).count() == 1000
        && frames.iter().any(|frame| frame == "main")
}

fn expect_deep(path: &Path) -> Result<()> {
    let folded = whole(&Running::workload(path)?, SMALL)?;
    let deep = folded.share(is_deep);
    ensure!(deep >= SMALL, "only {deep:.4} of the stacks have the 1,000 calls:\n{}", folded.show());
    Ok(())
}

fn deep() -> Result<()> {
    expect_deep(&c("deep.c", &[])?)
}

fn linked(how: &[&str]) -> Result<()> {
    expect_deep(&c("deep.c", how)?)
}

fn heavily_optimised() -> Result<()> {
    for more in [&["-O3"][..], &["-O3", "-fcf-protection=none"]] {
        whole(&Running::workload(&c("split.c", more)?)?, SMALL)?.expect("main", SMALL)?;
    }
    Ok(())
}

fn threads() -> Result<()> {
    let folded = whole(&Running::workload(&c("threads.c", &[])?)?, SMALL)?;
    folded.expect("alpha_work", 0.4)?;
    folded.expect("beta_work", 0.4)?;
    folded.expect("start_thread", SMALL)
}

fn calls() -> Result<()> {
    let folded = whole(&Running::workload(&c("syscalls.c", &[])?)?, SMALL)?;
    folded.expect("main", SMALL)?;
    folded.expect("asks_the_kernel", 0.9)
}

fn exceptions() -> Result<()> {
    let folded = whole(&Running::workload(&workload::cxx("throws.cpp", &BARE)?)?, SMALL)?;
    folded.expect("main", SMALL)?;
    folded.expect("_Unwind_", 0.3)
}

fn rust() -> Result<()> {
    let bare = ["-Cforce-frame-pointers=no", "-Cpanic=abort"];
    let folded = whole(&Running::workload(&workload::rust("rusty.rs", &bare)?)?, SMALL)?;
    folded.expect("pricing::evaluate", 0.95)?;
    folded.expect("main", SMALL)
}

fn stripped() -> Result<()> {
    let folded = whole(&Running::workload(&c("deep.c", &["-s"])?)?, SMALL)?;
    let deep = folded.share(|frames| frames.len() > 1000);
    ensure!(deep >= SMALL, "only {deep:.4} of the stacks have the 1,000 calls:\n{}", folded.show());
    Ok(())
}

fn dlopen() -> Result<()> {
    let plugin = c("plugin.c", &["-shared", "-fPIC"])?;
    let target = Running::ready(Command::new(c("dlopen.c", &[])?).arg(plugin))?;
    let folded = whole(&target, SMALL)?;
    folded.expect("plugin_hot", 0.95)?;
    folded.expect("main", SMALL)
}

fn signal() -> Result<()> {
    let folded = whole(&Running::workload(&c("signals.c", &[])?)?, SMALL)?;
    let both = folded.share(|frames| {
        let place = |name: &str| frames.iter().position(|frame| frame == name);
        place("is_interrupted").is_some_and(|below| place("in_the_handler").is_some_and(|above| below < above))
    });
    ensure!(both > 0.5, "only {both:.3} of the stacks go through the handler:\n{}", folded.show());
    folded.expect("main", SMALL)
}

/// Nothing is known of a program that does not run yet: its tables are made while it runs.
fn command() -> Result<()> {
    let program = c("deep.c", &[])?;
    let folded = probe::record_with(&["-d", "3", "-F", "199", "--", &program.to_string_lossy()])?;
    let deep = folded.share(is_deep);
    ensure!(deep >= 0.9, "only {deep:.4} of the stacks have the 1,000 calls:\n{}", folded.show());
    Ok(())
}

fn guessed() -> Result<()> {
    let without = ["-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-g0"];
    let target = Running::workload(&c("deep.c", &without)?)?;
    whole(&target, SMALL)?.expect("main", 0.97)?;
    let folder = workload::scratch()?;
    let file = folder.path().join("out.folded");
    let pid = target.pid().to_string();
    probe::run(["record", "-p", &pid, "-d", "1", "-o", &file.to_string_lossy()])?
        .expect(0)?
        .expect_stderr("stacks with frames guessed by frame pointer")?;
    Ok(())
}

fn python() -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/busy.py");
    let target = Running::ready(Command::new(require("python3")?).arg(script))?;
    whole(&target, LARGE)?.expect("Py_BytesMain", LARGE)
}
