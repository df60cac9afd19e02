//! Releases of Go by which workloads are built: the layouts of what Go writes into its programs differ. Each is a module of
//! the Go proxy (<https://go.dev/doc/toolchain>), which any `go` downloads.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use libtest_mimic::Trial;

use crate::trial::{Skip, require, trial};
use crate::workload;

/// The releases: before, and after the table of functions got the lines at which they begin (1.20), and after it lost the
/// address from which they count (1.26).
const RELEASES: [&str; 3] = ["1.19.13", "1.24.9", "1.26.8"];

/// A release of Go.
#[derive(Clone, Copy, Debug)]
pub struct Go(&'static str);

impl Go {
    /// Builds a workload.
    pub fn build(self, source: &str, more: &[&str]) -> Result<PathBuf> {
        workload::go_by(&self.program()?, source, more)
    }

    /// Where its `go` is; skips the test when it is not to be had.
    fn program(self) -> Result<PathBuf> {
        let any = require("go")?;
        let module = format!("golang.org/toolchain@v0.0.1-go{}.linux-amd64", self.0);
        let mut command = Command::new(any);
        command.args(["mod", "download", "-json", &module]).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod");
        // Outside of any module.
        let output = command.current_dir("/").stderr(Stdio::null()).output().context("go does not run")?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let Some(folder) = answer["Dir"].as_str() else {
            return Err(Skip(format!("Go {} cannot be downloaded: {}", self.0, answer["Error"])).into());
        };
        let folder = Path::new(folder);
        let program = folder.join("bin/go");
        // The files of a module are not executable.
        for tools in [folder.join("bin"), folder.join("pkg/tool/linux_amd64")] {
            for tool in fs::read_dir(&tools).with_context(|| format!("no {}", tools.display()))?.flatten() {
                fs::set_permissions(tool.path(), Permissions::from_mode(0o555))?;
            }
        }
        Ok(program)
    }
}

/// A test for each release, which is in its name.
pub fn trials(name: &str, test: fn(Go) -> Result<()>) -> impl Iterator<Item = Trial> {
    let of = move |release: &'static str| {
        let (minor, _) = release.rsplit_once('.').unwrap_or((release, ""));
        trial(&format!("{name}_{}", minor.replace('.', "_")), move || test(Go(release)))
    };
    RELEASES.into_iter().map(of)
}
