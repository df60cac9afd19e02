//! The state of a rule for one subject: how a value, a limit and the time lead from one state to the next.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::engine::{Breach, Observation, Over, Transition};
use super::rule::{Limit, Rule};

/// Where a rule stands for one subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The value is where it should be.
    #[default]
    Normal,
    /// It is beyond the threshold, not yet for long enough.
    Pending,
    /// It was so for long enough.
    Firing,
    /// It is calm again, not yet for long enough.
    Recovering,
    /// It was calm for long enough; there is no further breach until the cooldown is over.
    Resolved,
}

impl State {
    /// Its name in the API and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Recovering => "recovering",
            Self::Resolved => "resolved",
        }
    }
}

/// A rule and a subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    phase: Phase,
    /// When the last breach began.
    breached_at_ns: Option<u64>,
    /// The values that an average is made of, the newest last.
    before: VecDeque<f64>,
    /// The process that stands for it, once something may come of it: of a service it stays the same as long as it lives.
    pub(super) pid: u32,
    /// It goes on from where another process was. What it is about may not be measured at once.
    resumed: Resumed,
}

/// How long a breach that goes on from another process may be without a value: probes have to be set, trends to be seen.
const RESUMING_NS: u64 = 60_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
enum Resumed {
    #[default]
    No,
    Unseen,
    Since(u64),
}

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Normal,
    Pending {
        since_ns: u64,
        worst: f64,
        is_too_hot: bool,
    },
    Firing(Box<Fire>),
    Recovering {
        fire: Box<Fire>,
        since_ns: u64,
    },
    Resolved,
}

/// A breach that is going on.
#[derive(Clone, Debug)]
struct Fire {
    breach: Breach,
    was_skipped: bool,
}

impl Fire {
    fn over(self, until_ns: u64, value: Option<f64>) -> Over {
        let Self { breach, was_skipped } = self;
        Over { since_ns: breach.breached_at_ns, breach, until_ns, value, was_skipped }
    }
}

/// What is kept of a track when its process ends: a breach that goes on, and when there may be a further one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptTrack {
    /// The breach that goes on.
    pub breach: Option<Breach>,
    was_skipped: bool,
    /// Since when it is calm again, though not for long enough.
    calm_since_ns: Option<u64>,
    breached_at_ns: Option<u64>,
    before: Vec<f64>,
    /// The process that stands for it.
    pub pid: u32,
}

impl Track {
    /// What is to be kept; `None` while nothing has come of it.
    pub(super) fn keep(&self) -> Option<KeptTrack> {
        let (fire, calm_since_ns) = match &self.phase {
            Phase::Firing(fire) => (Some(fire), None),
            Phase::Recovering { fire, since_ns } => (Some(fire), Some(*since_ns)),
            Phase::Normal | Phase::Pending { .. } | Phase::Resolved => (None, None),
        };
        self.breached_at_ns?;
        Some(KeptTrack {
            breach: fire.map(|fire| fire.breach.clone()),
            was_skipped: fire.is_some_and(|fire| fire.was_skipped),
            calm_since_ns,
            breached_at_ns: self.breached_at_ns,
            before: self.before.iter().copied().collect(),
            pid: self.pid,
        })
    }

