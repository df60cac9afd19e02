//! Where threads wait, for how long, in which state, and who wakes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{probe, workload};
use serde_json::Value;

/// Length of a recording, in seconds and in what folded stacks count waits in.
const SECONDS: u32 = 3;
const MICROSECONDS: f64 = SECONDS as f64 * 1e6;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("waits::callers_are_told_apart_and_their_times_add_up", callers),
        trial("waits::short_and_long_ones_can_be_left_out", filtered),
        trial("waits::a_thread_that_never_wakes_waits_for_the_whole_time", never_wakes),
        trial("waits::states_are_told_apart", states),
        trial("waits::whoever_wakes_stands_on_top", wakers),
        trial("waits::together_with_cpu_samples_they_are_all_the_time", wall_clock),
        trial("waits::none_of_many_is_lost", many),
        trial("waits::places_that_look_alike_are_told_apart", places),
        trial("waits::every_process_but_no_kernel_thread", everything),
        trial("waits::flags_that_make_no_sense_are_refused", flags),
    ]
}

fn waits(roles: &[&str]) -> Result<Running> {
    let bare = ["-O2", "-fomit-frame-pointer"];
    Running::ready(Command::new(workload::c("waits.c", &bare)?).args(roles))
}

fn record(target: &Running, more: &[&str]) -> Result<Folded> {
    probe::record(target.pid(), SECONDS, &[&["-e", "off-cpu"], more].concat())
}

/// The time of the stacks that fulfil a condition, as a share of the recording.
fn time(folded: &Folded, condition: impl Fn(&[String]) -> bool) -> f64 {
    folded.share(condition) * folded.total() as f64 / MICROSECONDS
}

fn has<'a>(name: &'a str) -> impl Fn(&[String]) -> bool + 'a {
    move |frames| frames.iter().any(|frame| frame.contains(name))
}

fn expect_time(folded: &Folded, name: &str, least: f64, most: f64) -> Result<()> {
    let time = time(folded, has(name));
    ensure!(
        (least..=most).contains(&time),
        "{name} waits {time:.3} of the time, not {least} to {most}:\n{}",
        folded.show()
    );
    Ok(())
}

fn callers() -> Result<()> {
    let target = waits(&["naps"])?;
    let folded = record(&target, &["-t"])?;
    // Short ones have a sixth or, late as timers are, a little more.
    let short = time(&folded, |frames| has("short_naps")(frames) && has("nap")(frames));
    let long = time(&folded, |frames| has("long_naps")(frames) && has("nap")(frames));
    let (told_short, told_long) = (target.truth("short_naps")?.total(), target.truth("long_naps")?.total());
    let (share, told) = (short / (short + long), told_short / (told_short + told_long));
    ensure!((share - told).abs() < 0.07, "{short:.3} and {long:.3} where {told} was told:\n{}", folded.show());
    expect_time(&folded, "napper", 0.9, 1.05)?;
    folded.expect("start_thread", 0.3)?;
    let in_kernel = folded.share(|frames| {
        has("nap")(frames) && frames.last().is_some_and(|leaf| leaf.ends_with("_[k]") && !leaf.contains("bpf"))
    });
    ensure!(in_kernel > 0.3, "waits end in the kernel:\n{}", folded.show());
    Ok(())
}

fn filtered() -> Result<()> {
    let target = waits(&["naps"])?;
    let long = record(&target, &["--min-wait", "3ms"])?;
    let short = record(&target, &["--max-wait", "3ms"])?;
    let (all_short, all_long) = (target.truth("short_naps")?, target.truth("long_naps")?);
    let all = all_short.total() + all_long.total();
    // A nap of one millisecond is a long wait if it was kept waiting, and the seconds of a recording are not all there were.
    let late = all_short.total() - all_short.total_below(Duration::from_micros(2900));
    ensure!(time(&long, has("short_naps")) <= 0.02 + late / MICROSECONDS / 1e3, "{}", long.show());
    let expect = |folded: &Folded, name: &str, truth: f64| expect_time(folded, name, truth - 0.1, truth + 0.1);
    expect(&long, "long_naps", all_long.total() / all)?;
    ensure!(short.share_of("long_naps") < 0.02, "{}", short.show());
    expect(&short, "short_naps", all_short.total_below(Duration::from_millis(3)) / all)
}

fn never_wakes() -> Result<()> {
    expect_time(&record(&waits(&["sleeps"])?, &[])?, "waits_for_ever", 0.97, 1.03)
}

fn states() -> Result<()> {
    let folded = record(&waits(&["forks", "competes", "sleeps"])?, &["--states"])?;
    let in_state = |state: &str, function: &str| {
        time(&folded, |frames| frames.get(1).is_some_and(|frame| frame == state) && has(function)(frames))
    };
    for (state, function, least) in [
        // The C library keeps the way back from vfork in a register, so that its caller is not seen.
        ("[uninterruptible]", "vfork", 0.8),
        ("[runnable]", "wants_the_cpu", 0.6),
        ("[sleeping]", "waits_for_ever", 0.97),
    ] {
        let time = in_state(state, function);
        ensure!(time >= least, "{function} is {state} for {time:.3} of the time:\n{}", folded.show());
    }
    Ok(())
}

