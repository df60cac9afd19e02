//! Processes in namespaces of their own.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::workload;

use super::{SMALL, c, expect_deep_in, whole_of};

pub fn tests() -> Vec<Trial> {
    vec![trial("unwind::a_program_that_only_its_own_namespaces_have", namespaces)]
}

fn namespaces() -> Result<()> {
    let folder = workload::scratch()?;
    let inside = folder.path().join("inside");
    fs::create_dir(&inside)?;
    let script = r#"mount -t tmpfs none "$1" && cp "$2" "$1/hidden" && exec "$1/hidden""#;
    let mut command = Command::new(require("unshare")?);
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
    let target = Running::ready(command.arg(&inside).arg(c("deep.c", &[])?))?;
    ensure!(!inside.join("hidden").exists(), "the mount is seen from outside");
    expect_deep_in(&whole_of(target.descendant("hidden")?, SMALL)?)
}
