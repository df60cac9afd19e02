//! What goes wrong is said, with a hint and with the right exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("errors::no_such_process", no_such_process),
        trial("errors::an_output_that_cannot_be_written", unwritable),
        trial("errors::no_privileges", no_privileges),
        trial("errors::no_samples", no_samples),
        trial("errors::a_command_ends_with_its_own_exit_code", exit_codes),
        trial("errors::kernel_only_leaves_out_what_was_taken_in_user_mode", kernel_only),
        trial("errors::an_unknown_key_names_its_line_and_the_nearest_key", unknown_key),
        trial("errors::a_configuration_that_is_not_there", no_configuration),
        trial("errors::check_tells_what_this_host_allows", check),
        trial("errors::check_without_privileges", check_unprivileged),
    ]
}

fn no_such_process() -> Result<()> {
    let mut ended = Command::new("true").spawn()?;
    let pid = ended.id().to_string();
    ended.wait()?;
    let output = probe::run(["record", "-p", &pid, "-d", "1", "-o", "-", "-f", "folded"])?.expect(3)?;
    output.expect_stderr(&pid)?.expect_stderr("hint:")?;
    Ok(())
}

fn exit_codes() -> Result<()> {
    let program = workload::c("deep.c", &[])?;
    let program = program.to_string_lossy();
    for (end, code) in [("exit 7", 7), ("kill -TERM $$", 143), ("exit 0", 0)] {
        let script = format!("{program} 200; {end}");
        probe::run(["record", "-F", "499", "-o", "-", "-f", "folded", "--", "sh", "-c", &script])?.expect(code)?;
    }
    // One without a sample has failed all the same.
    probe::run(["record", "-F", "1", "-o", "-", "-f", "folded", "--", "false"])?.expect(1)?;
    Ok(())
}

fn unwritable() -> Result<()> {
    let target = Running::workload(&workload::c("split.c", &[])?)?;
    let folder = workload::scratch()?;
    let file = folder.path().join("missing/out.svg");
    let file = file.to_str().context("a readable path")?;
    let output = probe::run(["record", "-p", &target.pid().to_string(), "-d", "1", "-o", file])?.expect(1)?;
    output.expect_stderr(file)?;
    Ok(())
}

/// Runs `probe` as a user who may nothing, from a folder that this user can reach.
fn as_nobody(arguments: &[&str]) -> Result<probe::Output> {
    let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir_in("/tmp")?;
    let copy = folder.path().join("probe");
    fs::copy(probe::binary(), &copy).context("cannot copy the binary under test")?;
    let mut command = Command::new(require("setpriv")?);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    probe::run_command(command.arg(copy).args(arguments).current_dir("/"))
}

fn no_privileges() -> Result<()> {
    let target = Running::workload(&workload::c("split.c", &[])?)?;
    let output = as_nobody(&["record", "-p", &target.pid().to_string(), "-d", "1", "-f", "folded", "-o", "-"])?;
    let output = output.expect(4)?.expect_stderr("hint:")?;
    ensure!(output.stderr.matches("failed to create map").count() < 2, "said twice: {}", output.stderr);
    // The folder cannot be written either, but that is not what is to be said first.
    as_nobody(&["record", "-p", &target.pid().to_string(), "-d", "1", "-o", "out.svg"])?.expect(4)?;
    // What cannot be looked into is not said to lack the function.
    as_nobody(&["latency", "-p", &target.pid().to_string(), "hot", "-d", "1"])?.expect(4)?.expect_stderr("hint:")?;
    Ok(())
}

fn kernel_only() -> Result<()> {
    let target = Running::workload(&workload::c("split.c", &[])?)?;
    let pid = target.pid().to_string();
    let output = probe::run(["record", "-p", &pid, "-K", "-d", "2", "-o", "-"])?;
    // A program that only computes may be met in the kernel now and then, by an interrupt.
    let is_bare = |line: &str| !line.contains(';');
    ensure!(output.code.is_some_and(|code| code == 0 || code == 3), "{output:#?}");
    ensure!(!output.stdout.lines().any(is_bare), "samples without a stack: {output:#?}");
    Ok(())
}

fn no_samples() -> Result<()> {
    let target = Running::start(Command::new("sleep").arg("60"))?;
    let output = probe::run(["record", "-p", &target.pid().to_string(), "-d", "1", "-f", "folded", "-o", "-"])?;
    output.expect(3)?.expect_stderr("sample")?.expect_stderr("hint:")?;
    Ok(())
}

fn unknown_key() -> Result<()> {
    let folder = workload::scratch()?;
    let file = folder.path().join("probe.toml");
    fs::write(&file, "[sampling]\nwindow = \"60s\"\nfrequncy = 19\n")?;
    let path = file.to_str().context("a readable path")?;
    for command in [&["daemon", "--config", path][..], &["config", "check", "--config", path]] {
        let output = probe::run(command)?.expect(2)?.expect_stderr("frequency")?;
        ensure!(output.stderr.contains(":3") || output.stderr.contains("line 3"), "no line: {}", output.stderr);
    }
    Ok(())
}

fn no_configuration() -> Result<()> {
    let output = probe::run(["daemon", "--config", "/nonexistent/probe.toml"])?;
    ensure!(output.code.is_some_and(|code| code == 1 || code == 2), "{output:#?}");
    output.expect_stderr("/nonexistent/probe.toml")?;
    Ok(())
}

fn check() -> Result<()> {
    let report = probe::run(["check", "--json"])?.expect(0)?.json()?;
    ensure!(report["can_record"] == true, "{report:#}");
    let checks = report["checks"].as_array().context("a list of checks")?;
    let names: Vec<_> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    for name in ["kernel", "kernel types (BTF)", "BPF", "perf events", "kernel lockdown", "CAP_BPF", "tracefs"] {
        ensure!(names.contains(&name), "no line for {name}: {names:?}");
    }
    Ok(())
}

fn check_unprivileged() -> Result<()> {
    let output = as_nobody(&["check"])?.expect(4)?;
    ensure!(output.stdout.contains("FAIL  BPF") && output.stdout.contains("hint:"), "{output:#?}");
    Ok(())
}
