//! The files of `deploy/`, and what they have in common.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use probe_tests::{probe, workload};

pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

pub fn read(name: &str) -> Result<String> {
    fs::read_to_string(path(name)).with_context(|| format!("deploy/{name}"))
}

/// The capabilities that the collector keeps, by the names that Kubernetes has for them.
pub fn collector() -> BTreeSet<String> {
    ::probe::sandbox::COLLECTOR.iter_names().map(|(name, _)| name.to_owned()).collect()
}

/// Fails unless the daemon takes this configuration. This host has neither its user nor its tokens: others stand for them.
pub fn expect_right(config: &Path) -> Result<()> {
    let folder = workload::scratch()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let [own, tokens] = ["probe.toml", "tokens"].map(|name| folder.path().join(name));
    fs::write(&tokens, "read 0123456789abcdef0123456789abcdef\n")?;
    let tokens = tokens.to_str().context("a readable path")?;
    let text = fs::read_to_string(config)?.replace("/etc/probe-tokens/tokens", tokens);
    fs::write(&own, text.replace("user = \"probe\"", "user = \"nobody\""))?;
    let own = own.to_str().context("a readable path")?;
    let output = probe::run(["config", "check", "--config", own])?.expect(0)?;
    ensure!(output.stdout.contains(": right: "), "{output:?}");
    Ok(())
}
