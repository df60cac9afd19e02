//! The rule engine: observations in, transitions out. Each process that a rule applies to has a state of its own:
//! normal, then pending while the value stays above the threshold, then firing once it did so for long enough.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text::mebibytes;

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metric {
    /// CPU use of the process, all threads, in percent of one core.
    #[serde(rename = "cpu")]
    Cpu,
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
    pub const ALL: &[Self] = &[Self::Cpu, Self::MemoryRss, Self::MemoryRssPercent, Self::MemoryGrowth];

    /// Its name in the configuration, in snapshots and in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
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
        }
    }

    /// True for what is explained by who takes memory.
    pub fn is_memory(self) -> bool {
        matches!(self, Self::MemoryRss | Self::MemoryRssPercent | Self::MemoryGrowth)
    }

    /// A value without its unit but for bytes, for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::MemoryRss | Self::MemoryGrowth => mebibytes(value as u64),
            Self::Cpu | Self::MemoryRssPercent => format!("{value:.1}"),
        }
    }

    /// A value above a threshold, for people: `97.5 above 80 percent of one core`.
    pub fn above(self, value: f64, threshold: f64) -> String {
        let value = self.show(value);
        match self {
            Self::MemoryRss => format!("{value} above {}", self.show(threshold)),
            Self::MemoryGrowth => format!("{value} above {} a minute", self.show(threshold)),
            Self::Cpu | Self::MemoryRssPercent => format!("{value} above {threshold} {}", self.unit()),
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
    /// The threshold, in the metric's unit: a value breaks it when it is above, not when it is equal.
    pub above: f64,
    /// How long the value must stay above, in nanoseconds; 0 breaks at the first value above.
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
    /// The highest value between `exceeded_since_ns` and `breached_at_ns`, in the metric's unit.
    pub value: f64,
    /// The threshold, in the same unit.
    pub threshold: f64,
    /// Since when the value was above the threshold without a break: the start of the first interval above it.
    pub exceeded_since_ns: u64,
    /// When it had been so for long enough.
    pub breached_at_ns: u64,
}

/// What an observation changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The value went above the threshold.
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

    /// Takes a value in. `None`: nothing changed, or there is no such rule.
    pub fn observe(&mut self, seen: Observation) -> Option<Transition> {
        let rule = self.rules.get(seen.rule)?;
        let track = self.tracks.entry((seen.pid, seen.rule)).or_default();
        // A value that is not a number is above nothing.
        let Some(value) = seen.value.filter(|&value| value > rule.above) else {
            let before = std::mem::take(&mut track.state);
            return (before != State::Normal).then_some(Transition::Normal);
        };
        let (since_ns, peak, is_new) = match track.state {
            State::Firing => return None,
            State::Pending { since_ns, peak } => (since_ns, peak.max(value), false),
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
            value: peak,
            threshold: rule.above,
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

    fn engine(for_s: u64, cooldown_s: u64) -> Engine {
        Engine::new(vec![Rule {
            name: "hot".into(),
            target: "app".into(),
            metric: Metric::Cpu,
            above: 80.0,
            for_ns: for_s * SECOND,
            cooldown_ns: cooldown_s * SECOND,
        }])
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
            value: 120.0,
            threshold: 80.0,
            exceeded_since_ns: 9 * SECOND,
            breached_at_ns: 12 * SECOND,
        };
        assert_eq!(last, Some(Transition::Breach(expected)));
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
