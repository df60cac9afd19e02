//! The rule engine: observations in, transitions out. Each process that a rule applies to has a state of its own:
//! normal, then pending while the value stays beyond the threshold, then firing once it did so for long enough.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text::{mebibytes, short_time};

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metric {
    /// CPU use of the process, all threads, in percent of one core.
    #[serde(rename = "cpu")]
    Cpu,
    /// The time within which 99 % of the calls of a function ended, in nanoseconds.
    #[serde(rename = "function.p99")]
    FunctionP99,
    /// Average time of its calls, in nanoseconds.
    #[serde(rename = "function.avg")]
    FunctionAvg,
    /// The share of its calls within its threshold, in percent.
    #[serde(rename = "function.attainment")]
    FunctionAttainment,
    /// Calls of it that have not returned.
    #[serde(rename = "function.in_flight")]
    FunctionInFlight,
    /// How long the oldest of these has been going on, in nanoseconds.
    #[serde(rename = "function.oldest")]
    FunctionOldest,
    /// Calls of it a second.
    #[serde(rename = "function.rate")]
    FunctionRate,
    /// Calls of it a second that ended as an error.
    #[serde(rename = "function.errors")]
    FunctionErrors,
    /// Resident memory of the process, in bytes.
    #[serde(rename = "memory.rss")]
    MemoryRss,
    /// The same in percent of what its cgroup or the host has.
    #[serde(rename = "memory.rss_percent")]
    MemoryRssPercent,
    /// How fast resident memory grows, in bytes a minute.
    #[serde(rename = "memory.growth")]
    MemoryGrowth,
}

impl Metric {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Cpu,
        Self::MemoryRss,
        Self::MemoryRssPercent,
        Self::MemoryGrowth,
        Self::FunctionP99,
        Self::FunctionAvg,
        Self::FunctionAttainment,
        Self::FunctionInFlight,
        Self::FunctionOldest,
        Self::FunctionRate,
        Self::FunctionErrors,
    ];

    /// Its name in the configuration, in snapshots and in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::FunctionP99 => "function.p99",
            Self::FunctionAvg => "function.avg",
            Self::FunctionAttainment => "function.attainment",
            Self::FunctionInFlight => "function.in_flight",
            Self::FunctionOldest => "function.oldest",
            Self::FunctionRate => "function.rate",
            Self::FunctionErrors => "function.errors",
            Self::MemoryRss => "memory.rss",
            Self::MemoryRssPercent => "memory.rss_percent",
            Self::MemoryGrowth => "memory.growth",
        }
    }

    /// The unit of its values.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Cpu => "percent of one core",
            Self::MemoryRss => "bytes",
            Self::MemoryRssPercent => "percent of the memory it may have",
            Self::MemoryGrowth => "bytes a minute",
            Self::FunctionP99 | Self::FunctionAvg | Self::FunctionOldest => "nanoseconds",
            Self::FunctionAttainment => "percent of the calls",
            Self::FunctionInFlight => "calls",
            Self::FunctionRate | Self::FunctionErrors => "calls a second",
        }
    }

    /// A value and the threshold it has broken, for people: `97.5 above 80 percent of one core`, `20.3ms above 10.0ms`.
    pub fn compare(self, value: f64, side: Side, threshold: f64) -> String {
        let (side, shown) = (side.name(), self.show(value));
        match self.unit() {
            "nanoseconds" | "bytes" => format!("{shown} {side} {}", self.show(threshold)),
            "bytes a minute" => format!("{shown} {side} {} a minute", self.show(threshold)),
            unit => format!("{shown} {side} {threshold} {unit}"),
        }
    }

    /// A value, for people.
    pub fn show(self, value: f64) -> String {
        match self.unit() {
            "nanoseconds" => short_time(value as u64),
            "bytes" | "bytes a minute" => mebibytes(value as u64),
            _ => format!("{value:.1}"),
        }
    }

    /// What it is, for the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Cpu => "CPU use of the process, all threads",
            Self::MemoryRss => "resident memory of the process",
            Self::MemoryRssPercent => {
                "the same in percent of the lowest limit of its cgroups, or of the host's memory where there is none"
            }
            Self::MemoryGrowth => {
                "how fast resident memory grows: the median of all slopes between two of the last 60 seconds (Theil-Sen), \
                 which outliers and short peaks do not move; no value in the first 10 seconds"
            }
            Self::FunctionP99 => {
                "the time within which 99 % of the calls of the last 10 seconds ended; no value without calls"
            }
            Self::FunctionAvg => "the average time of these calls",
            Self::FunctionAttainment => "the share of these calls that ended within the function's `threshold`",
            Self::FunctionInFlight => "calls that have not returned",
            Self::FunctionOldest => "how long the oldest of them has been going on",
            Self::FunctionRate => "calls a second that ended, in the last 10 seconds; 0 without calls",
            Self::FunctionErrors => "of these, the calls that returned an error, as the function's `errors` says",
        }
    }

    /// True for what is explained by who takes memory.
    pub fn is_memory(self) -> bool {
        matches!(self, Self::MemoryRss | Self::MemoryRssPercent | Self::MemoryGrowth)
    }

    /// True for those of a function, which a rule has to name.
    pub fn is_of_function(self) -> bool {
        self.name().starts_with("function.")
    }
}

