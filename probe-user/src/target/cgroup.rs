//! The control groups of a process, of version 1, version 2 or a mixture of both: how many cores they allow, and the
//! pressure in them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::host::cpus;
use super::memory::memory_limit;
use super::read_small;

/// What `/proc/PID/cgroup` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Groups {
    /// Controllers of version 1 with the group's path.
    first: Vec<(String, String)>,
    /// Path of the group in version 2.
    second: Option<String>,
}

/// Where the hierarchies are mounted.
#[derive(Clone, Debug)]
pub(super) struct Mounts {
    /// Each controller of version 1 has a folder of its name in it.
    pub(super) first: PathBuf,
    /// Version 2.
    pub(super) second: PathBuf,
}

impl Mounts {
    /// Where everybody mounts them (systemd, container runtimes).
    pub(super) fn usual() -> Self {
        let first = PathBuf::from("/sys/fs/cgroup");
        let is_unified = first.join("cgroup.controllers").exists();
        let second = if is_unified { first.clone() } else { first.join("unified") };
        Self { first, second }
    }
}

impl Groups {
    /// Reads those of a process; `None` when it is gone.
    pub fn read(pid: u32) -> Option<Self> {
        Some(Self::parse(&read_small(format!("/proc/{pid}/cgroup"))?))
    }

    /// Parses the text of `/proc/PID/cgroup`.
    pub fn parse(text: &str) -> Self {
        let mut groups = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            match (parts.next(), parts.next()) {
                (Some(""), Some(path)) => groups.second = Some(path.to_owned()),
                (Some(controllers), Some(path)) => groups.first.push((controllers.to_owned(), path.to_owned())),
                _ => {}
            }
        }
        groups
    }

    /// All paths, those of version 2 first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.second.iter().chain(self.first.iter().map(|(_, path)| path)).map(String::as_str)
    }

    /// The folders of a controller from the root down to the process's group, and whether they are of version 1. Empty
    /// where it is in no group of this controller, or in one outside of our own namespace.
    pub(super) fn folders(&self, controller: &str, mounts: &Mounts) -> (Vec<PathBuf>, bool) {
        let is_there = |(list, _): &&(String, String)| list.split(',').any(|name| name == controller);
        let (root, path, is_first) = match (self.first.iter().find(is_there), &self.second) {
            (Some((_, path)), _) => (mounts.first.join(controller), path, true),
            (None, Some(path)) => (mounts.second.clone(), path, false),
            (None, None) => return (Vec::new(), false),
        };
        (chain(root, path), is_first)
    }

    /// How many cores it may use: the lowest quota and the processors of its cpuset; `None` without either.
    fn cores(&self, mounts: &Mounts) -> Option<f64> {
        let (folders, is_first) = self.folders("cpu", mounts);
        let quotas = folders.iter().filter_map(|folder| quota(folder, is_first));
        let (folders, is_first) = self.folders("cpuset", mounts);
        let file = if is_first { "cpuset.effective_cpus" } else { "cpuset.cpus.effective" };
        // The group's own file says what is left by those above; without the controller the one above says it.
        let set = folders.iter().rev().find_map(|folder| cpus(&read_small(folder.join(file))?)).map(f64::from);
        quotas.chain(set).reduce(f64::min)
    }
}

/// What there is to be known of groups at one moment: it is read once for all processes of a group.
#[derive(Debug)]
pub struct OfGroups {
    mounts: Mounts,
    cores: HashMap<Groups, Option<f64>>,
    memory: HashMap<Groups, Option<u64>>,
    pressures: BTreeMap<&'static str, HashMap<String, Option<f64>>>,
}

impl OfGroups {
    /// Of now.
    pub fn now() -> Self {
        let (cores, memory, pressures) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        Self { mounts: Mounts::usual(), cores, memory, pressures }
    }

    /// How many cores processes of these groups may use: the lowest quota and the processors of the cpuset; `None` without
    /// either.
    pub fn cores(&mut self, groups: &Groups) -> Option<f64> {
        if !self.cores.contains_key(groups) {
            self.cores.insert(groups.clone(), groups.cores(&self.mounts));
        }
        self.cores.get(groups).copied().flatten()
    }

    /// How much memory they may have, in bytes: the lowest limit of the group and those above it, else what the host has.
    /// `None` when nothing can be read.
    pub fn memory(&mut self, groups: &Groups) -> Option<u64> {
        if !self.memory.contains_key(groups) {
            self.memory.insert(groups.clone(), memory_limit(groups));
        }
        self.memory.get(groups).copied().flatten()
    }

