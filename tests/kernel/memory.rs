//! Where memory is allocated, and what is not freed: bytes and objects by stack.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::golang::{self, Go};
use probe_tests::running::Running;
use probe_tests::trial::{Skip, install, require, require_from, trial};
use probe_tests::{poll, probe, workload};

/// Length of a recording, in seconds.
const SECONDS: u32 = 5;
/// Enough that the probes are set all the time, and samples enough to be within a few percent.
const EXACT: [&str; 5] = ["-e", "malloc", "--max-overhead=100", "--sample-bytes", "2KiB"];

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial("memory::a_leak_is_found_among_ten_times_as_much_churn", leak),
        trial("memory::a_leak_shows_though_probes_are_away_most_of_the_time", partly),
        trial("memory::every_function_counts_once", || kinds(Command::new(dynamic()?))),
        trial("memory::in_jemalloc", || kinds_with("libjemalloc.so.2", "libjemalloc2")),
        trial("memory::in_mimalloc", || kinds_with("libmimalloc.so.2.0", "libmimalloc2.0")),
        trial("memory::in_tcmalloc", || kinds_with("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4")),
        trial("memory::in_a_static_program", || kinds(Command::new(workload::c("heap.c", &["-static"])?))),
        trial("memory::in_musl", || kinds(Command::new(workload::c_by("musl-gcc", "heap.c", &["-static"])?))),
        trial("memory::a_realloc_that_fails_keeps_the_old_block", refused),
        trial("memory::other_threads_free_and_blocks_move", moves),
        trial("memory::another_program_has_not_what_was_allocated_before", becomes),
        trial("memory::a_heavy_load_is_looked_at_for_a_part_of_the_time", governed),
        trial("memory::pprof_has_four_values", pprof),
        trial("memory::an_allocator_that_publishes_samples_is_believed", || published(&[])),
        trial("memory::an_allocator_may_wait_for_listeners", || published(&["-DSEMAPHORES"])),
        trial("memory::without_published_samples_functions_are_probed", not_published),
        trial("memory::a_command_is_recorded_from_its_first_instruction", command),
        trial("memory::a_command_that_is_a_script", script),
        trial("memory::children_are_followed", children),
        trial("memory::a_library_that_is_loaded_later", loaded),
        trial("memory::short_children_stand_for_themselves", short_children),
        trial("memory::a_cxx_program_and_its_exceptions", cxx),
        trial("memory::redis_is_recorded_as_a_command", redis),
        trial("memory::all_processes_are_refused", all),
    ];
    tests.extend(golang::trials("memory::go_has_an_allocator_of_its_own", garbage_collected));
    tests
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
    let churned = rate(&folded, "churns") / 2.0;
    ensure!(churned < 0.5 * leaked, "what leaks is first:\n{}", folded.show());
    Ok(())
}

fn kinds_with(library: &str, package: &str) -> Result<()> {
    let mut command = Command::new(dynamic()?);
    command.env("LD_PRELOAD", allocator(library, package)?);
    kinds(command)
}

