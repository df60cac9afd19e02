//! Are the stacks right? Shares of functions, threads, depth, and both sides of a system call.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("stacks::a_split_of_75_to_25_comes_out_within_three_points", split),
        trial("stacks::threads_are_told_apart_by_name", threads),
        trial("stacks::a_recursion_of_1000_calls_is_whole", deep),
        trial("stacks::kernel_frames_stand_below_the_function_that_asked", kernel_frames),
        trial("stacks::user_only_and_kernel_only", one_side),
        trial("stacks::two_processes_are_recorded_together_and_no_third", two_processes),
    ]
}

fn split() -> Result<()> {
    let target = Running::workload(&workload::c("split.c", &[])?)?;
    let pid = target.pid().to_string();
    let folded = probe::record_with(&["-p", &pid, "-d", "5", "-F", "499"])?;
    // One core for five seconds, on a machine that may do other things too.
    ensure!(folded.total() > 500, "only {} samples:\n{}", folded.total(), folded.show());
    for (function, expected) in [("takes_three_quarters", 0.75), ("takes_one_quarter", 0.25)] {
        let share = folded.share_of(function);
        ensure!(
            (share - expected).abs() <= 0.03,
            "{function} has {share:.3} instead of {expected}:\n{}",
            folded.show()
        );
    }
    let process = folded.share(|frames| frames[0].starts_with("split"));
    ensure!(process == 1.0, "the process is the root of every stack:\n{}", folded.show());
    folded.expect("main", 0.97)
}

fn threads() -> Result<()> {
    let target = Running::workload(&workload::c("threads.c", &[])?)?;
    let folded = probe::record(target.pid(), 3, &["-t"])?;
    let mut names = BTreeSet::new();
    for (frames, _) in folded.stacks() {
        let (name, tid) = frames[1].rsplit_once('-').unwrap_or_default();
        ensure!(tid.parse::<u32>().is_ok(), "no thread-tid below the process in {frames:?}");
        names.insert(name.to_owned());
        let foreign = match name {
            "alpha" => "beta_work",
            "beta" => "alpha_work",
            _ => continue,
        };
        ensure!(!frames.iter().any(|frame| frame.contains(foreign)), "{foreign} in thread {name}: {frames:?}");
    }
    ensure!(names.contains("alpha") && names.contains("beta"), "threads: {names:?}");
    folded.expect("alpha_work", 0.4)?;
    folded.expect("beta_work", 0.4)
}

fn deep() -> Result<()> {
    let target = Running::workload(&workload::c("deep.c", &[])?)?;
    let folded = probe::record(target.pid(), 3, &[])?;
    let whole = folded.share(|frames| {
        let calls = frames.iter().filter(|frame| frame.starts_with("descend")).count();
        calls == 1000
            && frames.iter().any(|frame| frame == "main")
            && !frames.iter().any(|f| f.starts_with("[truncated"))
    });
    let depths: BTreeSet<usize> = folded.stacks().map(|(frames, _)| frames.len()).collect();
    ensure!(whole > 0.97, "only {whole:.3} of the stacks are whole; depths: {depths:?}");
    folded.expect("at_the_bottom", 0.97)
}

fn kernel_frames() -> Result<()> {
    let target = Running::workload(&workload::c("syscalls.c", &[])?)?;
    let folded = probe::record(target.pid(), 3, &[])?;
    let both = folded.share(|frames| {
        let asked = frames.iter().position(|frame| frame.contains("asks_the_kernel"));
        let kernel = frames.iter().position(|frame| frame.ends_with("_[k]"));
        let user_after_kernel = frames.iter().skip_while(|f| !f.ends_with("_[k]")).any(|f| !f.ends_with("_[k]"));
        matches!((asked, kernel), (Some(asked), Some(kernel)) if asked < kernel) && !user_after_kernel
    });
    ensure!(both > 0.9, "only {both:.3} of the samples have kernel frames after the caller's:\n{}", folded.show());
    let named = folded.share(|frames| frames.iter().any(|f| f.ends_with("_[k]") && f.contains("read")));
    ensure!(named > 0.8, "the kernel's frames have no names:\n{}", folded.show());
    folded.expect("main", 0.9)
}

fn one_side() -> Result<()> {
    let target = Running::workload(&workload::c("syscalls.c", &[])?)?;
    let user = probe::record(target.pid(), 2, &["-U"])?;
    ensure!(user.share_of("_[k]") == 0.0, "-U leaves out kernel frames:\n{}", user.show());
    user.expect("asks_the_kernel", 0.9)?;
    let kernel = probe::record(target.pid(), 2, &["-K"])?;
    ensure!(kernel.share_of("asks_the_kernel") == 0.0, "-K leaves out user frames:\n{}", kernel.show());
    kernel.expect("_[k]", 0.9)
}

fn two_processes() -> Result<()> {
    let split = Running::workload(&workload::c("split.c", &[])?)?;
    let calls = Running::workload(&workload::c("syscalls.c", &[])?)?;
    let _third = Running::workload(&workload::c("deep.c", &[])?)?;
    let folded = probe::record_with(&["-p", &format!("{},{}", split.pid(), calls.pid()), "-d", "3", "-F", "199"])?;
    let roots: BTreeSet<&str> = folded.stacks().map(|(frames, _)| frames[0].as_str()).collect();
    let all_known = roots.iter().all(|root| root.starts_with("split") || root.starts_with("syscalls"));
    ensure!(roots.len() == 2 && all_known, "the roots are {roots:?}");
    Ok(())
}
