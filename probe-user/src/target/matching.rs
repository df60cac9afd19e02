//! Which processes belong to a target: by pid, by globs over the executable, the command name and the control group, by a
//! regular expression over the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

use super::cgroup::Groups;
use super::container::Container;
use super::container_name::ContainerName;

/// What is compared with a target's conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Process id.
    pub pid: u32,
    /// Path of the executable as the process sees it; empty for kernel threads and where it may not be read.
    pub exe: String,
    /// The process's name.
    pub comm: String,
    /// Its arguments, joined by spaces.
    pub cmdline: String,
}

/// Longest command line that is kept, in bytes.
const MAX_CMDLINE: usize = 4096;

impl Candidate {
    /// Reads a process; `None` when it is gone.
    pub fn read(pid: u32) -> Option<Self> {
        let comm = super::read_status_comm(pid)?;
        Some(Self { pid, exe: Self::read_exe(pid), comm, cmdline: read_cmdline(pid) })
    }

    /// Reads [`Self::exe`] alone.
    pub fn read_exe(pid: u32) -> String {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
        // Of all processes of the host few have no path here; only these are looked at more closely.
        let exe = exe.or_else(|_| std::fs::read_link(super::folder(pid).join("exe"))).unwrap_or_default();
        let exe = exe.to_string_lossy();
        // The kernel's mark for a file that was replaced or removed, say by an upgrade.
        crate::text::sanitize(exe.strip_suffix(" (deleted)").unwrap_or(&exe))
    }
}

fn read_cmdline(pid: u32) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    for folder in [|pid| PathBuf::from(format!("/proc/{pid}")), super::folder] {
        if let Ok(file) = std::fs::File::open(folder(pid).join("cmdline")) {
            // A process that dies meanwhile leaves what has been read.
            let _ = file.take(MAX_CMDLINE as u64).read_to_end(&mut bytes);
        }
        if !bytes.is_empty() {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    crate::text::sanitize(&text.trim_end_matches('\0').replace('\0', " "))
}

/// The pids of the processes that are there now.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(Path::new("/proc")) else { return Vec::new() };
    let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// What a glob is compared with. In all of them `*` does not cross `/`, and `**` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// The path of the executable.
    Exe,
    /// The command name, of at most 15 bytes; the kernel cuts longer ones.
    Comm,
    /// The path of a control group that it is in, of version 2 or of any controller of version 1.
    Cgroup,
    /// The id of its container, of 64 digits, or its name, see [`ContainerName`].
    Container,
    /// The uid of its Kubernetes pod.
    Pod,
    /// The namespace of that.
    Namespace,
}

impl On {
    /// Its name in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Exe => "exe",
            Self::Comm => "comm",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
        }
    }
}

/// A target's conditions: a process matches when it meets all that are given.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    pid: Option<u32>,
    cmdline: Option<Regex>,
    globs: BTreeMap<On, GlobMatcher>,
}

impl Matcher {
    /// This process and no other.
    pub fn pid(mut self, pid: u32) -> Result<Self> {
        ensure!(pid > 0, "a pid is above 0");
        self.pid = Some(pid);
        Ok(self)
    }

    /// The arguments joined by spaces, as a regular expression that may match anywhere.
    pub fn cmdline(mut self, regex: &str) -> Result<Self> {
        self.cmdline = Some(Regex::new(regex).with_context(|| format!("`{regex}` is not a regular expression"))?);
        Ok(self)
    }

    /// Something else, as a glob.
    pub fn glob(mut self, on: On, glob: &str) -> Result<Self> {
        self.globs.insert(on, compile(glob)?);
        Ok(self)
    }

    /// True without any condition: such a matcher matches nothing.
    pub fn is_empty(&self) -> bool {
        self.pid.is_none() && self.cmdline.is_none() && self.globs.is_empty()
    }

    /// The conditions as (key, what was given), for showing them.
    pub fn conditions(&self) -> Vec<(&'static str, String)> {
        let pid = self.pid.map(|pid| ("pid", pid.to_string()));
        let cmdline = self.cmdline.as_ref().map(|regex| ("cmdline", regex.as_str().to_owned()));
        let globs = self.globs.iter().map(|(on, glob)| (on.key(), glob.glob().glob().to_owned()));
        pid.into_iter().chain(globs).chain(cmdline).collect()
    }

