//! Compilers, their optimisations, and ways to link.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::workload;

use super::{SMALL, c, expect_deep, whole};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::a_recursion_of_1000_calls", || optimised("gcc")),
        trial("unwind::a_recursion_of_1000_calls_by_clang", || optimised("clang")),
        trial("unwind::the_heaviest_optimisation", || heavily_optimised("gcc")),
        trial("unwind::the_heaviest_optimisation_by_clang", || heavily_optimised("clang")),
        trial("unwind::a_static_binary", || linked(&["-static"])),
        trial("unwind::a_static_binary_anywhere_in_memory", || linked(&["-static-pie"])),
        trial("unwind::a_static_binary_with_musl", || musl(&["-static"])),
        trial("unwind::a_binary_with_musl", || musl(&[])),
        trial("unwind::a_stripped_binary", stripped),
    ]
}

fn built(compiler: &str, source: &str, level: &str, more: &[&str]) -> Result<PathBuf> {
    workload::c_by(compiler, source, &[&[level, "-fomit-frame-pointer"], more].concat())
}

fn optimised(compiler: &str) -> Result<()> {
    for level in ["-O2", "-O3"] {
        expect_deep(&built(compiler, "deep.c", level, &[])?)?;
    }
    Ok(())
}

fn heavily_optimised(compiler: &str) -> Result<()> {
    for more in [&[][..], &["-fcf-protection=none"]] {
        let program = built(compiler, "split.c", "-O3", more)?;
        let folded = whole(&Running::workload(&program)?, SMALL)?;
        folded.expect("main", SMALL)?;
        folded.expect("takes_three_quarters", 0.6)?;
    }
    Ok(())
}

fn linked(how: &[&str]) -> Result<()> {
    expect_deep(&c("deep.c", how)?)
}

fn musl(how: &[&str]) -> Result<()> {
    expect_deep(&built("musl-gcc", "deep.c", "-O2", how)?)
}

fn stripped() -> Result<()> {
    let folded = whole(&Running::workload(&c("deep.c", &["-s"])?)?, SMALL)?;
    let deep = folded.share(|frames| frames.len() > 1000);
    ensure!(deep >= SMALL, "only {deep:.4} of the stacks have the 1,000 calls:\n{}", folded.show());
    Ok(())
}
