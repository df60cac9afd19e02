//! The roster: which processes belong to which targets.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::bounds::Bounds;
use super::causes::Waits;
use super::figures::Figures;
use super::memory::Memory;
use crate::config::Target;
use crate::target::{Candidate, Container, ContainerName, ProcFiles, Stat, read_status_comm};

/// A process that belongs to at least one target.
#[derive(Debug)]
pub(super) struct Member {
    /// Who it is.
    pub(super) who: Candidate,
    /// Indexes of its targets, in the order of the configuration.
    pub(super) targets: Vec<usize>,
    /// Its latest figures.
    pub(super) stat: Stat,
    /// When they were read.
    pub(super) read_ns: u64,
    /// CPU use in percent of one core, until then.
    pub(super) cpu_percent: f64,
    /// Its memory, where a rule asks for it.
    pub(super) memory: Memory,
    /// What else rules ask for.
    pub(super) figures: Figures,
    /// Which of its waits are followed.
    pub(super) waits: Waits,
    /// Whether rules ask of what it holds: of its threads, of its descriptors.
    pub(super) holdings: [bool; 2],
    /// It is far from breaking any rule.
    pub(super) is_far: bool,
    /// What its control groups allow it.
    pub(super) bounds: Bounds,
    /// What `/proc` says of it.
    pub(super) files: ProcFiles,
    /// When it was started.
    pub(super) started_ns: u64,
    /// The container that it is in.
    pub(super) container: Container,
    /// How people call that.
    pub(super) container_name: Option<String>,
}

/// What looking at a process has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing new.
    Same,
    /// It belongs to a target now, and did not before or is another process under the same pid.
    Joined,
    /// It is gone, or belongs to no target any more.
    Left,
}

/// The members by pid.
#[derive(Debug, Default)]
pub(super) struct Roster {
    targets: Vec<Target>,
    pub(super) members: BTreeMap<u32, Member>,
    own_pid: u32,
    own_exe: String,
}

impl Roster {
    /// An empty roster.
    pub(super) fn new(targets: Vec<Target>) -> Self {
        let own_exe = std::env::current_exe().unwrap_or_default().display().to_string();
        Self { targets, members: BTreeMap::new(), own_pid: std::process::id(), own_exe }
    }

    /// How many targets there are.
    pub(super) fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is a target of this name.
    pub(super) fn has_target(&self, name: &str) -> bool {
        self.targets.iter().any(|target| target.name == name)
    }

    /// Takes other targets. Returns the processes that belong to none of them, and those that belong to others than before,
    /// in either case with the name that they were recorded by.
    pub(super) fn replace(&mut self, targets: Vec<Target>) -> (Vec<u32>, Vec<(u32, String)>) {
        let names = |targets: &[Target], indexes: &[usize]| -> Vec<String> {
            indexes.iter().map(|&index| targets[index].name.clone()).collect()
        };
        let before = std::mem::replace(&mut self.targets, targets);
        let (mut left, mut moved) = (Vec::new(), Vec::new());
        let mut members = std::mem::take(&mut self.members);
        members.retain(|&pid, member| {
            let old = names(&before, &member.targets);
            member.targets = self.matching(&member.who);
            match names(&self.targets, &member.targets) {
                new if new.is_empty() => left.push(pid),
                new if new != old => moved.push((pid, old[0].clone())),
                _ => {}
            }
            !member.targets.is_empty()
        });
        self.members = members;
        (left, moved)
    }

    /// The names of a process's targets.
    pub(super) fn targets_of(&self, pid: u32) -> Vec<String> {
        let targets = self.members.get(&pid).map_or(&[][..], |member| &member.targets);
        targets.iter().map(|&index| self.targets[index].name.clone()).collect()
    }

    /// Whether the allocations of a process are to be followed always.
    pub(super) fn is_live(&self, pid: u32) -> bool {
        self.members.get(&pid).is_some_and(|member| member.targets.iter().any(|&index| self.targets[index].live))
    }

    /// Name of a target.
    pub(super) fn target_name(&self, index: usize) -> &str {
        &self.targets[index].name
    }

    /// Looks at a process anew. Unless it is known to run another program (`has_execed`), a member stays one as long as
    /// its executable is the same, whatever it calls itself meanwhile.
    pub(super) fn look(&mut self, pid: u32, now_ns: u64, has_execed: bool) -> Look {
        // What hardly ever changes is looked at first: it is most of what is to be known of a member.
        if !has_execed
            && let Some(known) = self.members.get_mut(&pid)
            && known.files.stat().is_some_and(|stat| stat.start_ticks == known.stat.start_ticks)
            && known.who.exe == Candidate::read_exe(pid)
        {
            return Look::Same;
        }
        let known = self.members.get(&pid);
        // Most processes of a host are nobody's target, which one or two files tell.
        if known.is_none() && !self.may_match(pid) {
            return Look::Same;
        }
        let (Some(stat), Some(who)) = (Stat::read(pid), Candidate::read(pid)) else {
            return if self.members.remove(&pid).is_some() { Look::Left } else { Look::Same };
        };
        let is_same = known.is_some_and(|known| known.stat.start_ticks == stat.start_ticks);
        if is_same && !has_execed && known.is_some_and(|known| known.who.exe == who.exe) {
            return Look::Same;
        }
        let targets = self.matching(&who);
        let was_member = known.is_some();
        if targets.is_empty() {
            self.members.remove(&pid);
            return if was_member { Look::Left } else { Look::Same };
        }
        let is_unmoved = is_same && known.is_some_and(|known| known.targets == targets);
        if let Some(member) = self.members.get_mut(&pid).filter(|_| is_unmoved) {
            member.who = who;
            return Look::Same;
        }
        let container = Container::of(pid);
        let member = Member {
            who,
            targets,
            started_ns: now_ns.saturating_sub(stat.age_ns()),
            stat,
            read_ns: now_ns,
            cpu_percent: 0.0,
            memory: Memory::default(),
            figures: Figures::default(),
            waits: Waits::None,
            holdings: [false; 2],
            is_far: false,
            bounds: Bounds::default(),
            files: ProcFiles::of(pid),
            container_name: container.id.as_deref().and_then(ContainerName::of).map(|name| name.name),
            container,
        };
        self.members.insert(pid, member);
        Look::Joined
    }