/// On which side of its threshold a value breaks a rule; a value that is equal never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Above it.
    #[default]
    Above,
    /// Below it.
    Below,
}

impl Side {
    /// Its name in the configuration and in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
        }
    }

    fn is_broken(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::Below => value < threshold,
        }
    }

    fn worse(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Above => one.max(other),
            Self::Below => one.min(other),
        }
    }
}

/// When a value counts as a breach.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique name.
    pub name: String,
    /// The target it applies to; each of its processes apart.
    pub target: String,
    /// What is measured.
    pub metric: Metric,
    /// The function, for metrics of functions.
    pub function: Option<String>,
    /// On which side of the threshold a value breaks it.
    pub side: Side,
    /// The threshold, in the metric's unit.
    pub threshold: f64,
    /// How long the value must stay there, in nanoseconds; 0 breaks at the first value.
    pub for_ns: u64,
    /// After a breach, how long the same process gives no further one, in nanoseconds.
    pub cooldown_ns: u64,
}

/// A measured value, of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Index of the rule.
    pub rule: usize,
    /// The process.
    pub pid: u32,
    /// Start of the interval that was measured.
    pub from_ns: u64,
    /// Its end: now.
    pub at_ns: u64,
    /// The value, as an average over the interval; `None` when it could not be measured.
    pub value: Option<f64>,
}

/// A rule that was broken by a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// Name of the rule.
    pub rule: String,
    /// Name of the target.
    pub target: String,
    /// The process.
    pub pid: u32,
    /// What was measured.
    pub metric: Metric,
    /// Of which function, for metrics of functions.
    pub function: Option<String>,
    /// The worst value between `exceeded_since_ns` and `breached_at_ns`, in the metric's unit.
    pub value: f64,
    /// The threshold, in the same unit.
    pub threshold: f64,
    /// On which side of it the value was.
    pub side: Side,
    /// Since when the value was there without a break: the start of the first interval.
    pub exceeded_since_ns: u64,
    /// When it had been so for long enough.
    pub breached_at_ns: u64,
}

/// What an observation changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The value crossed the threshold.
    Pending,
    /// It stayed there for long enough.
    Breach(Breach),
    /// A pending or firing rule is back to normal.
    Normal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Normal,
    Pending {
        since_ns: u64,
        peak: f64,
    },
    Firing,
}

#[derive(Clone, Copy, Debug, Default)]
struct Track {
    state: State,
    breached_at_ns: Option<u64>,
}

/// The rules with the state of every process they were applied to.
#[derive(Debug, Default)]
pub struct Engine {
    rules: Vec<Rule>,
    tracks: BTreeMap<(u32, usize), Track>,
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

    /// Takes other rules. Where a rule is the same as before, whatever its place, its processes keep their states.
    pub fn replace(&mut self, rules: Vec<Rule>) {
        let old = std::mem::replace(&mut self.rules, rules);
        let place = |index: usize| self.rules.iter().position(|rule| *rule == old[index]);
        let tracks = std::mem::take(&mut self.tracks).into_iter();
        self.tracks = tracks.filter_map(|((pid, rule), track)| Some(((pid, place(rule)?), track))).collect();
    }

