//! Code that comes while it is recorded: libraries, programs that begin, programs that live a fraction of a second.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::profile::{Profile, Sample};
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{poll, probe, workload};

use super::{LARGE, SMALL, c, expect_whole_samples, is_deep, whole};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::a_library_loaded_at_run_time", dlopen),
        trial("unwind::a_library_loaded_while_it_is_recorded", late),
        trial("unwind::libraries_in_turn_at_the_same_address", swap),
        trial("unwind::a_process_from_its_first_moment_on", command),
        trial("unwind::short_lives_of_a_known_program", short),
    ]
}

fn dlopen() -> Result<()> {
    let plugin = c("plugin.c", &["-shared", "-fPIC"])?;
    let target = Running::ready(Command::new(c("dlopen.c", &[])?).arg(plugin))?;
    let folded = whole(&target, SMALL)?;
    folded.expect("plugin_hot", 0.95)?;
    folded.expect("main", SMALL)
}

fn swap() -> Result<()> {
    let library = |inner: &str, frame: u32, ms: u32| {
        let defines = [format!("-DINNER={inner}"), format!("-DFRAME={frame}"), format!("-DWORK_MS={ms}")];
        let flags = ["-shared", "-fPIC", "-O2", "-fomit-frame-pointer", "-DBURN_ROUNDS=10000"];
        c("swapped.c", &[&flags[..], &defines.each_ref().map(String::as_str)].concat())
    };
    let (alpha, beta) = (library("alpha_inner", 64, 60)?, library("beta_inner", 4096, 20)?);
    let target = Running::ready(Command::new(c("swap.c", &["-O2", "-fomit-frame-pointer"])?).args([&alpha, &beta]))?;
    let folded = probe::record_with(&["-p", &target.pid().to_string(), "-d", "3", "-F", "499"])?;
    let is_in = |frames: &[String], name: &str| frames.last().is_some_and(|leaf| leaf == name);
    let is_cut = |frames: &[String]| frames.iter().any(|frame| frame.starts_with("[truncated"));
    let is_whole =
        |frames: &[String]| frames.iter().any(|frame| frame == "main") && frames.iter().any(|frame| frame == "use");
    for name in ["alpha_inner", "beta_inner"] {
        let wrong = folded.share(|frames| is_in(frames, name) && !is_cut(frames) && !is_whole(frames));
        ensure!(wrong < 0.01, "{name}: {wrong:.3}\n{}", folded.show());
    }
    let [of_alpha, of_beta] = ["alpha_inner", "beta_inner"].map(|name| folded.share(|frames| is_in(frames, name)));
    let share = of_alpha / (of_alpha + of_beta);
    ensure!((share - 0.75).abs() < 0.06, "{share:.3}\n{}", folded.show());
    ensure!(folded.share(is_whole) > 0.5, "{}", folded.show());
    Ok(())
}

/// From this time after a library was loaded, its code is unwound.
const KNOWN_AFTER_NS: u64 = 100_000_000;

fn late() -> Result<()> {
    const HZ: usize = 499;
    let folder = workload::scratch()?;
    let (loaded, out, messages) =
        (folder.path().join("loaded"), folder.path().join("out.json"), folder.path().join("messages"));
    let plugin = c("plugin.c", &["-shared", "-fPIC"])?;
    let target = Running::ready(Command::new(c("late.c", &[])?).arg(plugin).arg(&loaded))?;
    let mut recorder = Command::new(probe::binary());
    recorder.args(["record", "-d", "3", "-F", &HZ.to_string(), "-p", &target.pid().to_string(), "-o"]).arg(&out);
    let mut recorder = Running::start(recorder.stderr(fs::File::create(&messages)?))?;
    poll::until("the beginning of the recording", Duration::from_secs(20), || {
        fs::read_to_string(&messages).ok().filter(|text| text.contains("sampling"))
    })?;
    target.signal("USR1")?;
    ensure!(recorder.wait(Duration::from_secs(60))?.success(), "{}", fs::read_to_string(&messages)?);
    let loaded_ns: u64 = fs::read_to_string(&loaded).context("nothing was loaded")?.trim().parse()?;
    let profile = Profile::parse(&fs::read_to_string(&out)?)?;

    let before = profile.only(|sample| sample.time_ns < loaded_ns);
    let known = before.share_of("waits_to_be_asked");
    ensure!(before.samples.len() > HZ / 10 && known > 0.9, "{known:.3} of {} before", before.samples.len());
    let after = profile.only(|sample| sample.time_ns >= loaded_ns + KNOWN_AFTER_NS);
    ensure!(after.samples.len() > HZ, "only {} samples after the library was loaded", after.samples.len());
    expect_whole_samples(&after, SMALL)?;
    let (hot, main) = (after.share_of("plugin_hot"), after.share_of("main"));
    ensure!(hot >= 0.95 && main >= SMALL, "plugin_hot has {hot:.3}, main {main:.3}");
    // What is lost until then is no more than the samples of that time, and nothing of before.
    expect_whole_samples(&before, SMALL)?;
    let cut = profile.samples.iter().filter(|sample| !sample.is_whole).count();
    ensure!(cut <= HZ / 10 + profile.samples.len() / 200, "{cut} stacks were cut");
    Ok(())
}

/// Nothing is known of a program that does not run yet: its tables are made while it runs.
fn command() -> Result<()> {
    let program = c("deep.c", &[])?;
    let folded = probe::record_with(&["-d", "3", "-F", "199", "--", &program.to_string_lossy()])?;
    let deep = folded.share(is_deep);
    ensure!(deep >= 0.9, "only {deep:.4} of the stacks have the 1,000 calls:\n{}", folded.show());
    Ok(())
}

/// Processes of 200 ms each, of a program that is new to the first of them.
fn short() -> Result<()> {
    const LIVES: usize = 12;
    let program = c("deep.c", &[])?;
    let script = format!("for i in $(seq {LIVES}); do \"$0\" 200; done");
    let shell = require("sh")?;
    let (shell, program) = (shell.to_string_lossy(), program.to_string_lossy());
    let profile = probe::profile_with(&["-F", "499", "--", &shell, "-c", &script, &program])?;
    let deep = profile.only(|sample| sample.frames.iter().any(|frame| frame.module == "deep"));
    let first = deep.samples.iter().min_by_key(|sample| sample.time_ns).context("none is seen")?.pid;
    let pids: BTreeSet<u64> = deep.samples.iter().map(|sample| sample.pid).collect();
    ensure!(pids.len() == LIVES, "{} processes are seen", pids.len());
    // What a process does until its exec has been heard of, a few milliseconds, is all that is lost.
    let later = deep.only(|sample| sample.pid != first);
    expect_whole_samples(&later, LARGE)?;
    let whole = later.only(|sample| sample.is_whole && sample.frames.iter().any(|frame| frame.function == "main"));
    let names = |sample: &Sample| sample.frames.iter().map(|frame| frame.function.clone()).collect::<Vec<_>>();
    let deep = whole.share(|sample| is_deep(&names(sample)));
    ensure!(deep >= LARGE, "only {deep:.4} of the stacks have the 1,000 calls");
    Ok(())
}
