//! The rule engine: observations in, transitions out. Each subject that a rule applies to (a process, or all processes of
//! a service) has a state of its own, see [`State`]. It knows no clock: time comes with the observations.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use super::rule::{Rule, Side};
use super::state::{KeptTrack, State, Track};

/// What is watched apart by a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// A process.
    Process(u32),
    /// All processes of a target, by its name.
    Service(String),
}

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation<'a> {
    /// Index of the rule.
    pub rule: usize,
    /// Of what.
    pub subject: Subject,
    /// The process whose it is: of a service, the one that has most part in it. 0 where there is none.
    pub pid: u32,
    /// The target that it belongs to.
    pub target: &'a str,
    /// Start of the interval that was measured.
    pub from_ns: u64,
    /// Its end: now.
    pub at_ns: u64,
    /// The same by the wall clock, in nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// When the subject was started.
    pub started_ns: u64,
    /// The value, as an average over the interval; `None` when it could not be measured.
    pub value: Option<f64>,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// Name of the rule.
    pub rule: String,
    /// Name of the target.
    pub target: String,
    /// The process; of a service, the one that had most part in it.
    pub pid: u32,
    /// What was measured.
    pub metric: Metric,
    /// Of which function, for metrics of functions.
    pub function: Option<String>,
    /// The worst value between `exceeded_since_ns` and `breached_at_ns`, in the metric's unit.
    pub value: f64,
    /// The threshold, in the same unit; of rules for changes, what followed from the average.
    pub threshold: f64,
    /// On which side of it the value was.
    pub side: Side,
    /// Since when the value was there without a break: the start of the first interval.
    pub exceeded_since_ns: u64,
    /// When it had been so for long enough.
    pub breached_at_ns: u64,
}

/// A breach that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Over {
    /// As it began.
    pub breach: Breach,
    /// When it began.
    pub since_ns: u64,
    /// When it ended.
    pub until_ns: u64,
    /// The value by which it is over; `None` where none was measured, as of a process that is gone.
    pub value: Option<f64>,
    /// It was too hot to collect evidence.
    pub was_skipped: bool,
}

/// What an observation changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The value crossed the threshold.
    Pending,
    /// A pending rule is back to normal: nothing came of it.
    Normal,
    /// It stayed there for long enough.
    Firing(Breach),
    /// The same, but the value is above the rule's `max`: no evidence is to be collected.
    Skipped(Breach),
    /// The value of a firing rule is calm, not yet for long enough.
    Recovering,
    /// It is not calm after all; the breach goes on.
    Relapsed,
    /// The breach is over.
    Resolved(Over),
}

/// A rule that was broken lately, by whom, and how it stands: see [`Engine::standings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Name of the rule.
    pub rule: String,
    /// All that the rule says: another one of the same name is another rule.
    form: String,
    /// What is watched.
    pub subject: Subject,
    /// How it stands.
    pub kept: KeptTrack,
}

/// The rules with the state of everything they were applied to.
#[derive(Debug, Default)]
pub struct Engine {
    rules: Vec<Rule>,
    tracks: BTreeMap<(Subject, usize), Track>,
}

impl Engine {
    /// An engine in which everything is normal.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, tracks: BTreeMap::new() }
    }

    /// The rules, in the order of their indexes.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Takes other rules. Where a rule is the same as before, whatever its place, its subjects keep their states; the
    /// breaches of the others are over.
    pub fn replace(&mut self, rules: Vec<Rule>, now_ns: u64) -> Vec<Over> {
        let old = std::mem::replace(&mut self.rules, rules);
        let mut over = Vec::new();
        let by_name: BTreeMap<&str, usize> = (0..).zip(&self.rules).map(|(place, rule)| (&*rule.name, place)).collect();
        for ((subject, index), track) in std::mem::take(&mut self.tracks) {
            match by_name.get(&*old[index].name).copied().filter(|place| self.rules[*place] == old[index]) {
                Some(place) => drop(self.tracks.insert((subject, place), track)),
                None => over.extend(track.end(now_ns)),
            }
        }
        over
    }

    /// Takes a value in. `None`: nothing changed, or there is no such rule.
    pub fn observe(&mut self, seen: &Observation<'_>) -> Option<Transition> {
        let rule = self.rules.get(seen.rule)?;
        self.tracks.entry((seen.subject.clone(), seen.rule)).or_default().observe(rule, seen)
    }

    /// Forgets a process that is gone, its cooldown too: a pid that comes back is another process. Its breaches are over.
    pub fn forget(&mut self, pid: u32, now_ns: u64) -> Vec<Over> {
        for track in self.tracks.values_mut().filter(|track| track.pid == pid) {
            track.pid = 0;
        }
        let of_rule = |rule| self.tracks.remove(&(Subject::Process(pid), rule))?.end(now_ns);
        (0..self.rules.len()).filter_map(of_rule).collect()
    }

    /// Forgets where rules stand for what they do not look at any more. The breaches of these are over.
    pub fn keep(&mut self, applies: impl Fn(&Rule, &Subject) -> bool, now_ns: u64) -> Vec<Over> {
        let gone = self.tracks.extract_if(.., |(subject, rule), _| !applies(&self.rules[*rule], subject));
        gone.filter_map(|(_, track)| track.end(now_ns)).collect()
    }

    /// What a process that goes on later has to know: the rules that were broken lately, by whom.
    pub fn standings(&self) -> Vec<Standing> {
        let kept = self.tracks.iter().filter_map(|((subject, index), track)| {
            let (rule, kept) = (&self.rules[*index], track.keep()?);
            Some(Standing { rule: rule.name.clone(), form: rule.form(), subject: subject.clone(), kept })
        });
        kept.collect()
    }

    /// Goes on from there. False if the rule is gone or another by now.
    pub fn resume(&mut self, standing: &Standing) -> bool {
        let is_same = |rule: &Rule| rule.name == standing.rule && rule.form() == standing.form;
        let Some(index) = self.rules.iter().position(is_same) else { return false };
        self.tracks.insert((standing.subject.clone(), index), Track::resume(standing.kept.clone()));
        true
    }

    /// Where a rule stands for a subject.
    pub fn state(&self, subject: &Subject, rule: usize) -> State {
        self.tracks.get(&(subject.clone(), rule)).map_or(State::Normal, Track::state)
    }

    /// Where all rules stand for all subjects that they have looked at.
    pub fn states(&self) -> impl Iterator<Item = (&Rule, &Subject, State)> {
        self.tracks.iter().map(|((subject, rule), track)| (&self.rules[*rule], subject, track.state()))
    }

    /// The processes that are to be looked at closely: a breach may be beginning, or goes on.
    pub fn hot(&self) -> BTreeSet<u32> {
        self.tracks.values().filter(|track| track.is_hot() && track.pid != 0).map(|track| track.pid).collect()
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
