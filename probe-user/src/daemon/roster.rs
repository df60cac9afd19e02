//! The roster: which processes belong to which targets.

use std::collections::BTreeMap;

use super::memory::Memory;
use crate::config::Target;
use crate::target::{Candidate, Stat};

/// A process that belongs to at least one target.
#[derive(Clone, Debug)]
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
}

impl Roster {
    /// An empty roster.
    pub(super) fn new(targets: Vec<Target>) -> Self {
        Self { targets, members: BTreeMap::new(), own_pid: std::process::id() }
    }

    /// How many targets there are.
    pub(super) fn target_count(&self) -> usize {
        self.targets.len()
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

    /// Name of a target.
    pub(super) fn target_name(&self, index: usize) -> &str {
        &self.targets[index].name
    }

    /// Looks at a process anew. Unless it is known to run another program (`has_execed`), a member stays one as long as
    /// its executable is the same, whatever it calls itself meanwhile.
    pub(super) fn look(&mut self, pid: u32, now_ns: u64, has_execed: bool) -> Look {
        let known = self.members.get(&pid);
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
        let memory = Memory::default();
        self.members.insert(pid, Member { who, targets, stat, read_ns: now_ns, cpu_percent: 0.0, memory });
        Look::Joined
    }

    fn matching(&self, who: &Candidate) -> Vec<usize> {
        let is_match = |target: &Target| {
            // The daemon is not its own target unless it is asked for by name.
            target.matcher.matches(who) && (who.pid != self.own_pid || target.matcher.by_pid().is_some())
        };
        (0..self.targets.len()).filter(|&index| is_match(&self.targets[index])).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::target::Matcher;

    fn target(name: &str, matcher: Matcher) -> Target {
        Target { name: name.into(), matcher }
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
        let other = Matcher::default().comm("nothing-like-it").expect("valid");
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
        let mut roster = Roster::new(vec![target("sleep", Matcher::default().comm("sleep").expect("valid"))]);
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
        let other = || Matcher::default().comm("nothing-like-it").expect("valid");
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
        let every = || Matcher::default().comm("*").expect("valid");
        assert_eq!(Roster::new(vec![target("all", every())]).look(pid, 1, false), Look::Same);
        let named = every().pid(pid).expect("valid");
        assert_eq!(Roster::new(vec![target("me", named)]).look(pid, 1, false), Look::Joined);
    }
}