    /// A track that goes on from there.
    pub(super) fn resume(kept: KeptTrack) -> Self {
        let KeptTrack { breach, was_skipped, calm_since_ns, breached_at_ns, before, pid } = kept;
        let fire = breach.map(|breach| Box::new(Fire { breach, was_skipped }));
        let phase = match (fire, calm_since_ns) {
            (Some(fire), Some(since_ns)) => Phase::Recovering { fire, since_ns },
            (Some(fire), None) => Phase::Firing(fire),
            (None, _) => Phase::Resolved,
        };
        Self { phase, breached_at_ns, before: before.into(), pid, resumed: Resumed::Unseen }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Normal => State::Normal,
            Phase::Pending { .. } => State::Pending,
            Phase::Firing(_) => State::Firing,
            Phase::Recovering { .. } => State::Recovering,
            Phase::Resolved => State::Resolved,
        }
    }

    /// Something may come of it, or has, and it is not too hot to be looked at closely.
    pub(super) fn is_hot(&self) -> bool {
        match &self.phase {
            Phase::Pending { is_too_hot, .. } => !is_too_hot,
            Phase::Firing(fire) | Phase::Recovering { fire, .. } => !fire.was_skipped,
            Phase::Normal | Phase::Resolved => false,
        }
    }

    /// Nothing more will be seen of the subject.
    pub(super) fn end(self, at_ns: u64) -> Option<Over> {
        match self.phase {
            Phase::Firing(fire) | Phase::Recovering { fire, .. } => Some(fire.over(at_ns, None)),
            Phase::Normal | Phase::Pending { .. } | Phase::Resolved => None,
        }
    }

    pub(super) fn observe(&mut self, rule: &Rule, seen: &Observation<'_>) -> Option<Transition> {
        if self.pid == 0 || matches!(self.phase, Phase::Normal | Phase::Resolved) {
            self.pid = seen.pid;
        }
        if seen.at_ns < seen.started_ns.saturating_add(rule.warm_up_ns) {
            return None;
        }
        // What is not a number is no value.
        let value = seen.value.filter(|value| value.is_finite());
        if value.is_none() && self.is_resuming(seen.at_ns) {
            return None;
        }
        self.resumed = Resumed::No;
        let limit = rule.limit(&self.before);
        let transition = self.step(rule, seen, value, limit);
        // The average before a breach is what the breach is measured by: it stands still while one may be beginning.
        if let Some(value) = value.filter(|_| rule.memory() > 0 && self.state() != State::Pending) {
            self.before.push_back(value);
            while self.before.len() > rule.memory() {
                self.before.pop_front();
            }
        }
        transition
    }

    fn is_resuming(&mut self, at_ns: u64) -> bool {
        match self.resumed {
            Resumed::No => return false,
            Resumed::Unseen => self.resumed = Resumed::Since(at_ns),
            Resumed::Since(since_ns) => return at_ns.saturating_sub(since_ns) < RESUMING_NS,
        }
        true
    }

    fn step(
        &mut self,
        rule: &Rule,
        seen: &Observation<'_>,
        value: Option<f64>,
        limit: Option<Limit>,
    ) -> Option<Transition> {
        match std::mem::take(&mut self.phase) {
            Phase::Firing(fire) => {
                if !is_clear(value, limit) {
                    self.phase = Phase::Firing(fire);
                    return None;
                }
                self.recover(rule, seen, fire, seen.from_ns, true)
            }
            Phase::Recovering { fire, since_ns } => {
                if !is_clear(value, limit) {
                    self.phase = Phase::Firing(fire);
                    return Some(Transition::Relapsed);
                }
                self.recover(rule, seen, fire, since_ns, false)
            }
            Phase::Pending { since_ns, worst, .. } => match broken(rule, seen, value, limit) {
                Some((value, limit)) => {
                    self.rise(rule, seen, (value, limit), (since_ns, limit.side.worse(worst, value)), false)
                }
                None => Some(Transition::Normal),
            },
            calm @ (Phase::Normal | Phase::Resolved) => match broken(rule, seen, value, limit) {
                Some((value, limit)) => self.rise(rule, seen, (value, limit), (seen.from_ns, value), true),
                None => {
                    let is_cooling = matches!(calm, Phase::Resolved) && !self.has_cooled(rule, seen.at_ns);
                    self.phase = if is_cooling { Phase::Resolved } else { Phase::Normal };
                    None
                }
            },
        }
    }

    fn has_cooled(&self, rule: &Rule, at_ns: u64) -> bool {
        self.breached_at_ns.is_none_or(|last| at_ns.saturating_sub(last) >= rule.cooldown_ns)
    }

    /// The value is beyond the limit: since when, and by how much at most.
    fn rise(
        &mut self,
        rule: &Rule,
        seen: &Observation<'_>,
        (value, limit): (f64, Limit),
        (since_ns, worst): (u64, f64),
        is_new: bool,
    ) -> Option<Transition> {
        let is_too_hot = rule.max.is_some_and(|max| value > max);
        let long_enough = seen.at_ns.saturating_sub(since_ns) >= rule.for_ns;
        if !(long_enough && self.has_cooled(rule, seen.at_ns)) {
            self.phase = Phase::Pending { since_ns, worst, is_too_hot };
            return is_new.then_some(Transition::Pending);
        }
        (self.breached_at_ns, self.pid) = (Some(seen.at_ns), seen.pid);
        let breach = Breach {
            rule: rule.name.clone(),
            target: seen.target.to_owned(),
            pid: seen.pid,
            metric: rule.metric,
            function: rule.function.clone(),
            value: worst,
            threshold: limit.threshold,
            side: limit.side,
            exceeded_since_ns: since_ns,
            breached_at_ns: seen.at_ns,
        };
        self.phase = Phase::Firing(Box::new(Fire { breach: breach.clone(), was_skipped: is_too_hot }));
        Some(if is_too_hot { Transition::Skipped(breach) } else { Transition::Firing(breach) })
    }

    /// The value is calm since then.
    fn recover(
        &mut self,
        rule: &Rule,
        seen: &Observation<'_>,
        fire: Box<Fire>,
        since_ns: u64,
        is_new: bool,
    ) -> Option<Transition> {
        // Without a time to wait, one calm value is enough.
        if seen.at_ns.saturating_sub(since_ns) < rule.keep_firing_for_ns {
            self.phase = Phase::Recovering { fire, since_ns };
            return is_new.then_some(Transition::Recovering);
        }
        self.phase = if self.has_cooled(rule, seen.at_ns) { Phase::Normal } else { Phase::Resolved };
        Some(Transition::Resolved(fire.over(seen.at_ns, seen.value.filter(|value| value.is_finite()))))
    }
}

/// The value and the limit, where one breaks the other and it is no quiet hour.
fn broken(rule: &Rule, seen: &Observation<'_>, value: Option<f64>, limit: Option<Limit>) -> Option<(f64, Limit)> {
    let (value, limit) = (value?, limit?);
    (limit.is_broken(value) && !rule.quiet.covers(seen.wall_ns)).then_some((value, limit))
}

/// Without a value there is nothing to complain of.
fn is_clear(value: Option<f64>, limit: Option<Limit>) -> bool {
    match (value, limit) {
        (Some(value), Some(limit)) => limit.is_clear(value),
        _ => true,
    }
}