    /// The pid it names, if it does.
    pub fn by_pid(&self) -> Option<u32> {
        self.pid
    }

    /// Does the process meet those conditions that are cheap to look at?
    pub fn may_match<'a>(&self, pid: u32, exe: &str, comm: impl Fn() -> &'a str) -> bool {
        !self.is_empty()
            && self.pid.is_none_or(|of| of == pid)
            && self.is_met(On::Exe, Some(exe).filter(|exe| !exe.is_empty()))
            && self.globs.get(&On::Comm).is_none_or(|glob| glob.is_match(comm()))
    }

    /// Does the process meet every condition?
    pub fn matches(&self, process: &Candidate) -> bool {
        !self.is_empty()
            && self.pid.is_none_or(|pid| pid == process.pid)
            && self.is_met(On::Exe, Some(process.exe.as_str()).filter(|exe| !exe.is_empty()))
            && self.is_met(On::Comm, Some(&process.comm))
            && self.cmdline.as_ref().is_none_or(|regex| regex.is_match(&process.cmdline))
            && self.is_in_groups(|| Groups::read(process.pid), ContainerName::of)
    }

    /// Whether it is in the groups that are asked for. They are read if any are, and last.
    fn is_in_groups(
        &self,
        read: impl FnOnce() -> Option<Groups>,
        name: impl FnOnce(&str) -> Option<ContainerName>,
    ) -> bool {
        if self.globs.range(On::Cgroup..).next().is_none() {
            return true;
        }
        let Some(groups) = read() else { return false };
        let Container { id, pod } = Container::by(&groups);
        let is_in_cgroup =
            self.globs.get(&On::Cgroup).is_none_or(|glob| groups.paths().any(|path| glob.is_match(path)));
        if !is_in_cgroup || !self.is_met(On::Pod, pod.as_deref()) {
            return false;
        }
        // The name is dear: it is looked for where all else is right.
        let is_by_id = self.is_met(On::Container, id.as_deref());
        if is_by_id && !self.globs.contains_key(&On::Namespace) {
            return true;
        }
        let known = id.as_deref().and_then(name);
        let of = |text: fn(&ContainerName) -> &String| known.as_ref().map(|name| text(name).as_str());
        (is_by_id || self.is_met(On::Container, of(|name| &name.name)))
            && self.is_met(On::Namespace, of(|name| &name.namespace))
    }

    /// Nothing is asked, or this is what is asked for.
    fn is_met(&self, on: On, text: Option<&str>) -> bool {
        self.globs.get(&on).is_none_or(|glob| text.is_some_and(|text| glob.is_match(text)))
    }
}

