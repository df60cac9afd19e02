//! What samples stand for: also of a program that works in step with the clock.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![trial("sampling::a_program_in_step_with_the_clock_is_seen_at_every_phase", phases)]
}

/// Samples a second: ten milliseconds apart, so that one of fifteen has one of them or two, but always the same.
const RATE: f64 = 99.0;

/// Seconds of processor time that each thread has had, by its name and number.
fn worked(pid: u32) -> Result<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let read = |file| fs::read_to_string(thread.path().join(file));
        let (name, times) = (read("comm")?, read("schedstat")?);
        if name.starts_with("phase") {
            let ns: f64 = times.split_whitespace().next().context("no time")?.parse()?;
            threads.insert(format!("{}-{}", name.trim_end(), thread.file_name().to_string_lossy()), ns / 1e9);
        }
    }
    Ok(threads)
}

fn phases() -> Result<()> {
    let target = Running::workload(&workload::c("ticks.c", &["-DBURN_ROUNDS=2000"])?)?;
    let pid = target.pid().to_string();
    let before = worked(target.pid())?;
    let folded = probe::record_with(&["-p", &pid, "-d", "8", "-F", &RATE.to_string(), "-t"])?;
    let after = worked(target.pid())?;
    ensure!(before.len() == 8, "{before:?}");
    let mut errors = BTreeMap::new();
    for (thread, until) in &before {
        let truth = after[thread] - until;
        let seen: u64 = folded.stacks().filter(|(frames, _)| frames.contains(thread)).map(|(_, count)| count).sum();
        errors.insert(thread, seen as f64 / RATE / truth - 1.0);
    }
    let mean_square = errors.values().map(|error| error * error).sum::<f64>() / errors.len() as f64;
    // In step it is a third at each phase; samples by chance would make it a fifth.
    ensure!(mean_square.sqrt() < 0.15, "{errors:?}");
    Ok(())
}