    /// Takes a value in. `None`: nothing changed, or there is no such rule.
    pub fn observe(&mut self, seen: Observation) -> Option<Transition> {
        let rule = self.rules.get(seen.rule)?;
        let track = self.tracks.entry((seen.pid, seen.rule)).or_default();
        // A value that is not a number is on no side.
        let Some(value) = seen.value.filter(|&value| rule.side.is_broken(value, rule.threshold)) else {
            let before = std::mem::take(&mut track.state);
            return (before != State::Normal).then_some(Transition::Normal);
        };
        let (since_ns, peak, is_new) = match track.state {
            State::Firing => return None,
            State::Pending { since_ns, peak } => (since_ns, rule.side.worse(peak, value), false),
            State::Normal => (seen.from_ns, value, true),
        };
        let long_enough = seen.at_ns.saturating_sub(since_ns) >= rule.for_ns;
        let cooled = track.breached_at_ns.is_none_or(|last| seen.at_ns.saturating_sub(last) >= rule.cooldown_ns);
        if !(long_enough && cooled) {
            track.state = State::Pending { since_ns, peak };
            return is_new.then_some(Transition::Pending);
        }
        *track = Track { state: State::Firing, breached_at_ns: Some(seen.at_ns) };
        Some(Transition::Breach(Breach {
            rule: rule.name.clone(),
            target: rule.target.clone(),
            pid: seen.pid,
            metric: rule.metric,
            function: rule.function.clone(),
            value: peak,
            threshold: rule.threshold,
            side: rule.side,
            exceeded_since_ns: since_ns,
            breached_at_ns: seen.at_ns,
        }))
    }

