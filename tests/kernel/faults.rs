//! Where memory grows: which functions take it, how much of it, and what is given back.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::{Skip, trial};
use probe_tests::{probe, workload};
use serde_json::Value;

/// Length of a recording, in seconds.
const SECONDS: u32 = 4;
/// What the workloads take, in MiB a second.
const RATE: f64 = 20.0;
const MIB: f64 = 1048576.0;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("faults::what_grows_stands_before_what_is_used_again", growth),
        trial("faults::what_the_kernel_fills_is_charged_to_the_call", reads),
        trial("faults::the_heap_grows_by_brk", heap),
        trial("faults::a_mapping_that_moves_grows_by_what_is_added", moves),
        trial("faults::what_is_populated_is_charged_to_the_call", populated),
        trial("faults::huge_pages_count_whole", huge),
        trial("faults::many_faults_are_sampled_without_bias", storm),
        trial("faults::processor_time_and_memory_stand_side_by_side", side_by_side),
        trial("faults::what_takes_nothing_gives_no_profile", nothing),
    ]
}

fn grows(roles: &[&str]) -> Result<Running> {
    let program = workload::c("grows.c", &[])?;
    Running::ready(Command::new(program).args(roles).env("RATE_MIB", RATE.to_string()))
}

fn record(target: &Running) -> Result<Folded> {
    probe::record_with(&["-p", &target.pid().to_string(), "-d", &SECONDS.to_string(), "-e", "page-fault", "-t"])
}

/// Bytes of a kind, in MiB, with a function in their stacks.
fn mib(folded: &Folded, kind: &str, function: &str) -> f64 {
    let has = |frames: &[String], name: &str| frames.iter().any(|frame| frame == name);
    folded.share(|frames| has(frames, kind) && has(frames, function)) * folded.total() as f64 / MIB
}

/// Fails unless a function has taken what it takes by design, within a tenth, and one step of a tenth of a second.
fn expect(folded: &Folded, kind: &str, function: &str) -> Result<()> {
    let (taken, expected) = (mib(folded, kind, function), RATE * f64::from(SECONDS));
    let range = 0.9 * expected - RATE / 10.0..1.1 * expected + RATE / 10.0;
    ensure!(range.contains(&taken), "{kind} {function}: {taken:.1} MiB, not {expected:.1}:\n{}", folded.show());
    Ok(())
}

fn growth() -> Result<()> {
    let folded = record(&grows(&["leaks", "uses-again", "takes-and-gives"])?)?;
    expect(&folded, "[resident]", "leaks")?;
    expect(&folded, "[mapped]", "leaks")?;
    let again = mib(&folded, "[resident]", "uses_again");
    ensure!(again < 1.0, "what is used again takes {again:.1} MiB:\n{}", folded.show());
    // At most what it holds at the end.
    for kind in ["[resident]", "[mapped]"] {
        let given = mib(&folded, kind, "takes_and_gives");
        ensure!(given < 6.0, "what is given back is {given:.1} MiB {kind}:\n{}", folded.show());
    }
    let whole = folded.share(|frames| frames.iter().any(|frame| frame == "start_thread"));
    ensure!(whole > 0.99, "the stacks are whole:\n{}", folded.show());
    Ok(())
}

fn populated() -> Result<()> {
    let folded = record(&grows(&["populates", "populates-later", "locks"])?)?;
    for function in ["populates", "populates_later", "locks"] {
        expect(&folded, "[resident]", function)?;
        expect(&folded, "[mapped]", function)?;
    }
    Ok(())
}

fn reads() -> Result<()> {
    let folded = record(&grows(&["reads-into"])?)?;
    expect(&folded, "[resident]", "reads_into")
}

fn heap() -> Result<()> {
    let folded = record(&grows(&["fills-the-heap"])?)?;
    expect(&folded, "[resident]", "fills_the_heap")?;
    expect(&folded, "[mapped]", "fills_the_heap")
}

