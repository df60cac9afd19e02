//! Where memory is allocated, and what is not freed: bytes and objects by stack.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{probe, workload};

/// Length of a recording, in seconds.
const SECONDS: u32 = 5;
/// Enough that the probes are set all the time, and samples enough to be within a few percent.
const EXACT: [&str; 5] = ["-e", "malloc", "--max-overhead=100", "--sample-bytes", "2KiB"];

pub fn tests() -> Vec<Trial> {
    vec![
        trial("memory::a_leak_is_found_among_ten_times_as_much_churn", leak),
        trial("memory::a_leak_shows_though_probes_are_away_most_of_the_time", partly),
        trial("memory::every_function_counts_once", || kinds(Command::new(dynamic()?))),
        trial("memory::in_jemalloc", || kinds_with("libjemalloc.so.2")),
        trial("memory::in_mimalloc", || kinds_with("libmimalloc.so.2.0")),
        trial("memory::in_tcmalloc", || kinds_with("libtcmalloc_minimal.so.4")),
        trial("memory::in_a_static_program", || kinds(Command::new(workload::c("heap.c", &["-static"])?))),
        trial("memory::in_musl", || kinds(Command::new(workload::c_by("musl-gcc", "heap.c", &["-static"])?))),
        trial("memory::other_threads_free_and_blocks_move", moves),
        trial("memory::another_program_has_not_what_was_allocated_before", becomes),
        trial("memory::a_heavy_load_is_looked_at_for_a_part_of_the_time", governed),
        trial("memory::go_has_an_allocator_of_its_own", go),
        trial("memory::pprof_has_four_values", pprof),
    ]
}

fn dynamic() -> Result<PathBuf> {
    workload::c("heap.c", &[])
}

fn heap(role: &str) -> Result<Running> {
    Running::ready(Command::new(dynamic()?).arg(role))
}

fn record(target: &Running, more: &[&str]) -> Result<Folded> {
    probe::record(target.pid(), SECONDS, &[&EXACT, more].concat())
}

/// Bytes of a function, in MB a second.
fn rate(folded: &Folded, function: &str) -> f64 {
    let bytes = folded.stacks().filter(|(frames, _)| frames.iter().any(|frame| frame == function));
    bytes.map(|(_, bytes)| bytes).sum::<u64>() as f64 / 1e6 / f64::from(SECONDS)
}

fn expect_rate(folded: &Folded, function: &str, expected: f64) -> Result<()> {
    let rate = rate(folded, function);
    let is_near = (rate / expected - 1.0).abs() < 0.1;
    ensure!(is_near, "{function}: {rate:.3} MB a second, not {expected}:\n{}", folded.show());
    Ok(())
}

fn leak() -> Result<()> {
    let target = heap("leak")?;
    let all = record(&target, &[])?;
    expect_rate(&all, "leaks", 2.0)?;
    expect_rate(&all, "churns", 20.0)?;
    let live = record(&target, &["--live"])?;
    expect_rate(&live, "leaks", 2.0)?;
    // 256 blocks of 5000 bytes.
    let churned = rate(&live, "churns") * f64::from(SECONDS);
    ensure!((0.9..1.7).contains(&churned), "{churned} MB in use that were to be freed:\n{}", live.show());
    let old = record(&target, &["--live", "--older-than", "2s"])?;
    expect_rate(&old, "leaks", 2.0 * 3.0 / 5.0)?;
    ensure!(rate(&old, "churns") == 0.0, "nothing of it is two seconds old:\n{}", old.show());
    Ok(())
}

fn partly() -> Result<()> {
    let flags = ["-e", "malloc", "--live", "--max-overhead", "1", "--sample-bytes", "32KiB"];
    let folded = probe::record(heap("leak")?.pid(), 2 * SECONDS, &flags)?;
    let leaked = rate(&folded, "leaks") / 2.0;
    ensure!((1.2..2.8).contains(&leaked), "{leaked} MB a second leak, not 2:\n{}", folded.show());
    // 20 MB a second were allocated there, of which 1.3 MB are in use.
    ensure!(rate(&folded, "churns") / 2.0 < leaked, "what leaks is first:\n{}", folded.show());
    Ok(())
}