fn compile(glob: &str) -> Result<GlobMatcher> {
    ensure!(!glob.is_empty(), "an empty glob matches nothing");
    let glob = GlobBuilder::new(glob).literal_separator(true).build();
    Ok(glob.map_err(|error| anyhow::anyhow!("{error}"))?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Candidate {
        Candidate {
            pid: 7,
            exe: "/usr/bin/checkout-v2".into(),
            comm: "checkout".into(),
            cmdline: "checkout --port 80".into(),
        }
    }

    #[test]
    fn each_condition_alone() {
        let new = Matcher::default;
        for (matcher, expected) in [
            (new().pid(7), true),
            (new().pid(8), false),
            (new().glob(On::Exe, "/usr/bin/checkout*"), true),
            (new().glob(On::Exe, "/usr/*"), false),
            (new().glob(On::Exe, "/usr/**"), true),
            (new().glob(On::Exe, "**/checkout-v[0-9]"), true),
            (new().glob(On::Comm, "check*"), true),
            (new().glob(On::Comm, "heck"), false),
            (new().cmdline(r"--port \d+$"), true),
            (new().cmdline("^--port"), false),
        ] {
            let matcher = matcher.expect("valid");
            assert_eq!(matcher.matches(&process()), expected, "{matcher:?}");
            let Candidate { pid, exe, comm, .. } = process();
            assert!(matcher.may_match(pid, &exe, || &comm) || !expected, "{matcher:?}");
        }
    }

    #[test]
    fn all_conditions_must_hold_and_none_matches_nothing() {
        let both = Matcher::default().glob(On::Comm, "check*").and_then(|m| m.pid(8)).expect("valid");
        assert!(!both.matches(&process()));
        assert!(!Matcher::default().matches(&process()));
    }

    #[test]
    fn groups_are_asked_for_if_a_condition_is_about_them() {
        let id = "7c1f0a4e5b6d8c9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70";
        let pod = "2f3d5a1c-9b8e-4c7d-a6f5-0e1d2c3b4a59";
        let text = format!("3:cpu:/legacy\n0::/kubepods/burstable/pod{pod}/{id}\n");
        let new = Matcher::default;
        for (matcher, expected) in [
            (new().glob(On::Cgroup, "/kubepods/**"), true),
            (new().glob(On::Cgroup, "/kubepods/*"), false),
            (new().glob(On::Cgroup, "/legacy"), true),
            (new().glob(On::Container, "7c1f0a4e5b6d*"), true),
            (new().glob(On::Container, "7c1f0a4e5b6d"), false),
            (new().glob(On::Pod, pod), true),
            (new().glob(On::Pod, "3*"), false),
            (new().glob(On::Pod, pod).and_then(|matcher| matcher.glob(On::Container, "0*")), false),
            (new().glob(On::Container, "shop/checkout-*/app"), true),
            (new().glob(On::Container, "checkout"), false),
            (new().glob(On::Namespace, "shop"), true),
            (new().glob(On::Namespace, "sho"), false),
            (new().glob(On::Namespace, "shop").and_then(|matcher| matcher.glob(On::Container, "7c*")), true),
            (
                new().glob(On::Namespace, "shop").and_then(|matcher| matcher.glob(On::Container, "shop/other*/**")),
                false,
            ),
        ] {
            let matcher = matcher.expect("valid");
            let name =
                |_: &str| Some(ContainerName { namespace: "shop".into(), name: "shop/checkout-7d9f/app".into() });
            assert_eq!(matcher.is_in_groups(|| Some(Groups::parse(&text)), name), expected, "{matcher:?}");
            assert!(!matcher.is_in_groups(|| None, name), "it is gone");
        }
        let none = new().glob(On::Pod, "*").expect("valid");
        assert!(!none.is_in_groups(|| Some(Groups::parse("0::/user.slice\n")), |_| None), "in no pod");
        let unnamed = new().glob(On::Namespace, "*").expect("valid");
        assert!(!unnamed.is_in_groups(|| Some(Groups::parse(&text)), |_| None), "of which nobody knows");
        assert!(new().glob(On::Comm, "check*").expect("valid").is_in_groups(|| panic!("nothing is read"), |_| None));
        let own = new().glob(On::Cgroup, "/**").expect("valid");
        assert!(own.matches(&Candidate { pid: std::process::id(), ..process() }), "this process is in a group");
    }

    #[test]
    fn a_kernel_thread_has_no_executable() {
        let any = Matcher::default().glob(On::Exe, "**").expect("valid");
        assert!(!any.matches(&Candidate { exe: String::new(), ..process() }));
    }

    #[test]
    fn bad_patterns_are_errors() {
        assert!(Matcher::default().glob(On::Exe, "[").is_err());
        assert!(Matcher::default().glob(On::Comm, "").is_err());
        assert!(Matcher::default().cmdline("(").is_err());
        assert!(Matcher::default().pid(0).is_err());
    }

    #[test]
    fn this_process_is_found() {
        let pid = std::process::id();
        assert!(pids().contains(&pid));
        let this = Candidate::read(pid).expect("alive");
        assert!(Path::new(&this.exe).is_absolute(), "{this:?}");
        assert!(!this.comm.is_empty() && !this.cmdline.is_empty(), "{this:?}");
    }
}
