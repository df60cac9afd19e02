//! What samples stand for: also of a program that works in step with the clock.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![trial("sampling::a_program_in_step_with_the_clock_is_seen_at_every_phase", phases)]
}

/// Samples a second: ten milliseconds apart, so that one of fifteen has one of them or two, but always the same.
const RATE: &str = "99";
const THREADS: usize = 8;

/// The threads as they are called in stacks, when all have their names.
fn threads(pid: u32) -> Result<Vec<String>> {
    poll::until("threads with names", Duration::from_secs(20), || {
        let name = |thread: fs::DirEntry| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let tid = thread.file_name().to_string_lossy().into_owned();
            name.starts_with("phase").then(|| format!("{}-{tid}", name.trim_end()))
        };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().filter_map(name).collect::<Vec<_>>();
        (threads.len() == THREADS).then_some(threads)
    })
}

fn phases() -> Result<()> {
    let target = Running::workload(&workload::c("ticks.c", &["-DBURN_ROUNDS=2000"])?)?;
    let threads = threads(target.pid())?;
    let folded = probe::record_with(&["-p", &target.pid().to_string(), "-d", "8", "-F", RATE, "-t"])?;
    let seen = |thread: &String| {
        folded.stacks().filter(|(frames, _)| frames.contains(thread)).map(|(_, count)| count as f64).sum::<f64>()
    };
    let seen: Vec<f64> = threads.iter().map(seen).collect();
    // All work for as long.
    let mean = seen.iter().sum::<f64>() / THREADS as f64;
    let variance = seen.iter().map(|seen| (seen / mean - 1.0).powi(2)).sum::<f64>() / THREADS as f64;
    // In step it is a third; of samples by chance it would be a fourth.
    ensure!(variance.sqrt() < 0.18, "{seen:?}");
    Ok(())
}
