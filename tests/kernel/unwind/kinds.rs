//! Kinds of code that a stack goes through: threads, system calls, exceptions, signal handlers, code that says nothing.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{probe, workload};

use super::{BARE, SMALL, c, expect_whole, whole};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::threads", threads),
        trial("unwind::64_threads", crowd),
        trial("unwind::calls_through_the_plt_and_into_the_kernel", calls),
        trial("unwind::cxx_exceptions", exceptions),
        trial("unwind::rust_without_panics", rust),
        trial("unwind::a_signal_handler_and_what_it_interrupts", signal),
        trial("unwind::code_without_unwind_information_is_crossed_by_derived_rows", derived),
    ]
}

fn threads() -> Result<()> {
    let folded = whole(&Running::workload(&c("threads.c", &[])?)?, SMALL)?;
    folded.expect("alpha_work", 0.4)?;
    folded.expect("beta_work", 0.4)?;
    folded.expect("start_thread", SMALL)
}

fn crowd() -> Result<()> {
    let target = Running::workload(&c("crowd.c", &[])?)?;
    let folded = probe::record(target.pid(), 4, &["-t"])?;
    expect_whole(&folded, SMALL)?;
    folded.expect("start_thread", SMALL)?;
    for number in 0..64 {
        let (thread, work) = (format!("thread-{number:02o}"), format!("work_{number:02o}"));
        let of_thread = folded.share(|frames| frames.iter().any(|frame| frame.starts_with(&thread)));
        let of_both =
            folded.share(|frames| frames.iter().any(|frame| frame.starts_with(&thread)) && frames.contains(&work));
        ensure!(
            of_thread > 0.0 && of_both >= 0.98 * of_thread,
            "{thread} is seen, but not in {work}:\n{}",
            folded.show()
        );
    }
    Ok(())
}

fn calls() -> Result<()> {
    let folded = whole(&Running::workload(&c("syscalls.c", &[])?)?, SMALL)?;
    folded.expect("main", SMALL)?;
    folded.expect("asks_the_kernel", 0.9)
}

/// Where the unwinder of C++ puts another frame in place of its own, for some instructions there is no caller: perf, with
/// a copy of the whole stack, has 99.3 % here.
const WITH_EXCEPTIONS: f64 = 0.99;

fn exceptions() -> Result<()> {
    let folded = whole(&Running::workload(&workload::cxx("throws.cpp", &BARE)?)?, WITH_EXCEPTIONS)?;
    folded.expect("main", WITH_EXCEPTIONS)?;
    folded.expect("_Unwind_", 0.3)
}

fn rust() -> Result<()> {
    let bare = ["-Cforce-frame-pointers=no", "-Cpanic=abort"];
    let folded = whole(&Running::workload(&workload::rust("rusty.rs", &bare)?)?, SMALL)?;
    folded.expect("pricing::evaluate", 0.95)?;
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

fn derived() -> Result<()> {
    let without = ["-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-g0"];
    let target = Running::workload(&c("deep.c", &without)?)?;
    whole(&target, SMALL)?.expect("main", 0.97)?;
    let folder = workload::scratch()?;
    let file = folder.path().join("out.folded");
    let pid = target.pid().to_string();
    probe::run(["record", "-p", &pid, "-d", "1", "-o", &file.to_string_lossy()])?
        .expect(0)?
        .expect_stderr("stacks with frames derived from code")?;
    Ok(())
}
