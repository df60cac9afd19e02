//! Programs that live for a moment: what they have mapped is not told of before they end.

use std::process::Command;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::probe;
use probe_tests::running::Running;
use probe_tests::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial("unwind::programs_that_live_for_a_moment", moments)]
}

fn moments() -> Result<()> {
    const LOOP: &str = "echo ready; while :; do /usr/bin/id >/dev/null; /usr/bin/stat / >/dev/null; /bin/true; done";
    let target = Running::ready(Command::new("sh").args(["-c", LOOP]))?;
    // The first of each is not known yet, and where one maps a library its memory is locked.
    let folded = probe::record_with(&["-p", &target.pid().to_string(), "-d", "4", "-F", "997"])?;
    let is_cut = |frames: &[String]| frames.iter().any(|frame| frame.starts_with("[truncated"));
    // In between it has no stack.
    let is_between = |frames: &[String]| frames.iter().any(|frame| frame == "[truncated: in execve]");
    let ours = folded.share(|frames| frames[0] != "sh" && !is_between(frames));
    let whole = folded.share(|frames| frames[0] != "sh" && !is_cut(frames));
    ensure!(ours > 0.1, "only {ours:.3} of the stacks are of the programs:\n{}", folded.show());
    ensure!(whole > 0.6 * ours, "of {ours:.3} that are of the programs {whole:.3} are whole:\n{}", folded.show());
    Ok(())
}
