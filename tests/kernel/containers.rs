//! Processes that see other files and other process ids than we do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{Skip, require, trial};
use probe_tests::{probe, workload};
use serde_json::json;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("containers::a_binary_that_only_its_own_mount_namespace_has", mount_namespace),
        trial("containers::a_process_in_a_pid_namespace", pid_namespace),
        trial("containers::a_process_under_crun", crun),
    ]
}

fn mount_namespace() -> Result<()> {
    let folder = workload::scratch()?;
    let inside = folder.path().join("inside");
    fs::create_dir(&inside)?;
    let script = r#"mount -t tmpfs none "$1" && cp "$2" "$1/hidden" && exec "$1/hidden""#;
    let mut command = Command::new(require("unshare")?);
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&inside).arg(workload::c("split.c", &[])?);
    let target = Running::ready(&mut command)?;
    ensure!(!inside.join("hidden").exists(), "the mount is seen from outside");
    let pid = target.descendant("hidden")?;
    probe::record(pid, 2, &[])?.expect("takes_three_quarters", 0.5)
}

fn pid_namespace() -> Result<()> {
    let mut command = Command::new(require("unshare")?);
    command.args(["--pid", "--fork", "--mount-proc"]).arg(workload::c("threads.c", &[])?);
    let target = Running::ready(&mut command)?;
    let pid = target.descendant("threads")?;
    let folded = probe::record(pid, 2, &["-t"])?;
    folded.expect("alpha_work", 0.35)?;
    folded.expect("beta_work", 0.35)
}

fn crun() -> Result<()> {
    let crun = require("crun")?;
    let bundle = workload::scratch()?;
    let root = bundle.path().join("rootfs");
    for folder in ["proc", "dev", "sys"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(workload::c("split.c", &["-static"])?, root.join("contained"))?;
    write_config(&crun, bundle.path())?;
    let name = format!("probe-test-{}", std::process::id());
    let mut command = Command::new(require("unshare")?);
    command.args(["--mount", "sh", "-c", ONE_CGROUP_TREE, "sh"]).arg(&crun);
    command.args(["--cgroup-manager=disabled", "run", "--bundle"]).arg(bundle.path()).arg(&name);
    let started = Running::ready(command.stderr(Stdio::null()));
    let _container = Container { crun: &crun, name: &name };
    // Whether containers can be started here is not what is tested.
    let target = started.map_err(|error| Skip(format!("crun starts no container here: {error:#}")))?;
    let pid = target.descendant("contained")?;
    probe::record(pid, 2, &[])?.expect("takes_three_quarters", 0.5)
}

/// Where both versions of control groups are mounted side by side, crun refuses to work; in a mount namespace of its own
/// it can be given version 2 alone. Elsewhere nothing is changed.
const ONE_CGROUP_TREE: &str = r#"
if [ -d /sys/fs/cgroup/unified ]; then
    umount --recursive --lazy /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
exec "$@""#;

/// Removes the container, whatever became of the test.
struct Container<'a> {
    crun: &'a Path,
    name: &'a str,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = Command::new(self.crun).args(["delete", "--force", self.name]).stderr(Stdio::null()).status();
    }
}

/// The runtime's own template, changed to run our program without a terminal.
fn write_config(crun: &Path, bundle: &Path) -> Result<()> {
    let spec = Command::new(crun).arg("spec").current_dir(bundle).status()?;
    if !spec.success() {
        bail!(Skip(format!("crun writes no configuration here: {spec}")));
    }
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    let process = config.get_mut("process").and_then(|p| p.as_object_mut()).context("a process in the template")?;
    process.insert("args".to_owned(), json!(["/contained"]));
    process.insert("terminal".to_owned(), json!(false));
    fs::write(&path, serde_json::to_vec(&config)?).context("cannot write the container's configuration")
}
