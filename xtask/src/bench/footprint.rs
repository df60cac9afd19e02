//! What `probe` takes for itself: its share of a core while it records and while it watches, its memory and its maps.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::recording::Recording;
use super::tools::Tool;
use super::{procfs, workload};
use crate::shell;

/// Measures `probe record` at its default rate and `probe daemon`, on a busy process with stacks 20 frames deep.
pub fn run(probe: &Tool, workload: &Path, seconds: u32) -> Result<()> {
    let target = workload::start(workload, 20)?;
    let folder = shell::target_dir().join("bench");
    let seconds = seconds.max(10);
    println!(
        "\nprobe's own cost over {seconds} s, in percent of one core: its process, its program in the kernel, both"
    );

    let mut record = probe.own_command();
    record.args(["record", "-p", &target.0.id().to_string(), "-d", &(seconds + 20).to_string(), "-o"]);
    record.arg(folder.join("own.folded"));
    observe("record", record, seconds)?;

    let config = folder.join("probe.toml");
    fs::write(&config, configuration(target.0.id(), &folder)).context("cannot write the daemon's configuration")?;
    let mut daemon = probe.own_command();
    daemon.args(["daemon", "--config"]).arg(&config);
    observe("daemon", daemon, seconds)
}

/// Runs a command until it has been measured: first it starts, then it is looked at.
fn observe(name: &str, command: Command, seconds: u32) -> Result<()> {
    let mut recording = Recording::start("probe", command)?;
    let pid = recording.pid();
    let begins = |pid| procfs::perf_programs(pid).runs > 0;
    recording.wait_until(Duration::from_secs(15), begins).with_context(|| format!("probe {name}"))?;
    // What it does once, such as reading symbols of the kernel, is not its steady cost.
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, programs, began) = (procfs::cpu_seconds(pid), procfs::perf_programs(pid), Instant::now());
    std::thread::sleep(Duration::from_secs(u64::from(seconds)));
    let elapsed = began.elapsed().as_secs_f64();
    let used = procfs::cpu_seconds(pid).zip(cpu).context("probe has ended while it was measured")?;
    let process = (used.0 - used.1) / elapsed * 100.0;
    let kernel = (procfs::perf_programs(pid).run_ns - programs.run_ns) as f64 / 1e9 / elapsed * 100.0;
    let (resident, maps) = (procfs::resident_bytes(pid).unwrap_or(0), procfs::map_bytes(pid));
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    println!(
        "  probe {name:<7} {process:5.2} + {kernel:5.2} = {:5.2} %   resident {:.1} MiB + maps {:.1} MiB = {:.1} MiB",
        process + kernel,
        mib(resident),
        mib(maps),
        mib(resident + maps)
    );
    Ok(())
}

/// A daemon as an operator would run it: default rate, one target, one rule that does not break.
fn configuration(pid: u32, folder: &Path) -> String {
    format!(
        r#"[store]
path = "{}"
[[target]]
name = "frames"
match = {{ pid = {pid} }}
[[rule]]
name = "frames-cpu"
target = "frames"
metric = "cpu"
above = 100000.0
"#,
        folder.join("store").display()
    )
}