/// A library of a Debian package.
fn allocator(library: &str, package: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/lib/x86_64-linux-gnu").join(library);
    if !path.exists() {
        install(package);
    }
    ensure!(
        path.exists(),
        Skip(format!("{} is not installed, and the package {package} not to be had", path.display()))
    );
    Ok(path)
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

fn refused() -> Result<()> {
    let folded = record(&heap("refused")?, &["--live"])?;
    expect_rate(&folded, "fails_to_grow", 1.0)?;
    expect_rate(&folded, "fails_to_grow_an_array", 1.0)?;
    let freed = rate(&folded, "shrinks_to_nothing");
    ensure!(freed < 0.05, "{freed} MB a second of what was freed:\n{}", folded.show());
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

fn garbage_collected(go: Go) -> Result<()> {
    let mut target = Running::workload(&go.build("routines.go", &[])?)?;
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
    require("go")?;
    for (value, expected) in [("alloc_space", 66.0), ("inuse_space", 7.0)] {
        let text = show(value)?;
        let total = text.lines().find(|line| line.contains("nodes accounting for"));
        let total =
            total.and_then(|line| line.split("% of ").nth(1)?.split("MB total").next()?.trim().parse::<f64>().ok());
        let total = total.with_context(|| format!("no total in {text}"))? * 1.048_576;
        ensure!((total / expected - 1.0_f64).abs() < 0.25, "{value}: {total} MB, not {expected}:\n{text}");
    }
    ensure!(show("alloc_objects")?.contains("churns") && show("inuse_objects")?.contains("leaks"), "no objects");
    Ok(())
}

/// 2 MB a second leak, and 20 MB a second are freed after 250 allocations: of each tenth the allocator tells.
fn published(flags: &[&str]) -> Result<()> {
    let target = Running::workload(&workload::c("published.c", flags)?)?;
    let pid = target.pid().to_string();
    let seconds = SECONDS.to_string();
    // Whatever the mean is: nobody samples what are samples.
    let flags = ["record", "-p", &pid, "-d", &seconds, "-e", "alloc", "--sample-bytes", "64MiB", "-o", "-"];
    let output = probe::run(flags)?.expect(0)?.expect_stderr("USDT samples in published (tier 2)")?;
    let all = Folded::parse(&output.stdout)?;
    let (leaked, churned) = (rate(&all, "leaks"), rate(&all, "churns"));
    // A busy machine may take its time to end the recording; what is exact is how much of one there is to the other.
    ensure!((1.8..3.0).contains(&leaked) && (9.8..10.2).contains(&(churned / leaked)), "{}", all.show());
    ensure!(all.share_of("malloc") == 0.0, "functions are probed as well:\n{}", all.show());
    let live = probe::run([&flags[..], &["--live"]].concat())?.expect(0)?.expect_stderr("tier 2")?;
    let live = Folded::parse(&live.stdout)?;
    let leaked = rate(&live, "leaks");
    ensure!((1.8..3.0).contains(&leaked), "{leaked} MB a second leak, not 2:\n{}", live.show());
    // 250 blocks of 5000 bytes, each tenth of which is known.
    let churned = rate(&live, "churns") * f64::from(SECONDS);
    ensure!((1.1..1.5).contains(&churned), "{churned} MB in use that were to be freed:\n{}", live.show());
    let functions = probe::run(["record", "-p", &pid, "-d", "2", "-e", "malloc", "-o", "-"])?.expect(0)?;
    functions.expect_stderr("uprobes in libc.so.6 (tier 3)")?;
    Ok(())
}

fn not_published() -> Result<()> {
    let target = heap("leak")?;
    let pid = target.pid().to_string();
    let flags =
        ["record", "-p", &pid, "-d", "3", "-o", "-", "-e", "alloc", "--max-overhead=100", "--sample-bytes=2KiB"];
    let output = probe::run(flags)?.expect(0)?.expect_stderr("uprobes in libc.so.6 (tier 3)")?;
    let folded = Folded::parse(&output.stdout)?;
    let leaked = rate(&folded, "leaks") * f64::from(SECONDS) / 3.0;
    ensure!((1.7..2.3).contains(&leaked), "{leaked} MB a second leak, not 2:\n{}", folded.show());
    Ok(())
}

/// `begins` allocates 100 MB at once, and nobody frees it.
fn expect_begin(folded: &Folded) -> Result<()> {
    let begun = rate(folded, "begins") * f64::from(SECONDS);
    ensure!((90.0..110.0).contains(&begun), "{begun} MB of the first 100:\n{}", folded.show());
    ensure!(rate(folded, "leaks") > 0.0, "the rest is missing:\n{}", folded.show());
    Ok(())
}

fn command() -> Result<()> {
    let program = dynamic()?.to_string_lossy().into_owned();
    for more in [&[][..], &["--live"]] {
        expect_begin(&probe::record_with(&[&EXACT, more, &["-d", "3", "--", &program, "begins"]].concat())?)?;
    }
    let linked_in = workload::c("heap.c", &["-static"])?.to_string_lossy().into_owned();
    expect_begin(&probe::record_with(&[&EXACT[..], &["-d", "3", "--", &linked_in, "begins"]].concat())?)
}

fn script() -> Result<()> {
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        return Err(Skip(format!("{} is not installed", python.display())).into());
    }
    let folder = workload::scratch()?;
    let script = folder.path().join("script");
    // 200 MB in objects too large for Python's own allocator.
    let text = "def works():\n    return [bytes(100_000) for _ in range(2_000)]\nkept = works()\n";
    std::fs::write(&script, format!("#!{}\n{text}", python.display()))?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    // Nearly each of these objects is sampled, so that chance has little part in their sum.
    let flags = ["-e", "malloc", "--max-overhead=100", "--sample-bytes=32KiB", "--"];
    let folded = probe::record_with(&[&flags[..], &[&script.to_string_lossy()]].concat())?;
    let total = folded.total() as f64 / 1e6;
    ensure!((185.0..240.0).contains(&total), "{total} MB of 200 and some for Python itself:\n{}", folded.show());
    Ok(())
}

fn children() -> Result<()> {
    let mut command = Command::new(dynamic()?);
    command.arg("has_children");
    // The child that becomes another program has another allocator.
    if let Ok(library) = allocator("libjemalloc.so.2", "libjemalloc2") {
        command.arg(library);
    }
    let target = Running::ready(&mut command)?;
    let folded = probe::record(target.pid(), 6, &EXACT)?;
    // Both leak 2 MB a second, from two seconds after the target was ready: nearly four, and what it takes to start.
    for is_forked in [true, false] {
        let is_meant = |frames: &[String]| {
            let has = |name: &str| frames.iter().any(|frame| frame == name);
            has("leaks") && has("as_forked") == is_forked
        };
        let leaked = folded.share(is_meant) * folded.total() as f64 / 1e6;
        ensure!((5.0..10.5).contains(&leaked), "forked {is_forked}: {leaked} MB, not 8:\n{}", folded.show());
    }
    Ok(())
}

fn loaded() -> Result<()> {
    let library = workload::c("arena.c", &["-shared", "-fPIC"])?;
    let target = Running::ready(Command::new(dynamic()?).arg("loads").arg(&library))?;
    let folded = probe::record(target.pid(), 6, &EXACT)?;
    let given = rate(&folded, "in_arena") * f64::from(SECONDS);
    ensure!((4.5..9.0).contains(&given), "{given} MB, not 2 MB a second for some 3.7 seconds:\n{}", folded.show());
    Ok(())
}

/// Processes of a few milliseconds: what is seen of them is not more than there was, and many are seen.
fn short_children() -> Result<()> {
    let flags = ["-e", "malloc", "--max-overhead=100", "--sample-bytes=1KiB", "--"];
    let one = probe::record_with(&[&flags[..], &["/bin/ls", "/usr/bin"]].concat())?.total() as f64;
    let command = "i=0; while [ $i -lt 50 ]; do /bin/ls /usr/bin >/dev/null; i=$((i+1)); done";
    let folded = probe::record_with(&[&flags[..], &["/bin/sh", "-c", command]].concat())?;
    let all = folded.total() as f64;
    // The shell itself takes a little.
    ensure!(all > one && all < 60.0 * one, "{all} bytes of 50 times {one}:\n{}", folded.show());
    Ok(())
}

fn cxx() -> Result<()> {
    let mut target = Running::workload(&workload::cxx("throws.cpp", &[])?)?;
    let folded = probe::record(target.pid(), 3, &EXACT)?;
    folded.expect("malloc", 0.9)?;
    ensure!(target.is_alive(), "the target is gone");
    Ok(())
}

fn redis() -> Result<()> {
    let (server, benchmark) =
        (require_from("redis-server", "redis-server")?, require_from("redis-benchmark", "redis-tools")?);
    let folder = workload::scratch()?;
    let socket = folder.path().join("redis.sock");
    let out = folder.path().join("out.folded");
    let mut recording = Command::new(probe::binary());
    recording.args(["record", "-q", "-e", "malloc", "-d", "60", "-o"]).arg(&out).arg("--").arg(server);
    recording.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    recording.arg("--dir").arg(folder.path()).stdout(Stdio::null());
    let mut recording = Running::start(&mut recording)?;
    poll::until("redis to listen", Duration::from_secs(10), || socket.exists().then_some(()))?;
    let mut load = Command::new(benchmark);
    load.arg("-s").arg(&socket).args(["-t", "set,lpush", "-n", "250000", "-d", "2000", "-r", "100000", "-q"]);
    let load = load.output()?;
    ensure!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    recording.signal("INT")?;
    ensure!(recording.wait(Duration::from_secs(60))?.success(), "the recording has failed");
    let folded = Folded::parse(&std::fs::read_to_string(&out)?)?;
    // Half a million values of 2000 bytes, most of which were allocated while there were no probes; with them redis is slower.
    ensure!(folded.total() > 200_000_000, "{} bytes:\n{}", folded.total(), folded.show());
    folded.expect("main", 0.5)
}

fn all() -> Result<()> {
    let refused = probe::run(["record", "-a", "-e", "malloc", "-d", "1", "-o", "-"])?.expect(2)?;
    refused.expect_stderr("no bound")?.expect_stderr("pgrep")?;
    Ok(())
}
