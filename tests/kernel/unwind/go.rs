//! Go, which has stacks, calling conventions and a table of functions of its own.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::golang::{Go, trials};
use probe_tests::running::Running;
use probe_tests::trial::require;
use probe_tests::{probe, workload};

use super::{SMALL, expect_whole, whole};

pub fn tests() -> Vec<Trial> {
    let tests = [
        trials("unwind::go", |go| goroutines(go, &[])),
        trials("unwind::go_anywhere_in_memory", |go| goroutines(go, &["-buildmode=pie"])),
        trials("unwind::go_without_symbols", |go| stripped(go, &["-ldflags=-s -w"])),
        trials("unwind::go_anywhere_without_symbols", |go| stripped(go, &["-ldflags=-s -w", "-buildmode=pie"])),
        trials("unwind::go_calls_c", |go| cgo(go, &[])),
        trials("unwind::go_calls_c_anywhere_without_symbols", |go| cgo(go, &["-ldflags=-s -w", "-buildmode=pie"])),
    ];
    tests.into_iter().flatten().collect()
}

/// The calls below each goroutine's work.
const DEPTH: usize = 50;

/// Whether a stack goes through all the calls of its goroutine, one by one.
fn is_deep(frames: &[String]) -> bool {
    frames.iter().filter(|frame| *frame == "main.descend").count() == DEPTH
}

fn goroutines(go: Go, how: &[&str]) -> Result<()> {
    let folded = whole(&Running::workload(&go.build("routines.go", how)?)?, SMALL)?;
    for work in ["main.computes", "main.usesTheRuntime", "main.asksTheKernel"] {
        folded.expect(work, 0.1)?;
        expect_deep(&folded, work)?;
    }
    // The rest are threads of the runtime, and what it does on stacks of its own.
    let deep = folded.share(is_deep);
    ensure!(deep >= 0.85, "only {deep:.3} of the stacks are a goroutine's:\n{}", folded.show());
    // Nothing is skipped where the runtime's functions, which have no frames, are on top.
    folded.expect("runtime.memmove", 0.005)?;
    folded.expect("runtime.mapassign_faststr", 0.01)
}

/// All stacks with this function have their goroutine's calls.
fn expect_deep(folded: &Folded, work: &str) -> Result<()> {
    let has = |frames: &[String]| frames.iter().any(|frame| frame == work);
    let (with, deep) = (folded.share(has), folded.share(|frames| has(frames) && is_deep(frames)));
    ensure!(deep >= SMALL * with, "{work}: {with:.3}, but with its callers {deep:.3}:\n{}", folded.show());
    Ok(())
}

/// No symbols and no debug information: Go's own table is what is left.
fn stripped(go: Go, how: &[&str]) -> Result<()> {
    let target = Running::workload(&go.build("routines.go", how)?)?;
    let folded = whole(&target, SMALL)?;
    let deep = folded.share(|frames| frames.len() > DEPTH);
    ensure!(deep >= 0.85, "only {deep:.3} of the stacks are a goroutine's:\n{}", folded.show());
    let file = workload::scratch()?;
    let file = file.path().join("out.folded");
    let pid = target.pid().to_string();
    let said = probe::run(["record", "-p", &pid, "-d", "1", "-o", &file.to_string_lossy()])?.expect(0)?;
    ensure!(!said.stderr.contains("guessed"), "there are guesses: {}", said.stderr);
    Ok(())
}

/// C code on the stack of its thread, called by a goroutine.
fn cgo(go: Go, how: &[&str]) -> Result<()> {
    require("gcc")?;
    let target = Running::workload(&go.build("cgo.go", how)?)?;
    let folded = probe::record(target.pid(), 3, &[])?;
    expect_whole(&folded, SMALL)?;
    folded.expect("in_c", 0.9)?;
    folded.expect("runtime.asmcgocall", 0.9)
}
