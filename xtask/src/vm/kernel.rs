//! The kernels that are emulated, as Debian builds them: each is taken out of its package once, and kept. The packages are
//! looked for in lists of their own, so that the sources of the host stay as they are and nobody needs to be root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::checks::{self, Check};
use crate::shell;

/// A kernel, and what is checked on it.
pub struct Kernel {
    /// What its files are kept under.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// More for its command line.
    pub arguments: &'static str,
    /// How the emulator runs its processors: `multi`, each by a thread of its own; `single`, all in turn by one. In the first
    /// way a new kernel dies now and then: it patches its own code as it runs, and a processor still sees what was there.
    pub thread: &'static str,
    /// What is checked, in the order in which it runs.
    pub checks: &'static [Check],
    /// The suite of Debian that has it.
    suite: &'static str,
    /// What its package is called before the release.
    package: &'static str,
    /// What stands before and after the part of the release that tells builds apart.
    release: [&'static str; 2],
}

/// All of them.
pub const ALL: [Kernel; 2] = [
    Kernel {
        name: "oldest",
        title: "the oldest supported kernel",
        arguments: "",
        thread: "multi",
        checks: &checks::OLDEST,
        suite: "bookworm",
        package: "linux-image-",
        release: ["6.1.0-", "-amd64"],
    },
    Kernel {
        name: "preemptible",
        title: "a new kernel that can be preempted anywhere",
        arguments: "preempt=full",
        thread: "single",
        checks: &checks::PREEMPTIBLE,
        suite: "trixie-backports",
        package: "linux-binary-",
        release: ["", "-cloud-amd64"],
    },
];

const FILE: &str = "vmlinuz-";

impl Kernel {
    /// Its file in this folder; downloaded if there is none and that is allowed.
    pub fn find(&self, folder: &Path, download: bool) -> Result<PathBuf> {
        let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let names: Vec<_> = files.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        if let Some(kept) = self.newest(FILE, names.iter().map(String::as_str)) {
            return Ok(folder.join(kept));
        }
        let [before, after] = self.release;
        ensure!(download, "there is no {FILE}{before}*{after} in {}", folder.display());

        let apart = tempfile::tempdir_in(folder)?;
        let apt = Apt::new(apart.path(), self.suite)?;
        let list = apt.names(self.package)?;
        let package = self.newest(self.package, list.lines());
        let package = package.with_context(|| format!("{} has no {}{before}*{after}", self.suite, self.package))?;
        let tree = apt.unpack(package)?;
        let release = &package[self.package.len()..];
        let places = [format!("boot/{FILE}{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
        let unpacked = places.iter().map(|place| tree.join(place)).find(|file| file.is_file());
        let unpacked = unpacked.with_context(|| format!("{package} has none of {}", places.join(", ")))?;
        let kernel = folder.join(format!("{FILE}{release}"));
        fs::rename(&unpacked, &kernel).with_context(|| format!("cannot write {}", kernel.display()))?;
        Ok(kernel)
    }

    /// The newest build among names that begin like this.
    fn newest<'a>(&self, begin: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        names.filter_map(|name| Some((self.build(name.strip_prefix(begin)?)?, name))).max().map(|(_, name)| name)
    }

    /// The numbers of a release, which order the builds: of `6.1.0-57-amd64` the 57, of `7.3.4+deb13-cloud-amd64` all three.
    fn build(&self, release: &str) -> Option<Vec<u32>> {
        let [before, after] = self.release;
        let build = release.strip_prefix(before)?.strip_suffix(after)?;
        let numbers = build.split_once('+').map_or(build, |(numbers, _)| numbers);
        numbers.split('.').map(|number| number.parse().ok()).collect()
    }
}

/// The packages of one suite.
struct Apt<'a> {
    folder: &'a Path,
}

impl<'a> Apt<'a> {
    fn new(folder: &'a Path, suite: &str) -> Result<Self> {
        const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        ensure!(shell::find("apt-get").is_some() && Path::new(KEYS).is_file(), "only Debian's apt has its packages");
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("sources.list"), format!("deb [signed-by={KEYS}] {} {suite} main\n", mirror()))?;
        let apt = Self { folder };
        shell::run(apt.command("apt-get").args(["update", "-qq"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let place = |option: &str, name: &str| format!("{option}={}", self.folder.join(name).display());
        let mut command = shell::command(program);
        command.current_dir(self.folder);
        for option in [
            place("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            place("Dir::State::Lists", "lists"),
            place("Dir::Cache", "cache"),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    fn names(&self, begin: &str) -> Result<String> {
        shell::output(self.command("apt-cache").args(["pkgnames", begin])).context("apt-cache lists no packages")
    }

    /// The tree of a package's files.
    fn unpack(&self, package: &str) -> Result<PathBuf> {
        eprintln!("xtask: apt-get download {package}");
        shell::run(self.command("apt-get").args(["download", "-qq", package]))?;
        let mut files = fs::read_dir(self.folder)?.flatten().map(|entry| entry.path());
        let archive = files.find(|file| file.extension().is_some_and(|ending| ending == "deb"));
        let archive = archive.with_context(|| format!("apt-get has not written {package}"))?;
        let tree = self.folder.join("tree");
        shell::run(shell::command("dpkg").arg("-x").arg(archive).arg(&tree))?;
        Ok(tree)
    }
}

/// Where this host gets Debian's packages from.
fn mirror() -> String {
    let mut apt = shell::command("apt-get");
    let sources = shell::output(apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]));
    let mirror =
        sources.iter().flat_map(|text| text.lines()).find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    mirror.unwrap_or("http://deb.debian.org/debian").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_compared_as_numbers() {
        let [oldest, preemptible] = ALL;
        let list = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-56-amd64\nlinux-image-6.1.0-57-rt-amd64\n\
                    linux-image-6.1.0-58-cloud-amd64\nlinux-image-6.1.0-48-amd64\nlinux-image-amd64\n";
        assert_eq!(oldest.newest("linux-image-", list.lines()), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(oldest.newest("linux-image-", "".lines()), None);
        let list = "linux-binary-7.2.12+deb13-cloud-amd64\nlinux-binary-7.3.4+deb13-cloud-amd64\n\
                    linux-binary-7.3.4+deb13-amd64\nlinux-binary-7.3.5+deb13-rt-amd64\nlinux-binary-6.19.14+deb13-cloud-amd64\n";
        let newest = preemptible.newest("linux-binary-", list.lines());
        assert_eq!(newest, Some("linux-binary-7.3.4+deb13-cloud-amd64"));
    }

    #[test]
    fn no_kernel_takes_anothers_file() {
        let files = ["vmlinuz-6.1.0-57-amd64", "vmlinuz-7.3.4+deb13-cloud-amd64", "image.cpio"];
        let kept = ALL.map(|kernel| kernel.newest(FILE, files.into_iter()));
        assert_eq!(kept, [Some(files[0]), Some(files[1])]);
    }
}