    /// Forgets a process that is gone, its cooldown too: a pid that comes back is another process.
    pub fn forget(&mut self, pid: u32) {
        self.tracks.retain(|&(other, _), _| other != pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rule(for_s: u64, cooldown_s: u64) -> Rule {
        Rule {
            name: "hot".into(),
            target: "app".into(),
            metric: Metric::Cpu,
            function: None,
            side: Side::Above,
            threshold: 80.0,
            for_ns: for_s * SECOND,
            cooldown_ns: cooldown_s * SECOND,
        }
    }

    fn engine(for_s: u64, cooldown_s: u64) -> Engine {
        Engine::new(vec![rule(for_s, cooldown_s)])
    }

    fn step(engine: &mut Engine, pid: u32, at_s: u64, value: Option<f64>) -> Option<Transition> {
        engine.observe(Observation { rule: 0, pid, from_ns: (at_s - 1) * SECOND, at_ns: at_s * SECOND, value })
    }

    /// Feeds one value a second from second 1 on; returns one letter a second: pending, breach, normal or nothing.
    fn trace(engine: &mut Engine, values: &[f64]) -> String {
        let letter = |change| match change {
            None => '.',
            Some(Transition::Pending) => 'p',
            Some(Transition::Breach(_)) => 'B',
            Some(Transition::Normal) => 'n',
        };
        (1..).zip(values).map(|(at, &value)| letter(step(engine, 1, at, Some(value)))).collect()
    }

    #[test]
    fn tables() {
        const H: f64 = 95.0;
        const L: f64 = 5.0;
        for (name, for_s, cooldown_s, values, expected) in [
            ("calm", 3, 60, &[L, L, L, L] as &[f64], "...."),
            ("at the threshold is not above it", 0, 0, &[80.0, 80.0], ".."),
            ("just above it is", 0, 0, &[80.0, 80.1], ".B"),
            ("for 3 s needs three seconds above", 3, 60, &[L, H, H, H, H, H], ".p.B.."),
            ("for 0 breaks at once", 0, 60, &[H, H], "B."),
            ("for up to one interval breaks at once too", 1, 60, &[H, H], "B."),
            ("a dip starts over", 3, 60, &[H, H, L, H, H, H, H], "p.np.B."),
            ("one breach while it stays hot, however long", 1, 2, &[H, H, H, H, H, H], "B....."),
            ("hot again within the cooldown waits for its end", 1, 5, &[H, L, H, H, H, H, L], "Bnp..Bn"),
            ("cool again within the cooldown is no breach", 1, 5, &[H, L, H, H, L, L, L], "Bnp.n.."),
            ("hot again at the very end of the cooldown", 1, 3, &[H, L, L, H], "Bn.B"),
            ("not a number is no value", 2, 0, &[H, f64::NAN, H, H], "pnpB"),
        ] {
            assert_eq!(trace(&mut engine(for_s, cooldown_s), values), expected, "{name}");
        }
    }

    #[test]
    fn a_breach_says_since_when_and_how_much() {
        let mut engine = engine(3, 60);
        let mut last = None;
        for (at, value) in [(10, 85.0), (11, 120.0), (12, 90.0)] {
            last = step(&mut engine, 7, at, Some(value));
        }
        let expected = Breach {
            rule: "hot".into(),
            target: "app".into(),
            pid: 7,
            metric: Metric::Cpu,
            function: None,
            value: 120.0,
            threshold: 80.0,
            side: Side::Above,
            exceeded_since_ns: 9 * SECOND,
            breached_at_ns: 12 * SECOND,
        };
        assert_eq!(last, Some(Transition::Breach(expected)));
    }

    #[test]
    fn a_rule_may_be_broken_from_below() {
        let mut engine = Engine::new(vec![Rule { side: Side::Below, ..rule(2, 60) }]);
        assert_eq!(trace(&mut engine, &[80.0, 79.0, 81.0, 60.0]), ".pnp");
        let Some(Transition::Breach(breach)) = step(&mut engine, 1, 5, Some(70.0)) else { panic!("no breach") };
        assert_eq!((breach.value, breach.side), (60.0, Side::Below), "the lowest value is the worst");
    }

    #[test]
    fn other_rules_leave_the_states_of_those_that_stay() {
        let other = |name: &str| Rule { name: name.into(), ..rule(1, 60) };
        let mut engine = Engine::new(vec![rule(1, 60), other("changed")]);
        let both = |engine: &mut Engine, at_s: u64| {
            let seen = |rule| Observation {
                rule,
                pid: 1,
                from_ns: (at_s - 1) * SECOND,
                at_ns: at_s * SECOND,
                value: Some(90.0),
            };
            [0, 1].map(|rule| matches!(engine.observe(seen(rule)), Some(Transition::Breach(_))))
        };
        assert_eq!(both(&mut engine, 1), [true, true]);
        engine.replace(vec![Rule { threshold: 70.0, ..other("changed") }, rule(1, 60)]);
        assert_eq!(both(&mut engine, 2), [true, false], "the second is the one that fires already");
        engine.replace(Vec::new());
        assert!(engine.tracks.is_empty());
    }

    #[test]
    fn metrics_are_called_the_same_everywhere() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).expect("serializes"), metric.name());
        }
    }

    #[test]
    fn a_missing_value_resets() {
        let mut engine = engine(2, 0);
        assert_eq!(step(&mut engine, 1, 1, Some(90.0)), Some(Transition::Pending));
        assert_eq!(step(&mut engine, 1, 2, None), Some(Transition::Normal));
        assert_eq!(step(&mut engine, 1, 3, Some(90.0)), Some(Transition::Pending));
    }

    #[test]
    fn processes_are_apart_and_the_gone_are_forgotten() {
        let mut engine = engine(1, 60);
        let is_breach = |change: Option<Transition>| matches!(change, Some(Transition::Breach(_)));
        assert!(is_breach(step(&mut engine, 1, 1, Some(90.0))));
        assert!(is_breach(step(&mut engine, 2, 1, Some(90.0))), "the cooldown is of the other process");
        engine.forget(1);
        assert!(is_breach(step(&mut engine, 1, 2, Some(90.0))), "another process under the same pid");
        assert_eq!(step(&mut engine, 2, 2, Some(90.0)), None);
        assert_eq!(engine.tracks.len(), 2);
    }

    #[test]
    fn an_unknown_rule_changes_nothing() {
        let seen = Observation { rule: 5, pid: 1, from_ns: 0, at_ns: 1, value: Some(1e9) };
        assert_eq!(engine(0, 0).observe(seen), None);
    }
}
