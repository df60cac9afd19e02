//! A rule: which values break it, and how long it takes to begin and to end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric::Metric;
use super::quiet::Quiet;

/// In place of a target's name: every process of every target.
pub const ANY_TARGET: &str = "*";

/// On which side of its threshold a value breaks a rule; a value that is equal never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

    /// Is the value on this side of the threshold?
    pub fn is_broken(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::Below => value < threshold,
        }
    }

    /// The one of two values that is farther on this side.
    pub fn worse(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Above => one.max(other),
            Self::Below => one.min(other),
        }
    }
}

/// What a value is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// A threshold, in the metric's unit.
    Level {
        /// On which side of it a value breaks the rule.
        side: Side,
        /// The threshold.
        threshold: f64,
    },
    /// The average of the values before.
    Change {
        /// By how many percent a value has to be above the average, or below it where this is negative.
        percent: f64,
        /// The average is of so many values; without as many there is nothing to compare with.
        windows: usize,
        /// Values up to this break no rule: little is soon twice as much. In the metric's unit.
        min: f64,
    },
}

/// What is watched apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// Each process.
    #[default]
    Process,
    /// The processes of a target taken together.
    Service,
    /// Each process, by its thread with the highest value.
    Thread,
}

impl Per {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Service => "service",
            Self::Thread => "thread",
        }
    }
}

/// When a value counts as a breach. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique name.
    pub name: String,
    /// The target it applies to, or [`ANY_TARGET`].
    pub target: String,
    /// What is measured.
    pub metric: Metric,
    /// The function, for metrics of functions.
    pub function: Option<String>,
    /// What is watched apart.
    pub per: Per,
    /// Which values break it.
    pub condition: Condition,
    /// Values above this are too high for more work: the breach is told of, and its evidence is not collected.
    pub max: Option<f64>,
    /// How long the value must stay there; 0 breaks at the first value.
    pub for_ns: u64,
    /// Once broken it counts as calm when the value is on the other side of this; `None`: of the threshold.
    pub clear: Option<f64>,
    /// How long the value must be calm until the breach is over.
    pub keep_firing_for_ns: u64,
    /// After a breach has begun, how long there is no further one.
    pub cooldown_ns: u64,
    /// Time after the start of what is measured in which values are not looked at.
    pub warm_up_ns: u64,
    /// Hours in which no breach begins.
    pub quiet: Quiet,
}

impl Condition {
    /// True if a value would have to double, or to become half, before it broke the rule. Nothing is far from an average.
    pub fn is_far_from(&self, value: Option<f64>) -> bool {
        match (*self, value) {
            (Self::Change { .. }, _) => false,
            (Self::Level { .. }, None) => true,
            (Self::Level { side: Side::Above, threshold }, Some(value)) => 2.0 * value <= threshold,
            (Self::Level { side: Side::Below, threshold }, Some(value)) => value >= 2.0 * threshold,
        }
    }
}

impl Rule {
    /// A rule on the CPU use of any process, to be refined.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            target: ANY_TARGET.to_owned(),
            metric: Metric::Cpu,
            function: None,
            per: Per::Process,
            condition: Condition::Level { side: Side::Above, threshold: 80.0 },
            max: None,
            for_ns: 0,
            clear: None,
            keep_firing_for_ns: 0,
            cooldown_ns: 0,
            warm_up_ns: 0,
            quiet: Quiet::default(),
        }
    }

    /// All that it says, as a short text: the same only for the same rule.
    pub(super) fn form(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::digest(format!("{self:?}"));
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Does it look at the processes of a target?
    pub fn applies_to(&self, target: &str) -> bool {
        self.target == ANY_TARGET || self.target == target
    }

    /// On which side of what a value breaks it, by the values before; `None` if there are too few of them.
    pub(super) fn limit(&self, before: &std::collections::VecDeque<f64>) -> Option<Limit> {
        match self.condition {
            Condition::Level { side, threshold } => {
                Some(Limit { side, threshold, clear: self.clear.unwrap_or(threshold) })
            }
            Condition::Change { percent, windows, min } => {
                if before.len() < windows {
                    return None;
                }
                let average = before.iter().sum::<f64>() / before.len() as f64;
                let side = if percent < 0.0 { Side::Below } else { Side::Above };
                let threshold = average * (1.0 + percent / 100.0);
                let threshold = if side == Side::Above { threshold.max(min) } else { threshold };
                // Below an average that is small itself there is nothing to tell.
                (side == Side::Above || average > min).then_some(Limit { side, threshold, clear: threshold })
            }
        }
    }

    /// How many values it remembers.
    pub(super) fn memory(&self) -> usize {
        match self.condition {
            Condition::Level { .. } => 0,
            Condition::Change { windows, .. } => windows,
        }
    }
}

/// What a value is compared with now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limit {
    pub(super) side: Side,
    pub(super) threshold: f64,
    clear: f64,
}

impl Limit {
    pub(super) fn is_broken(&self, value: f64) -> bool {
        self.side.is_broken(value, self.threshold)
    }

    /// Calm again: on the other side of the clearing threshold. What was never beyond the threshold is calm as well.
    pub(super) fn is_clear(&self, value: f64) -> bool {
        if self.clear == self.threshold {
            return !self.is_broken(value);
        }
        match self.side {
            Side::Above => value < self.clear,
            Side::Below => value > self.clear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_is_what_has_to_double_or_halve() {
        let level = |side, threshold| Condition::Level { side, threshold };
        for (condition, value, expected) in [
            (level(Side::Above, 80.0), Some(40.0), true),
            (level(Side::Above, 80.0), Some(40.1), false),
            (level(Side::Below, 0.5), Some(1.0), true),
            (level(Side::Below, 0.5), Some(0.9), false),
            (level(Side::Above, 80.0), None, true),
            (Condition::Change { percent: 50.0, windows: 3, min: 0.0 }, Some(1.0), false),
        ] {
            assert_eq!(condition.is_far_from(value), expected, "{condition:?} {value:?}");
        }
    }
}
