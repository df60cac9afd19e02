//! The chronicle: what happened to rules, in an order that one can go on from, and how they are now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::call_times::CallTimes;
use super::timeline::Timeline;
use crate::control::{Cursor, Event, EventKind, Events, Firing, RuleProcess, State};
use crate::monitor::{Breach, Condition, Observation, Over, Rule, Subject, Transition};
use crate::snapshot::{Sidecar, Timestamp};

/// Events that are remembered: of a rule for 500 processes that all break it and are well again.
const MAX_EVENTS: usize = 2048;
/// Most events of one answer.
const PAGE: usize = 256;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Chronicle {
    /// What was measured lately.
    pub(super) timeline: Timeline,
    /// How long calls took.
    pub(super) call_times: CallTimes,
    life: u64,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    number: u64,
    /// By rule.
    subjects: BTreeMap<String, BTreeMap<Subject, Standing>>,
    breaches: BTreeMap<String, u64>,
    stored: u64,
    lost: u64,
}

/// How a rule stands for a subject.
#[derive(Debug)]
struct Standing {
    target: String,
    state: State,
    since: Option<Timestamp>,
    value: Option<f64>,
}

impl Default for Chronicle {
    fn default() -> Self {
        Self::new()
    }
}

impl Chronicle {
    /// An empty one.
    pub(super) fn new() -> Self {
        let life = Timestamp::from(SystemTime::now()).0;
        Self {
            timeline: Timeline::default(),
            call_times: CallTimes::default(),
            life,
            inner: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A rule was applied to something. Of a process, values may be told to the timeline alone, once it is known here.
    pub(super) fn seen(&self, rule: &Rule, seen: &Observation<'_>) {
        let mut inner = self.lock();
        // Many times a second, so that nothing is copied for what is known.
        if let Some(standing) = inner.subjects.get_mut(&rule.name).and_then(|subjects| subjects.get_mut(&seen.subject))
        {
            standing.value = seen.value;
            return;
        }
        let new = Standing { target: seen.target.to_owned(), state: State::Normal, since: None, value: seen.value };
        inner.subjects.entry(rule.name.clone()).or_default().insert(seen.subject.clone(), new);
    }

    /// The state of a rule has changed. What is over is told by [`Self::resolved`], however it came to that.
    pub(super) fn changed(&self, change: &Transition, rule: &Rule, seen: &Observation<'_>) {
        let (kind, state) = match change {
            Transition::Pending => (Some(EventKind::Pending), State::Pending),
            Transition::Normal => (Some(EventKind::Normal), State::Normal),
            Transition::Firing(_) | Transition::Skipped(_) => (Some(EventKind::Firing), State::Firing),
            Transition::Recovering => (None, State::Recovering),
            Transition::Relapsed => (None, State::Firing),
            Transition::Resolved(_) => (None, State::Normal),
        };
        let at = Timestamp::from(SystemTime::now());
        let mut inner = self.lock();
        if kind == Some(EventKind::Firing) {
            *inner.breaches.entry(rule.name.clone()).or_default() += 1;
        }
        let standing = Standing { target: seen.target.to_owned(), state, since: Some(at), value: seen.value };
        inner.subjects.entry(rule.name.clone()).or_default().insert(seen.subject.clone(), standing);
        let Some(kind) = kind else { return };
        let threshold = match (change, rule.condition) {
            (Transition::Firing(breach) | Transition::Skipped(breach), _) => breach.threshold,
            (_, Condition::Level { threshold, .. }) => threshold,
            // Of the average, which is known when something comes of it.
            (_, Condition::Change { .. }) => 0.0,
        };
        let event = Event {
            id: Cursor::default(),
            at,
            kind,
            rule: rule.name.clone(),
            target: seen.target.to_owned(),
            pid: pid_of(&seen.subject),
            metric: rule.metric.name().to_owned(),
            function: rule.function.clone(),
            value: seen.value,
            threshold,
            unit: rule.metric.unit().to_owned(),
            snapshot: None,
            culprit: String::new(),
        };
        self.push(inner, event);
    }

    /// A breach goes on that another process has seen begin.
    pub(super) fn resumed(&self, breach: &Breach, subject: Subject, wall_ahead_ns: u64) {
        let since = Some(Timestamp(breach.breached_at_ns.saturating_add(wall_ahead_ns)));
        let standing =
            Standing { target: breach.target.clone(), state: State::Firing, since, value: Some(breach.value) };
        self.lock().subjects.entry(breach.rule.clone()).or_default().insert(subject, standing);
    }

    /// A breach is over.
    pub(super) fn resolved(&self, over: &Over) {
        let Breach { rule, target, pid, metric, function, threshold, .. } = &over.breach;
        let event = Event {
            id: Cursor::default(),
            at: Timestamp::from(SystemTime::now()),
            kind: EventKind::Resolved,
            rule: rule.clone(),
            target: target.clone(),
            pid: Some(*pid).filter(|pid| *pid != 0),
            metric: metric.name().to_owned(),
            function: function.clone(),
            value: None,
            threshold: *threshold,
            unit: metric.unit().to_owned(),
            snapshot: None,
            culprit: String::new(),
        };
        self.push(self.lock(), event);
    }

    /// The evidence of a breach is stored, or lost.
    pub(super) fn kept(&self, sidecar: &Sidecar, is_stored: bool) {
        let mut inner = self.lock();
        let count = if is_stored { &mut inner.stored } else { &mut inner.lost };
        *count += 1;
        let event = Event {
            id: Cursor::default(),
            at: Timestamp::from(SystemTime::now()),
            kind: if is_stored { EventKind::Snapshot } else { EventKind::Lost },
            rule: sidecar.rule.clone(),
            target: sidecar.target.clone(),
            pid: Some(sidecar.process.pid),
            metric: sidecar.metric.name().to_owned(),
            function: sidecar.function.as_ref().map(|function| function.name.clone()),
            value: Some(sidecar.value),
            threshold: sidecar.threshold,
            unit: sidecar.unit.clone(),
            snapshot: is_stored.then_some(sidecar.id),
            culprit: sidecar.cause(),
        };
        self.push(inner, event);
    }

    fn push(&self, mut inner: MutexGuard<'_, Inner>, mut event: Event) {
        inner.number += 1;
        event.id = Cursor { life: self.life, number: inner.number };
        if inner.events.len() >= MAX_EVENTS {
            inner.events.pop_front();
        }
        inner.events.push_back(event);
        self.changed.notify_all();
    }

    /// A process is no longer watched.
    pub(super) fn forget(&self, pid: u32) {
        for subjects in self.lock().subjects.values_mut() {
            subjects.remove(&Subject::Process(pid));
        }
        self.timeline.renew(|other| other == pid);
    }

    /// There are these rules now. How they stand is kept where `is_same` says so, of the others it has to be seen anew.
    pub(super) fn keep_only(&self, rules: &[Rule], is_same: impl Fn(&str, &Subject) -> bool) {
        let names: BTreeSet<&str> = rules.iter().map(|rule| &*rule.name).collect();
        let is_rule = |name: &str| names.contains(name);
        let mut inner = self.lock();
        for (rule, subjects) in &mut inner.subjects {
            subjects.retain(|subject, _| is_same(rule, subject));
        }
        inner.subjects.retain(|rule, _| is_rule(rule));
        inner.breaches.retain(|rule, _| is_rule(rule));
        drop(inner);
        self.timeline.renew(|_| true);
    }

    /// How a rule is: its breaches, and what it applies to.
    pub(super) fn rule(&self, name: &str) -> (u64, Vec<RuleProcess>) {
        let inner = self.lock();
        let of_rule = inner.subjects.get(name).into_iter().flatten();
        let process = |(subject, standing): (&Subject, &Standing)| {
            let Standing { state, since, .. } = *standing;
            RuleProcess { pid: pid_of(subject), state, since, value: self.value(name, subject, standing) }
        };
        (inner.breaches.get(name).copied().unwrap_or_default(), of_rule.map(process).collect())
    }

    /// The latest value: of a process, of which it is measured many times a second, the timeline has it.
    fn value(&self, rule: &str, subject: &Subject, standing: &Standing) -> Option<f64> {
        let of_process = pid_of(subject).and_then(|pid| self.timeline.latest(pid, rule));
        of_process.unwrap_or(standing.value)
    }

    /// What fires, and how many snapshots were stored and lost.
    pub(super) fn totals(&self) -> (Vec<Firing>, u64, u64) {
        let inner = self.lock();
        let is_firing = |state: State| matches!(state, State::Firing | State::Recovering);
        let all = inner.subjects.iter().flat_map(|(rule, subjects)| subjects.iter().map(move |of| (rule, of)));
        let firing = all.filter(|(_, (_, standing))| is_firing(standing.state));
        let firing = firing.map(|(rule, (subject, standing))| Firing {
            rule: rule.clone(),
            target: standing.target.clone(),
            pid: pid_of(subject),
            since: standing.since.unwrap_or_default(),
            value: self.value(rule, subject, standing),
        });
        (firing.collect(), inner.stored, inner.lost)
    }

    /// See [`crate::control::Collector::events`].
    pub(super) fn events(&self, after: Option<Cursor>, wait: Duration) -> Events {
        let deadline = Instant::now() + wait;
        let mut inner = self.lock();
        let now = |inner: &Inner| Cursor { life: self.life, number: inner.number };
        let Some(after) = after else {
            return Events { next: now(&inner), ..Events::default() };
        };
        loop {
            let is_ours = after.life == self.life && after.number <= inner.number;
            let from = if is_ours { after.number } else { 0 };
            let oldest = inner.events.front().map_or(inner.number + 1, |event| event.id.number);
            let missed = !is_ours || from + 1 < oldest;
            let events: Vec<Event> =
                inner.events.iter().filter(|event| event.id.number > from).take(PAGE).cloned().collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if !events.is_empty() || !is_ours || left.is_zero() {
                let next = events.last().map_or(if is_ours { after } else { now(&inner) }, |event| event.id);
                return Events { events, next, missed };
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The process, where it is one.
fn pid_of(subject: &Subject) -> Option<u32> {
    match subject {
        Subject::Process(pid) => Some(*pid),
        Subject::Service(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(subject: Subject, value: f64) -> Observation<'static> {
        let (pid, value) = (7, Some(value));
        Observation { rule: 0, subject, pid, target: "app", from_ns: 0, at_ns: 1, wall_ns: 1, started_ns: 0, value }
    }

    fn breach(rule: &Rule) -> Breach {
        Breach {
            rule: rule.name.clone(),
            target: "app".into(),
            pid: 7,
            metric: rule.metric,
            function: None,
            value: 95.0,
            threshold: 80.0,
            side: crate::monitor::Side::Above,
            exceeded_since_ns: 0,
            breached_at_ns: 1,
        }
    }

    #[test]
    fn events_are_read_from_where_one_was() {
        let (chronicle, rule) = (Chronicle::new(), Rule::new("hot"));
        let start = chronicle.events(None, Duration::ZERO);
        assert_eq!((start.events.len(), start.next.number), (0, 0));
        let process = seen(Subject::Process(7), 90.0);
        chronicle.changed(&Transition::Pending, &rule, &process);
        chronicle.changed(&Transition::Firing(breach(&rule)), &rule, &process);
        let over = Over { breach: breach(&rule), since_ns: 1, until_ns: 2, value: None, was_skipped: false };
        chronicle.changed(&Transition::Resolved(over.clone()), &rule, &process);
        chronicle.resolved(&over);
        let all = chronicle.events(Some(start.next), Duration::ZERO);
        let kinds: Vec<EventKind> = all.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Pending, EventKind::Firing, EventKind::Resolved]);
        assert!(!all.missed && all.events.iter().all(|event| event.threshold == 80.0 && event.pid == Some(7)));
        let none = chronicle.events(Some(all.next), Duration::from_millis(5));
        assert_eq!((none.events.len(), none.next, none.missed), (0, all.next, false));
        let other_life = chronicle.events(Some(Cursor { life: 1, number: 9 }), Duration::ZERO);
        assert_eq!((other_life.events.len(), other_life.missed), (3, true));
        for _ in 0..MAX_EVENTS {
            chronicle.changed(&Transition::Pending, &rule, &process);
        }
        let late = chronicle.events(Some(all.next), Duration::ZERO);
        assert_eq!((late.events.len(), late.missed), (PAGE, false));
        assert!(chronicle.events(Some(start.next), Duration::ZERO).missed);
    }

    #[test]
    fn who_waits_is_woken() {
        let chronicle = Chronicle::new();
        let start = chronicle.events(None, Duration::ZERO).next;
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| chronicle.events(Some(start), Duration::from_secs(20)));
            chronicle.changed(&Transition::Pending, &Rule::new("hot"), &seen(Subject::Process(7), 1.0));
            assert_eq!(waiting.join().expect("no panic").events.len(), 1);
        });
    }

    #[test]
    fn states_are_known_until_process_or_rule_is_gone() {
        let (chronicle, rule) = (Chronicle::new(), Rule::new("hot"));
        chronicle.seen(&rule, &seen(Subject::Process(7), 10.0));
        chronicle.seen(&rule, &seen(Subject::Service("app".into()), 20.0));
        let hot = seen(Subject::Process(7), 95.0);
        chronicle.changed(&Transition::Firing(breach(&rule)), &rule, &hot);
        chronicle.changed(&Transition::Recovering, &rule, &hot);
        chronicle.seen(&rule, &seen(Subject::Process(7), 60.0));
        let (breaches, processes) = chronicle.rule("hot");
        assert_eq!((breaches, processes[0].state, processes[0].value), (1, State::Recovering, Some(60.0)));
        assert_eq!((processes[1].pid, processes[1].state), (None, State::Normal));
        let (firing, stored, lost) = chronicle.totals();
        assert_eq!((firing.len(), firing[0].pid, stored, lost), (1, Some(7), 0, 0));
        chronicle.forget(7);
        assert_eq!(chronicle.rule("hot").1.len(), 1);
        chronicle.keep_only(&[Rule::new("hot")], |_, _| true);
        assert_eq!(chronicle.rule("hot").1.len(), 1);
        chronicle.keep_only(&[Rule::new("hot")], |_, _| false);
        assert_eq!(chronicle.rule("hot"), (1, vec![]), "it is another rule by now, of the same name");
        chronicle.keep_only(&[Rule::new("other")], |_, _| true);
        assert_eq!(chronicle.rule("hot"), (0, vec![]));
    }
}