    /// Share of the last 10 seconds in which some task of a group waited for a resource (`cpu`, `memory` or `io`), in
    /// percent; the host's for what is in the root group. `None` where the kernel does not tell.
    pub fn pressure(&mut self, groups: &Groups, resource: &'static str) -> Option<f64> {
        let path = groups.second.as_deref()?;
        let by_group = self.pressures.entry(resource).or_default();
        if let Some(known) = by_group.get(path) {
            return *known;
        }
        let file = match chain(self.mounts.second.clone(), path) {
            folders if folders.len() <= 1 => PathBuf::from(format!("/proc/pressure/{resource}")),
            folders => folders[folders.len() - 1].join(format!("{resource}.pressure")),
        };
        let pressure = read_small(file).and_then(|text| some_avg10(&text));
        by_group.insert(path.to_owned(), pressure);
        pressure
    }
}

/// The folders from the root down to a group. Empty for what is outside of our own namespace.
fn chain(root: PathBuf, path: &str) -> Vec<PathBuf> {
    let names = path.split('/').filter(|name| !name.is_empty());
    if names.clone().any(|name| name == "..") {
        return Vec::new();
    }
    let mut folders = vec![root];
    for name in names {
        let next = folders[folders.len() - 1].join(name);
        folders.push(next);
    }
    folders
}

/// The quota of one group, in cores.
fn quota(folder: &Path, is_first: bool) -> Option<f64> {
    let (quota, period): (f64, f64) = if is_first {
        let number = |file| read_small(folder.join(file))?.trim().parse().ok();
        (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
    } else {
        let text = read_small(folder.join("cpu.max"))?;
        let mut words = text.split_ascii_whitespace();
        // `max 100000`: none.
        (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
    };
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// `some avg10=2.29 avg60=1.32 avg300=0.76 total=11751838137`
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mounts(root: &Path) -> Mounts {
        Mounts { first: root.to_owned(), second: root.join("unified") }
    }

    #[test]
    fn folders_lead_from_the_root_to_the_group() {
        let folders = |text: &str, controller| -> Vec<String> {
            let (folders, _) = Groups::parse(text).folders(controller, &mounts(Path::new("/c")));
            folders.iter().map(|folder| folder.display().to_string()).collect()
        };
        assert_eq!(folders("0::/a/b\n", "cpu"), ["/c/unified", "/c/unified/a", "/c/unified/a/b"]);
        assert_eq!(folders("0::/\n", "cpu"), ["/c/unified"]);
        assert_eq!(folders("5:cpu,cpuacct:/x\n4:memory:/y\n0::/z\n", "cpu"), ["/c/cpu", "/c/cpu/x"]);
        assert_eq!(folders("5:cpu,cpuacct:/x\n0::/z\n", "memory"), ["/c/unified", "/c/unified/z"]);
        assert_eq!(folders("0::/../other\n", "cpu"), [""; 0]);
        assert_eq!(folders("nonsense", "cpu"), [""; 0]);
    }

    #[test]
    fn cores_are_the_least_of_quotas_and_cpusets() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        let cores = |text: &str| Groups::parse(text).cores(&mounts(root.path()));
        write("unified/cpuset.cpus.effective", "0-7\n");
        write("unified/pod/cpu.max", "150000 100000\n");
        write("unified/pod/a/cpu.max", "max 100000\n");
        write("unified/pod/b/cpu.max", "25000 50000\n");
        write("unified/pod/c/cpuset.cpus.effective", "3\n");
        write("cpu/x/cpu.cfs_quota_us", "20000\n");
        write("cpu/x/cpu.cfs_period_us", "100000\n");
        write("cpu/y/cpu.cfs_quota_us", "-1\n");
        write("cpu/y/cpu.cfs_period_us", "100000\n");
        write("cpuset/y/cpuset.effective_cpus", "0,2\n");
        for (text, expected) in [
            ("0::/\n", Some(8.0)),
            ("0::/pod/a\n", Some(1.5)),
            ("0::/pod/b\n", Some(0.5)),
            ("0::/pod/c\n", Some(1.0)),
            ("2:cpu:/x\n", Some(0.2)),
            ("2:cpu:/y\n", None),
            ("3:cpuset:/y\n2:cpu:/y\n", Some(2.0)),
            ("", None),
        ] {
            assert_eq!(cores(text), expected, "{text}");
        }
    }

    #[test]
    fn pressure_is_that_of_some_task_in_ten_seconds() {
        let text = "some avg10=2.29 avg60=1.32 avg300=0.76 total=11751838137\nfull avg10=1.00 avg60=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(2.29));
        assert_eq!(some_avg10("full avg10=1.00"), None);
    }
}