fn wakers() -> Result<()> {
    let folded = record(&waits(&["hands-over"])?, &["--wakers", "-t"])?;
    let woken = time(&folded, |frames| {
        let place = |name: &str| frames.iter().position(|frame| frame.contains(name));
        let order = (place("takes_work"), place("[woken by giver]"), place("gives_work"));
        matches!(order, (Some(waits), Some(by), Some(wakes)) if waits < by && by < wakes)
    });
    ensure!(woken > 0.9, "taker is woken by giver for {woken:.3} of the time only:\n{}", folded.show());
    // A timer wakes whoever sleeps, whichever thread it interrupts.
    folded.expect("[woken by an interrupt]", 0.2)?;
    Ok(())
}

fn wall_clock() -> Result<()> {
    let target = waits(&["naps", "competes"])?;
    let folded = probe::record(target.pid(), SECONDS, &["-e", "cpu,off-cpu", "-t", "--states"])?;
    // The two rivals share a CPU, so that each has half of it and waits for the other half.
    let rivals = time(&folded, has("rival-"));
    ensure!((1.85..2.15).contains(&rivals), "two threads have {rivals:.3} of the time:\n{}", folded.show());
    let running = time(&folded, |frames| has("rival-")(frames) && has("[running]")(frames));
    // Where others want this CPU they have less of it.
    ensure!((0.25..1.1).contains(&running), "they run for {running:.3} of it:\n{}", folded.show());
    expect_time(&folded, "napper-", 0.95, 1.05)
}

/// The profile of a program from its start to its end, without losses.
fn profile_of(program: &Path, arguments: [&str; 2]) -> Result<Value> {
    let folder = workload::scratch()?;
    let file = folder.path().join("out.json");
    let (program, out) = (program.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    let [first, second] = arguments;
    probe::run(["record", "-e", "off-cpu", "-o", &out, "--", &program, first, second])?.expect(0)?;
    let mut envelope: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let profile = envelope["profile"].take();
    let losses = profile["losses"].as_object().map_or(0, |losses| losses.keys().filter(|k| k.contains("lost")).count());
    ensure!(losses == 0, "{}", profile["losses"]);
    Ok(profile)
}

fn places() -> Result<()> {
    const PLACES: usize = 16;
    const DEPTHS: u64 = 12;
    const ROUNDS: u64 = 250 * DEPTHS;
    let program = workload::c("places.c", &["-O2", "-fomit-frame-pointer"])?;
    let profile = profile_of(&program, [&ROUNDS.to_string(), &DEPTHS.to_string()])?;
    let at = |list: &Value, index: &Value| list[index.as_u64().unwrap_or(u64::MAX) as usize].clone();
    // By place and calls of `deeper` on the way to it.
    let mut counts: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for sample in profile["samples"].as_array().into_iter().flatten() {
        let stack = at(&profile["stacks"], &sample["stack"]);
        let locations = stack["locations"].as_array().into_iter().flatten();
        let lines: Vec<Value> = locations.map(|index| at(&profile["locations"], index)["lines"].clone()).collect();
        let names: Vec<&str> = lines
            .iter()
            .flat_map(|lines| lines.as_array())
            .flatten()
            .filter_map(|line| line["function"].as_str())
            .collect();
        let place = (0..PLACES).find(|place| names.contains(&format!("place_{place}_").as_str()));
        let Some(place) = place else { continue };
        let depth = names.iter().filter(|name| **name == "deeper").count() as u64;
        *counts.entry((place, depth)).or_default() += sample["count"].as_u64().unwrap_or(0);
    }
    let expected = ROUNDS / DEPTHS;
    for place in 0..PLACES {
        for depth in 1..=DEPTHS {
            let count = counts.remove(&(place, depth)).unwrap_or(0);
            // The CPU may be taken from it as well.
            ensure!((expected..expected * 2).contains(&count), "{count} waits at place {place}, {depth} calls deep");
        }
    }
    ensure!(counts.is_empty(), "waits where none were: {counts:?}");
    Ok(())
}

fn many() -> Result<()> {
    const ROUNDS: u64 = 300_000;
    let program = workload::c("pingpong.c", &[])?;
    let profile = profile_of(&program, [&ROUNDS.to_string(), ""])?;
    let counts = profile["samples"].as_array().into_iter().flatten();
    let count: u64 = counts.filter_map(|sample| sample["count"].as_u64()).sum();
    // One CPU, so that each byte that is handed over is a switch; there may be some more, for others.
    let expected = 2 * ROUNDS;
    ensure!((expected - 10..expected * 11 / 10).contains(&count), "{count} waits in {ROUNDS} rounds of two threads");
    Ok(())
}

fn everything() -> Result<()> {
    let _target = waits(&["naps"])?;
    let folded = probe::record_with(&["-a", "-d", "2", "-e", "off-cpu"])?;
    ensure!(folded.share_of("long_naps") > 0.0, "{}", folded.show());
    ensure!(folded.share_of("kworker") == 0.0 && folded.share_of("ksoftirqd") == 0.0, "{}", folded.show());
    Ok(())
}

fn flags() -> Result<()> {
    probe::run(["record", "-p", "1", "--min-wait", "1ms"])?.expect(2)?.expect_stderr("-e off-cpu")?;
    probe::run(["record", "-p", "1", "-e", "off-cpu", "--min-wait", "5"])?.expect(2)?.expect_stderr("100us")?;
    Ok(())
}