fn kinds_with(library: &str) -> Result<()> {
    let path = Path::new("/usr/lib/x86_64-linux-gnu").join(library);
    if !path.exists() {
        return Err(probe_tests::trial::Skip(format!("{} is not installed", path.display())).into());
    }
    let mut command = Command::new(dynamic()?);
    command.env("LD_PRELOAD", path);
    kinds(command)
}

fn kinds(mut command: Command) -> Result<()> {
    let target = Running::ready(command.arg("kinds"))?;
    for (more, grown) in [(&["--live"][..], 1.0), (&[], 1.5)] {
        let folded = record(&target, more)?;
        for function in ["malloc", "calloc", "realloc", "reallocarray", "aligned_alloc", "memalign", "posix_memalign"] {
            expect_rate(&folded, &format!("by_{function}"), 1.0)?;
        }
        // A block of half the size before.
        expect_rate(&folded, "by_growing", grown)?;
    }
    Ok(())
}

fn moves() -> Result<()> {
    let target = heap("moves")?;
    let folded = record(&target, &["--live"])?;
    let of = |function| rate(&folded, function) * f64::from(SECONDS);
    ensure!(of("hands_over") < 0.3, "another thread has freed it:\n{}", folded.show());
    ensure!((1.0..17.0).contains(&of("grows")), "one block of up to 16 MiB:\n{}", folded.show());
    Ok(())
}

fn becomes() -> Result<()> {
    let folded = record(&heap("becomes")?, &["--live"])?;
    ensure!(rate(&folded, "forgets") == 0.0, "that memory is gone:\n{}", folded.show());
    ensure!(rate(&folded, "grows") > 0.0, "the other program is sampled as well:\n{}", folded.show());
    Ok(())
}

fn governed() -> Result<()> {
    let target = heap("busy")?;
    let pid = target.pid().to_string();
    let output = probe::run(["record", "-p", &pid, "-d", "8", "-e", "malloc", "-o", "-", "--sample-bytes", "16KiB"])?
        .expect(0)?;
    let folded = Folded::parse(&output.stdout)?;
    folded.expect("spins", 0.99)?;
    let share = output.stderr.split("attached ").nth(1).and_then(|rest| rest.split(' ').next());
    let share: f64 = share.context("no share of time")?.parse()?;
    ensure!(share > 0.0 && share < 60.0, "{}", output.stderr);
    Ok(())
}

fn go() -> Result<()> {
    let mut target = Running::workload(Path::new(&workload::go("routines.go", &[])?))?;
    let pid = target.pid().to_string();
    probe::run(["record", "-p", &pid, "-d", "1", "-e", "malloc", "--live"])?.expect(1)?.expect_stderr("garbage")?;
    let folded = record(&target, &[])?;
    folded.expect("runtime.mallocgc", 0.9)?;
    ensure!(target.is_alive(), "the target is gone");
    Ok(())
}

fn pprof() -> Result<()> {
    let target = heap("leak")?;
    let folder = workload::scratch()?;
    let file = folder.path().join("out.pb.gz");
    let (pid, out) = (target.pid().to_string(), file.to_string_lossy().into_owned());
    probe::run([&["record", "-p", &pid, "-d", "3", "--live", "-o", &out], &EXACT[..]].concat())?.expect(0)?;
    let show = |value: &str| {
        let output = Command::new("go")
            .args(["tool", "pprof", "-top", "-sample_index", value, "-unit=MB"])
            .arg(&file)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    probe_tests::trial::require("go")?;
    for (value, expected) in [("alloc_space", 66.0), ("inuse_space", 7.0)] {
        let text = show(value)?;
        let total =
            text.lines().find_map(|line| line.split(" MB total").next()?.rsplit(' ').next()?.parse::<f64>().ok());
        let total = total.or_else(|| text.split("of ").nth(1)?.split("MB").next()?.parse().ok());
        let total = total.with_context(|| format!("no total in {text}"))? * 1.048_576;
        ensure!((total / expected - 1.0_f64).abs() < 0.25, "{value}: {total} MB, not {expected}:\n{text}");
    }
    ensure!(show("alloc_objects")?.contains("churns") && show("inuse_objects")?.contains("leaks"), "no objects");
    Ok(())
}
