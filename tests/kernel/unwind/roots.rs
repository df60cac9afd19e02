//! Stacks that begin elsewhere than a thread's, and those that an unwind table leads astray.

use std::process::Command;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::probe;
use probe_tests::running::Running;
use probe_tests::trial::trial;

use super::{SMALL, c, whole_of};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::the_stack_of_a_context_begins_with_it", || begins("context", &["__start_context", "is_entry"])),
        trial("unwind::the_stack_of_a_coroutine_begins_with_it", || begins("coroutine", &["is_the_end", "is_entry"])),
        trial("unwind::the_stack_of_a_fiber_begins_with_it", || begins("fiber", &["begins_fiber", "is_entry"])),
        trial("unwind::a_table_that_is_wrong_is_left", wrong),
    ]
}

fn started(how: &str) -> Result<Running> {
    Running::ready(Command::new(c("roots.c", &[])?).arg(how))
}

/// Whether a stack consists of these frames and what they call, below the process.
fn is_from(frames: &[String], first: &[&str]) -> bool {
    frames.get(1..=first.len()).is_some_and(|frames| frames == first)
}

fn begins(how: &str, first: &[&str]) -> Result<()> {
    let folded = whole_of(started(how)?.pid(), SMALL)?;
    let share = folded.share(|frames| is_from(frames, first));
    ensure!(share >= SMALL, "only {share:.4} of the stacks begin with {first:?}:\n{}", folded.show());
    folded.expect("works", 0.9)
}

/// What is called from there has its stack up to the function whose table is wrong, and no frame that is made up.
fn wrong() -> Result<()> {
    let target = started("wrong")?;
    let folded: Folded = probe::record_with(&["-p", &target.pid().to_string(), "-d", "2", "-F", "997"])?;
    let cut = ["[truncated: return address not after a call]", "is_wrong", "works"];
    let share = folded.share(|frames| is_from(frames, &cut));
    ensure!(share > 0.95, "only {share:.4} of the stacks are cut at the table:\n{}", folded.show());
    Ok(())
}
