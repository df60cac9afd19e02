//! Which processes belong to a target: by pid, by globs over the executable and the command name, by a regular
//! expression over the command line.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

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
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let exe = exe.to_string_lossy();
        // The kernel's mark for a file that was replaced or removed, say by an upgrade.
        let exe = crate::text::sanitize(exe.strip_suffix(" (deleted)").unwrap_or(&exe));
        Some(Self { pid, exe, comm, cmdline: read_cmdline(pid) })
    }
}

fn read_cmdline(pid: u32) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(format!("/proc/{pid}/cmdline")) {
        // A process that dies meanwhile leaves what has been read.
        let _ = file.take(MAX_CMDLINE as u64).read_to_end(&mut bytes);
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

/// A target's conditions: a process matches when it meets all that are given.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    pid: Option<u32>,
    exe: Option<GlobMatcher>,
    comm: Option<GlobMatcher>,
    cmdline: Option<Regex>,
}

impl Matcher {
    /// This process and no other.
    pub fn pid(mut self, pid: u32) -> Result<Self> {
        ensure!(pid > 0, "a pid is above 0");
        self.pid = Some(pid);
        Ok(self)
    }

    /// The path of the executable, as a glob in which `*` does not cross `/` and `**` does.
    pub fn exe(mut self, glob: &str) -> Result<Self> {
        self.exe = Some(compile(glob)?);
        Ok(self)
    }

    /// The command name, as a glob. Names are at most 15 bytes long; the kernel cuts longer ones.
    pub fn comm(mut self, glob: &str) -> Result<Self> {
        self.comm = Some(compile(glob)?);
        Ok(self)
    }

    /// The arguments joined by spaces, as a regular expression that may match anywhere.
    pub fn cmdline(mut self, regex: &str) -> Result<Self> {
        self.cmdline = Some(Regex::new(regex).with_context(|| format!("`{regex}` is not a regular expression"))?);
        Ok(self)
    }

    /// True without any condition: such a matcher matches nothing.
    pub fn is_empty(&self) -> bool {
        let Self { pid, exe, comm, cmdline } = self;
        pid.is_none() && exe.is_none() && comm.is_none() && cmdline.is_none()
    }

    /// The conditions as (key, what was given), for showing them.
    pub fn conditions(&self) -> Vec<(&'static str, String)> {
        let Self { pid, exe, comm, cmdline } = self;
        [
            ("pid", pid.map(|pid| pid.to_string())),
            ("exe", exe.as_ref().map(|glob| glob.glob().glob().to_owned())),
            ("comm", comm.as_ref().map(|glob| glob.glob().glob().to_owned())),
            ("cmdline", cmdline.as_ref().map(|regex| regex.as_str().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, given)| Some((key, given?)))
        .collect()
    }

    /// The pid it names, if it does.
    pub fn by_pid(&self) -> Option<u32> {
        self.pid
    }

    /// Does the process meet every condition?
    pub fn matches(&self, process: &Candidate) -> bool {
        let Self { pid, exe, comm, cmdline } = self;
        !self.is_empty()
            && pid.is_none_or(|pid| pid == process.pid)
            && exe.as_ref().is_none_or(|glob| !process.exe.is_empty() && glob.is_match(&process.exe))
            && comm.as_ref().is_none_or(|glob| glob.is_match(&process.comm))
            && cmdline.as_ref().is_none_or(|regex| regex.is_match(&process.cmdline))
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
            (new().exe("/usr/bin/checkout*"), true),
            (new().exe("/usr/*"), false),
            (new().exe("/usr/**"), true),
            (new().exe("**/checkout-v[0-9]"), true),
            (new().comm("check*"), true),
            (new().comm("heck"), false),
            (new().cmdline(r"--port \d+$"), true),
            (new().cmdline("^--port"), false),
        ] {
            let matcher = matcher.expect("valid");
            assert_eq!(matcher.matches(&process()), expected, "{matcher:?}");
        }
    }

    #[test]
    fn all_conditions_must_hold_and_none_matches_nothing() {
        let both = Matcher::default().comm("check*").and_then(|m| m.pid(8)).expect("valid");
        assert!(!both.matches(&process()));
        assert!(!Matcher::default().matches(&process()));
    }

    #[test]
    fn a_kernel_thread_has_no_executable() {
        let any = Matcher::default().exe("**").expect("valid");
        assert!(!any.matches(&Candidate { exe: String::new(), ..process() }));
    }

    #[test]
    fn bad_patterns_are_errors() {
        assert!(Matcher::default().exe("[").is_err());
        assert!(Matcher::default().comm("").is_err());
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
