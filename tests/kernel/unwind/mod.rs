//! Are stacks whole where code keeps no frame pointer? One file per question.

mod compiled;
mod derived;
mod forms;
mod go;
mod kinds;
mod loading;
mod moments;
mod programs;
mod reference;
mod roots;
mod surroundings;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::profile::Profile;
use probe_tests::running::Running;
use probe_tests::{probe, workload};

/// The share of whole stacks that small programs must have.
const SMALL: f64 = 0.995;
/// And large ones.
const LARGE: f64 = 0.98;

/// No frame pointers, whatever the flags before said.
const BARE: [&str; 2] = ["-O2", "-fomit-frame-pointer"];

/// Those that only ask how stacks look.
pub fn in_company() -> Vec<Trial> {
    let groups = [
        compiled::tests(),
        derived::tests(),
        forms::tests(),
        kinds::tests(),
        moments::tests(),
        roots::tests(),
        go::tests(),
        surroundings::tests(),
        programs::tests(),
    ];
    groups.into_iter().flatten().collect()
}

/// Those that measure time, or compare with what another recorder sees of the same process.
pub fn alone() -> Vec<Trial> {
    [loading::tests(), reference::tests()].into_iter().flatten().collect()
}

fn c(source: &str, more: &[&str]) -> Result<PathBuf> {
    workload::c(source, &[&BARE, more].concat())
}

/// Records a running program and fails unless enough of its stacks begin where its threads do.
fn whole(target: &Running, least: f64) -> Result<Folded> {
    whole_of(target.pid(), least)
}

fn whole_of(pid: u32, least: f64) -> Result<Folded> {
    // So many samples that chance has no say in the last half percent.
    let folded = probe::record_with(&["-p", &pid.to_string(), "-d", "3", "-F", "997"])?;
    expect_whole(&folded, least)?;
    Ok(folded)
}

fn expect_whole(folded: &Folded, least: f64) -> Result<()> {
    let share = folded.share(|frames| !frames.iter().any(|frame| frame.starts_with("[truncated")));
    ensure!(share >= least, "only {share:.4} of {} stacks are whole:\n{}", folded.total(), folded.show());
    Ok(())
}

/// The same of samples that have their times.
fn expect_whole_samples(samples: &Profile, least: f64) -> Result<()> {
    let share = samples.whole();
    let cut = samples.samples.iter().filter(|sample| !sample.is_whole).take(5);
    ensure!(
        share >= least,
        "only {share:.4} of {} stacks are whole; of the others: {:#?}",
        samples.samples.len(),
        cut.collect::<Vec<_>>()
    );
    Ok(())
}

fn is_deep(frames: &[String]) -> bool {
    frames.iter().filter(|frame| frame.starts_with("descend")).count() == 1000
        && frames.iter().any(|frame| frame == "main")
}

fn expect_deep(path: &Path) -> Result<()> {
    expect_deep_in(&whole(&Running::workload(path)?, SMALL)?)
}

fn expect_deep_in(folded: &Folded) -> Result<()> {
    let deep = folded.share(is_deep);
    ensure!(deep >= SMALL, "only {deep:.4} of the stacks have the 1,000 calls:\n{}", folded.show());
    Ok(())
}
