//! Code without unwind tables, whose rows are derived from its instructions: musl's C library.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{probe, workload};

use super::{BARE, SMALL, expect_whole};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::musl_works_and_waits", || works_and_waits(&["-pthread"])),
        trial("unwind::musl_works_and_waits_in_a_static_binary", || works_and_waits(&["-pthread", "-static"])),
    ]
}

fn works_and_waits(how: &[&str]) -> Result<()> {
    let target = Running::workload(&workload::c_by("musl-gcc", "musl.c", &[&BARE[..], how].concat())?)?;
    let pid = target.pid().to_string();

    let busy = probe::record_with(&["-p", &pid, "-d", "2", "-F", "997"])?;
    expect_whole(&busy, SMALL)?;
    busy.expect("formats_numbers", 0.2)?;
    expect_below(&busy, "compares", "sorts_numbers", 0.1)?;
    expect_below(&busy, "in_the_handler", "rest_a_while", 0.002)?;
    // What the C library does on behalf of its callers is where it was cut before.
    let inside = busy.share(|frames| {
        frames.last().is_some_and(|leaf| leaf != "formats_numbers") && frames.iter().any(|f| f == "formats_numbers")
    });
    ensure!(inside > 0.1, "only {inside:.3} of the samples are in what formats:\n{}", busy.show());

    let waiting = probe::record_with(&["-p", &pid, "-d", "2", "-e", "off-cpu"])?;
    expect_whole(&waiting, SMALL)?;
    expect_below(&waiting, "rest_a_while", "work_loop", 0.1)?;
    expect_below(&waiting, "work_loop", "main", 0.1)?;

    let dump = Folded::parse(&probe::run(["dump", "-p", &pid, "-f", "folded"])?.expect(0)?.stdout)?;
    expect_whole(&dump, 1.0)?;
    dump.expect("waits_for_long", 0.2)?;

    let folder = workload::scratch()?;
    let file = folder.path().join("out.folded").to_string_lossy().into_owned();
    let said = probe::run(["record", "-p", &pid, "-d", "1", "-o", &file])?.expect(0)?;
    let said = said.expect_stderr("stacks with frames derived from code")?.stderr;
    ensure!(!said.contains("guessed"), "what is derived is no guess: {said}");
    Ok(())
}

/// Fails unless a function is seen that often, and in another one.
fn expect_below(folded: &Folded, callee: &str, caller: &str, least: f64) -> Result<()> {
    let place = |frames: &[String], name: &str| frames.iter().position(|frame| frame == name);
    let share = folded.share(|frames| {
        place(frames, caller).is_some_and(|above| place(frames, callee).is_some_and(|below| above < below))
    });
    ensure!(share >= least, "only {share:.4} of the stacks have {callee} in {caller}:\n{}", folded.show());
    Ok(())
}
