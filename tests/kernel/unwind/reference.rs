//! The same process seen by `perf`, which unwinds copies of whole stacks: where it arrives, so do we, by the same functions.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{perf, probe, workload};

use super::{BARE, c, programs};

/// Functions with more than this share are compared.
const COMPARED: f64 = 0.02;
/// And may differ by this: both take samples of their own.
const TOLERANCE: f64 = 0.05;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::as_perf_sees_a_recursion", || agrees(&Running::workload(&c("deep.c", &[])?)?, "deep")),
        trial("unwind::as_perf_sees_threads", || agrees(&Running::workload(&c("threads.c", &[])?)?, "threads")),
        trial("unwind::as_perf_sees_exceptions", || {
            agrees(&Running::workload(&workload::cxx("throws.cpp", &BARE)?)?, "throws")
        }),
        trial("unwind::as_perf_sees_signal_handlers", || agrees(&Running::workload(&c("signals.c", &[])?)?, "signals")),
        trial("unwind::as_perf_sees_an_interpreter", || agrees(&programs::python_running()?, "python3")),
        trial("unwind::as_perf_sees_a_database", || agrees(&programs::sqlite_running()?, "libsqlite3.so")),
    ]
}

/// Both record at the same time. Compared are the functions of files by this name: what the C library has under several
/// names, either may call as it likes.
fn agrees(target: &Running, compared_module: &str) -> Result<()> {
    const HZ: u32 = 499;
    let reference = perf::Recorder::start(target.pid(), 4, HZ)?;
    let pid = target.pid().to_string();
    let ours = probe::profile_with(&["-p", &pid, "-d", "4", "-F", &HZ.to_string()]);
    let (theirs, ours) = (reference.finish()?, ours?);
    let (whole, expected) = (ours.whole(), theirs.whole());
    ensure!(whole >= expected - 0.005, "{whole:.4} of the stacks are whole, of perf's {expected:.4}");

    let all = ours.samples.iter().chain(&theirs.samples);
    let modules: BTreeSet<&str> = all.flat_map(|sample| sample.frames.iter().map(|f| f.module.as_str())).collect();
    let mut compared = 0;
    for module in modules.into_iter().filter(|module| module.contains(compared_module)) {
        let (ours, theirs) = (ours.functions(module), theirs.functions(module));
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            let share = |of: &BTreeMap<String, f64>| of.get(name).copied().unwrap_or(0.0);
            let (ours, theirs) = (share(&ours), share(&theirs));
            if ours.max(theirs) > COMPARED {
                compared += 1;
                ensure!((ours - theirs).abs() <= TOLERANCE, "{name} of {module}: {ours:.3}, by perf {theirs:.3}");
            }
        }
    }
    ensure!(compared >= 2, "there is nothing to compare");
    Ok(())
}
