//! The unit for systemd, its user and folders, and the example of a configuration.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::trial::{require, unprivileged};
use probe_tests::{probe, workload};

use crate::files;

pub fn tests() -> Vec<Trial> {
    vec![
        unprivileged("systemd::the_unit_is_understood_and_exposes_little", unit),
        unprivileged("systemd::the_unit_has_the_capabilities_of_both_processes", capabilities),
        unprivileged("systemd::folders_belong_to_whom_the_daemon_would_give_them", folders),
        unprivileged("systemd::the_example_of_a_configuration_is_right", example),
    ]
}

/// Most that `systemd-analyze security` may find, in tenths of its points: 100 is a service without any protection.
const EXPOSURE: &str = "45";

/// What the supervisor needs beyond the collector's: to become the server's user without a way back, and to signal it then.
const SUPERVISOR: [&str; 4] = ["KILL", "SETGID", "SETUID", "SETPCAP"];

fn unit() -> Result<()> {
    let analyze = require("systemd-analyze")?;
    let folder = workload::scratch()?;
    let unit = folder.path().join("probe.service");
    let binary = fs::canonicalize(probe::binary())?;
    let text = files::read("probe.service")?;
    ensure!(text.contains("ExecStart=/usr/bin/probe "), "where is the program?");
    fs::write(&unit, text.replace("/usr/bin/probe", binary.to_str().context("a readable path")?))?;
    let run = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(&analyze).args(arguments).arg(&unit).output()?;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(output.status.success(), "systemd-analyze {arguments:?}: {said}");
        Ok(said)
    };
    let said = run(&["verify", "--man=no"])?;
    // Keys and values that are not known are only warned of.
    ensure!(!said.contains("probe.service:"), "systemd-analyze verify: {said}");
    run(&["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE])?;
    Ok(())
}

/// The values of a key of the unit.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).collect()
}

fn capabilities() -> Result<()> {
    let text = files::read("probe.service")?;
    let bounds = values(&text, "CapabilityBoundingSet");
    let bounds: BTreeSet<String> = bounds.iter().map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
    let expected = files::collector().into_iter().chain(SUPERVISOR.map(str::to_owned)).collect();
    ensure!(bounds == expected, "{bounds:?}");
    for (key, value) in [("Type", "notify"), ("NotifyAccess", "main"), ("NoNewPrivileges", "yes")] {
        ensure!(values(&text, key) == [value], "{key}: {:?}", values(&text, key));
    }
    ensure!(!values(&text, "WatchdogSec").is_empty(), "nobody notices when it hangs");
    // Each of them hides what the collector looks at.
    for key in ["ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "ProcSubset", "PrivateUsers"] {
        ensure!(values(&text, key).is_empty(), "{key} hides the processes or the kernel's symbols");
    }
    Ok(())
}

fn folders() -> Result<()> {
    let lines = files::read("tmpfiles.conf")?;
    let words: Vec<Vec<&str>> = lines
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_whitespace().collect())
        .collect();
    ensure!(
        words
            == [
                ["d", "/var/lib/probe", "2750", "root", "probe", "-"],
                ["d", "/var/lib/probe-server", "0700", "probe", "probe", "-"],
            ]
    );
    let unit = files::read("probe.service")?;
    let written: Vec<&str> = words.iter().map(|words| words[1]).collect();
    ensure!(values(&unit, "ReadWritePaths") == written, "the unit cannot write them");
    ensure!(values(&files::read("sysusers.conf")?.replace("u probe", "user=probe"), "user")[0] == "probe");
    Ok(())
}

fn example() -> Result<()> {
    files::expect_right(&files::path("probe.toml"))
}
