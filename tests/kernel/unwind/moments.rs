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

/// What they do first is to be linked, and much of that is to map files: then nobody else may look at what is mapped.
fn moments() -> Result<()> {
    const LOOP: &str = "echo ready; while :; do /usr/bin/id >/dev/null; /usr/bin/stat / >/dev/null; /bin/true; done";
    let target = Running::ready(Command::new("sh").args(["-c", LOOP]))?;
    let folded = probe::record_with(&["-p", &target.pid().to_string(), "-d", "4", "-F", "997"])?;
    let ours = folded.share(|frames| frames[0] != "sh");
    let cut = folded.share(|frames| frames[0] != "sh" && frames[1].starts_with("[truncated"));
    let mapped = folded.share(|frames| {
        frames.get(1).is_some_and(|frame| frame == "_start") && frames.iter().any(|frame| frame == "_dl_map_object")
    });
    let executed = folded.share(|frames| frames.get(1).is_some_and(|frame| frame.contains("execve")));
    ensure!(ours > 0.1, "only {ours:.3} of the stacks are of the programs:\n{}", folded.show());
    // The tables of files that nobody has mapped come while they run.
    ensure!(cut < 0.1 * ours, "of {ours:.3} that are of the programs {cut:.3} are cut:\n{}", folded.show());
    ensure!(mapped > 0.01, "{mapped:.3} map what they are linked with:\n{}", folded.show());
    ensure!(executed > 0.01, "{executed:.3} are in execve:\n{}", folded.show());
    Ok(())
}
