//! The oldest supported kernel, as Debian builds it: taken out of its package once, and kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shell;

/// Where the names of its packages and files begin; the number of the build and `-amd64` follow.
const PACKAGE: &str = "linux-image-6.1.0-";
const FILE: &str = "vmlinuz-6.1.0-";

/// The kernel in this folder, downloaded if there is none and that is allowed.
pub fn find(folder: &Path, download: bool) -> Result<PathBuf> {
    if let Some(kept) = kept(folder)? {
        return Ok(kept);
    }
    ensure!(download, "there is no {FILE}*-amd64 in {}", folder.display());
    let package = match newest() {
        Some(package) => package,
        None => {
            let mut apt = shell::as_root("apt-get").context("reading Debian's lists of packages needs root or sudo")?;
            shell::run(apt.args(["update", "-qq"]))?;
            newest().with_context(|| format!("no package {PACKAGE}*-amd64 here: only Debian 12 has it"))?
        }
    };
    eprintln!("xtask: apt-get download {package}");
    let apart = tempfile::tempdir_in(folder)?;
    shell::run(
        shell::command("apt-get")
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root", &package])
            .current_dir(apart.path()),
    )?;
    let archive = fs::read_dir(apart.path())?.flatten().map(|entry| entry.path()).next();
    let archive = archive.with_context(|| format!("apt-get has not written {package}"))?;
    let tree = apart.path().join("tree");
    shell::run(shell::command("dpkg").arg("-x").arg(&archive).arg(&tree))?;
    let unpacked = kept(&tree.join("boot"))?.with_context(|| format!("{package} has no {FILE}*"))?;
    let kernel = folder.join(unpacked.file_name().context("a file has a name")?);
    fs::rename(&unpacked, &kernel).with_context(|| format!("cannot write {}", kernel.display()))?;
    Ok(kernel)
}

fn kept(folder: &Path) -> Result<Option<PathBuf>> {
    let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(FILE.as_bytes()));
    Ok(files.flatten().map(|entry| entry.path()).find(is_kernel))
}

/// The newest build, by apt's lists.
fn newest() -> Option<String> {
    let expression = format!("^{PACKAGE}[0-9]+-amd64$");
    let found = shell::output(shell::command("apt-cache").args(["search", "--names-only", &expression]))?;
    newest_of(&found)
}

fn newest_of(list: &str) -> Option<String> {
    let build = |name: &str| name.strip_prefix(PACKAGE)?.strip_suffix("-amd64")?.parse::<u32>().ok();
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let newest = names.filter_map(|name| Some((build(name)?, name))).max()?;
    Some(newest.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_compared_as_numbers() {
        let list = "linux-image-6.1.0-9-amd64 - Linux 6.1 (signed)\nlinux-image-6.1.0-56-amd64 - Linux 6.1 (signed)\n\
                    linux-image-6.1.0-57-rt-amd64 - Linux 6.1\nlinux-image-6.1.0-48-amd64 - Linux 6.1 (signed)\n";
        assert_eq!(newest_of(list).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest_of(""), None);
    }
}
