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
    let folded = probe::record_with(&["-p", &target.pid().to_string(), "-d", "4", "-F", "997"])?;
    // What they do first: they are linked. Their own tables may come too late, the linker's and the C library's do not.
    let ours = folded.share(|frames| frames[0] != "sh");
    let linked = folded.share(|frames| {
        frames.iter().any(|frame| frame == "_dl_start") && frames.get(1).is_some_and(|frame| frame == "_start")
    });
    ensure!(ours > 0.1, "only {ours:.3} of the stacks are of the programs:\n{}", folded.show());
    ensure!(
        linked > 0.15 * ours,
        "of {ours:.3} that are of the programs {linked:.3} begin with them:\n{}",
        folded.show()
    );
    Ok(())
}