fn moves() -> Result<()> {
    let folded = record(&grows(&["enlarges"])?)?;
    expect(&folded, "[resident]", "enlarges")?;
    expect(&folded, "[mapped]", "enlarges")
}

fn huge() -> Result<()> {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if enabled.is_empty() || enabled.contains("[never]") {
        return Err(Skip("no transparent huge pages here".into()).into());
    }
    // Where memory is in pieces, the kernel asks for a huge page in vain and takes small ones: as much memory, once.
    // That holds then too, but here it is to be whole (Documentation/admin-guide/sysctl/vm.rst, compact_memory).
    std::fs::write("/proc/sys/vm/compact_memory", "1")?;
    let target = grows(&["takes-huge"])?;
    let folded = record(&target)?;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", target.pid()))?;
    let huge = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).context("no AnonHugePages")?;
    // It sleeps between two pages, so that it is a little slower than its rate.
    let (small, all) = (mib(&folded, "[resident]", "takes_small"), mib(&folded, "[resident]", "takes_huge"));
    let (taken, expected) = (all - small, RATE * f64::from(SECONDS));
    ensure!((0.7 * expected..1.1 * expected).contains(&taken), "{taken:.1} of {expected} MiB:\n{}", folded.show());
    // A hundred pages of 4 KiB for each of 2 MiB: some of them are looked at, and these stand for no huge one.
    let share = small / taken * 512.0 / 100.0;
    ensure!((0.8..1.2).contains(&share), "small pages are {share:.2} of what they should be:\n{}", folded.show());
    if huge.trim().starts_with("0 ") {
        return Err(Skip("no huge page is to be had here: memory is in pieces".into()).into());
    }
    Ok(())
}

/// A quarter of the faults is in runs of sixteen pages: no fixed number of faults may be in step with them.
fn storm() -> Result<()> {
    let folded = record(&grows(&["storms"])?)?;
    let (quarter, rest) = (mib(&folded, "[resident]", "storms_quarter"), mib(&folded, "[resident]", "storms_rest"));
    let all = quarter + rest;
    ensure!((900.0..1150.0).contains(&all), "{all:.0} of 1024 MiB:\n{}", folded.show());
    ensure!((0.17..0.33).contains(&(quarter / all)), "a quarter is {:.3}:\n{}", quarter / all, folded.show());
    Ok(())
}

fn side_by_side() -> Result<()> {
    let target = grows(&["leaks", "takes-and-gives"])?;
    let folder = workload::scratch()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let pid = target.pid().to_string();
    let record = |file: &str| probe::run(["record", "-p", &pid, "-d", "3", "-e", "cpu,page-fault", "-o", &path(file)]);
    record("both.folded")?.expect(0)?.expect_stderr("both.page-fault.folded")?;
    let read = |file: &str| Folded::parse(&std::fs::read_to_string(path(file))?);
    let (times, memory) = (read("both.folded")?, read("both.page-fault.folded")?);
    times.expect("touch", 0.2)?;
    ensure!(times.share_of("[resident]") == 0.0, "{}", times.show());
    memory.expect("leaks", 0.8)?;
    record("both.json")?.expect(0)?;
    let whole: Value = serde_json::from_str(&std::fs::read_to_string(path("both.json"))?)?;
    let samples = whole["profile"]["samples"].as_array().context("no samples")?;
    let is = |measure: &str| samples.iter().any(|sample| sample["measure"] == measure);
    ensure!(is("resident") && is("mapped") && samples.iter().any(|sample| sample["measure"].is_null()));
    Ok(())
}

fn nothing() -> Result<()> {
    let target = grows(&[])?;
    let pid = target.pid().to_string();
    probe::run(["record", "-p", &pid, "-d", "1", "-e", "page-fault", "-o", "-"])?
        .expect(3)?
        .expect_stderr("to take memory")?;
    probe::run(["record", "-p", &pid, "-e", "cpu,page-fault", "-o", "-"])?.expect(2)?.expect_stderr("one unit")?;
    Ok(())
}