    fn is_own(&self, who: &Candidate) -> bool {
        who.pid == self.own_pid || (!self.own_exe.is_empty() && who.exe == self.own_exe)
    }

    /// False where a process is no target, by what is cheap to learn of it.
    fn may_match(&self, pid: u32) -> bool {
        let exe = Candidate::read_exe(pid);
        let comm = OnceCell::new();
        let comm = || comm.get_or_init(|| read_status_comm(pid).unwrap_or_default()).as_str();
        self.targets.iter().any(|target| target.matcher.may_match(pid, &exe, comm))
    }

    fn matching(&self, who: &Candidate) -> Vec<usize> {
        let is_match = |target: &Target| {
            // The daemon's processes are not its own targets unless they are asked for by name.
            target.matcher.matches(who) && (!self.is_own(who) || target.matcher.by_pid().is_some())
        };
        (0..self.targets.len()).filter(|&index| is_match(&self.targets[index])).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::target::{Matcher, On};

    fn target(name: &str, matcher: Matcher) -> Target {
        Target { name: name.into(), matcher, live: false }
    }

    fn child(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().expect("sh runs")
    }

    #[test]
    fn a_process_joins_its_targets_stays_and_leaves() {
        let mut process = child("read line; exit");
        let pid = process.id();
        let by_pid = Matcher::default().pid(pid).expect("valid");
        let by_cmdline = Matcher::default().cmdline("read line; exit$").expect("valid");
        let other = Matcher::default().glob(On::Comm, "nothing-like-it").expect("valid");
        let mut roster = Roster::new(vec![target("a", by_pid), target("b", other), target("c", by_cmdline)]);
        // The child may still be on its way to run the shell.
        while Candidate::read(pid).is_none_or(|who| who.comm != "sh") {
            std::thread::yield_now();
        }
        assert_eq!(roster.look(pid, 1, false), Look::Joined);
        assert_eq!(roster.members[&pid].targets, [0, 2]);
        assert_eq!(roster.look(pid, 2, false), Look::Same);
        assert_eq!(roster.look(pid, 2, true), Look::Same);
        drop(process.stdin.take());
        process.wait().expect("ends");
        assert_eq!(roster.look(pid, 3, false), Look::Left);
        assert_eq!(roster.look(pid, 4, false), Look::Same);
    }

    #[test]
    fn a_process_that_runs_another_program_is_matched_again() {
        let mut process = child("read line; exec sleep 100");
        let pid = process.id();
        let mut roster = Roster::new(vec![target("sleep", Matcher::default().glob(On::Comm, "sleep").expect("valid"))]);
        assert_eq!(roster.look(pid, 1, false), Look::Same);
        drop(process.stdin.take());
        while Candidate::read(pid).is_none_or(|who| who.comm != "sleep") {
            std::thread::yield_now();
        }
        assert_eq!(roster.look(pid, 2, true), Look::Joined);
        process.kill().expect("ends");
        process.wait().expect("ends");
    }

    #[test]
    fn other_targets_keep_the_processes_that_still_belong_to_one() {
        let mut process = child("read line; exit");
        let pid = process.id();
        let by_pid = || Matcher::default().pid(pid).expect("valid");
        let other = || Matcher::default().glob(On::Comm, "nothing-like-it").expect("valid");
        let mut roster = Roster::new(vec![target("a", by_pid()), target("b", other())]);
        assert_eq!(roster.look(pid, 1, false), Look::Joined);
        let same = roster.replace(vec![target("b", other()), target("a", by_pid())]);
        assert_eq!((same, roster.targets_of(pid)), ((vec![], vec![]), vec!["a".to_owned()]), "though at another place");
        let renamed = roster.replace(vec![target("c", by_pid())]);
        assert_eq!((renamed, roster.targets_of(pid)), ((vec![], vec![(pid, "a".into())]), vec!["c".to_owned()]));
        assert_eq!(roster.replace(vec![target("b", other())]), (vec![pid], vec![]));
        assert!(roster.members.is_empty());
        process.kill().expect("ends");
        process.wait().expect("ends");
    }

    #[test]
    fn the_daemon_is_not_its_own_target_unless_named() {
        let pid = std::process::id();
        let every = || Matcher::default().glob(On::Comm, "*").expect("valid");
        assert_eq!(Roster::new(vec![target("all", every())]).look(pid, 1, false), Look::Same);
        let named = every().pid(pid).expect("valid");
        assert_eq!(Roster::new(vec![target("me", named)]).look(pid, 1, false), Look::Joined);
    }
}
