//! What a collector that is started again goes on from, however the one before ended: which rules were broken lately, by
//! whom, and which breaches nobody was told of yet or not all of. A file in the store, written anew whenever that changes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::reload::applies;
use super::watcher::Watcher;
use crate::alert::Notice;
use crate::monitor::{Over, Standing, Subject};
use crate::target::Stat;

/// The file.
pub(super) const FILE: &str = "standing.json";

/// See the head of this file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Standings {
    /// Times are counted from the start of the host, and pids with starts are processes of it.
    boot: String,
    pub(super) rules: Vec<OfProcess>,
    pub(super) open: Vec<OpenAlert>,
}

/// How a rule stands, and of which process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OfProcess {
    standing: Standing,
    /// Its start, in clock ticks, because another one may have its pid later; 0 for a service.
    start_ticks: u64,
}

/// A breach whose evidence was not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenAlert {
    /// The snapshot.
    pub(super) id: Ulid,
    pub(super) notice: Notice,
    /// It was told without its culprit.
    pub(super) is_told: bool,
}

impl Standings {
    /// Those of now.
    pub(super) fn new(rules: Vec<OfProcess>, open: Vec<OpenAlert>) -> Self {
        Self { boot: boot(), rules, open }
    }

    /// What an earlier collector has left. Of another boot, its rules begin anew.
    pub(super) fn read(path: &Path) -> Self {
        let read = fs::read(path).and_then(|bytes| Ok(serde_json::from_slice::<Self>(&bytes)?));
        let read = read.unwrap_or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!("the earlier states of rules are not known: {}: {error}", path.display());
            }
            Self::default()
        });
        if read.boot == boot() { read } else { Self { rules: Vec::new(), ..read } }
    }

    /// All of it or nothing is there, whenever the power fails.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// Which start of the host this is.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Watcher {
    /// How rules stand, for a collector that goes on later.
    pub(super) fn standings(&self) -> Vec<OfProcess> {
        let of_process = |standing: Standing| {
            let member = match &standing.subject {
                Subject::Process(pid) => self.roster.members.get(pid),
                Subject::Service(_) => None,
            };
            OfProcess { standing, start_ticks: member.map_or(0, |member| member.stat.start_ticks) }
        };
        self.engine.standings().into_iter().map(of_process).collect()
    }

    /// Goes on from where an earlier collector was. What it watched and what is gone since is over.
    pub(super) fn resume(&mut self, rules: Vec<OfProcess>) {
        let mut gone = BTreeSet::new();
        for OfProcess { mut standing, start_ticks } in rules {
            let is_there = match &standing.subject {
                Subject::Process(pid) => {
                    self.roster.members.get(pid).is_some_and(|member| member.stat.start_ticks == start_ticks)
                }
                Subject::Service(_) => true,
            };
            if Stat::read(standing.kept.pid).is_none() {
                standing.kept.pid = 0;
            }
            let rule = self.rules.iter().find(|rule| rule.rule.name == standing.rule);
            let applies = rule.is_some_and(|rule| applies(&self.roster, &rule.rule, &standing.subject));
            let goes_on = is_there && applies && self.engine.resume(&standing);
            let Standing { rule, subject, kept, .. } = standing;
            let Some(breach) = kept.breach else { continue };
            if goes_on {
                tracing::info!(
                    "{rule}: {} (pid {}): it was firing before and is still watched",
                    breach.target,
                    breach.pid
                );
                self.holds.pins.fire(&rule, breach.pid);
                self.chronicle.resumed(&breach, subject, super::evidence::wall_ahead_ns(self.scene.now_ns()));
            } else if gone.insert((rule, breach.pid)) {
                let (since_ns, until_ns) = (breach.breached_at_ns, self.scene.now_ns());
                self.resolved(&Over { since_ns, until_ns, value: None, was_skipped: false, breach });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_of_another_boot_only_alerts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        assert_eq!(Standings::read(&path), Standings::default());
        let alert = OpenAlert { id: Ulid::new(), notice: Notice::default(), is_told: false };
        let mut engine = crate::monitor::Engine::new(vec![crate::monitor::Rule::new("hot")]);
        let seen = crate::monitor::Observation {
            rule: 0,
            subject: Subject::Process(7),
            pid: 7,
            target: "app",
            from_ns: 0,
            at_ns: 1,
            wall_ns: 1,
            started_ns: 0,
            value: Some(99.0),
        };
        engine.observe(&seen);
        let rules: Vec<_> =
            engine.standings().into_iter().map(|standing| OfProcess { standing, start_ticks: 5 }).collect();
        assert_eq!(rules.len(), 1);
        let here = Standings::new(rules.clone(), vec![alert.clone()]);
        here.write(&path).expect("written");
        assert_eq!(Standings::read(&path), here);
        let other = Standings { boot: "other".into(), ..Standings::new(rules, vec![alert]) };
        other.write(&path).expect("written");
        let read = Standings::read(&path);
        assert_eq!((read.rules.len(), read.open.len()), (0, 1));
        fs::write(&path, "{").expect("written");
        assert_eq!(Standings::read(&path), Standings::default());
    }
}
