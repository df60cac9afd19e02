//! Go, which has stacks, calling conventions and a table of functions of its own.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{probe, workload};

use super::{SMALL, expect_whole, whole};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::go", || goroutines(&[])),
        trial("unwind::go_anywhere_in_memory", || goroutines(&["-buildmode=pie"])),
        trial("unwind::go_without_symbols", stripped),
        trial("unwind::go_calls_c", cgo),
    ]
}

/// The calls below each goroutine's work.
const DEPTH: usize = 50;

/// Whether a stack goes through all the calls of its goroutine, one by one.
fn is_deep(frames: &[String]) -> bool {
    frames.iter().filter(|frame| *frame == "main.descend").count() == DEPTH
}

fn goroutines(how: &[&str]) -> Result<()> {
    let folded = whole(&Running::workload(&workload::go("routines.go", how)?)?, SMALL)?;
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
fn stripped() -> Result<()> {
    let target = Running::workload(&workload::go("routines.go", &["-ldflags=-s -w"])?)?;
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
fn cgo() -> Result<()> {
    require("gcc")?;
    let target = Running::workload(&workload::go("cgo.go", &[])?)?;
    let folded = probe::record(target.pid(), 3, &[])?;
    expect_whole(&folded, SMALL)?;
    folded.expect("in_c", 0.9)?;
    folded.expect("runtime.asmcgocall", 0.9)
}
