//! Who starts processes all the time has the later ones looked at, and watched, when there is time, so that others are not kept
//! waiting and the daemon stays within its limits.

use std::time::Duration;

use crate::target::Allowances;

/// A process may start so many at once, and one in so much time from then on, that are looked at when they have come or stayed: a
/// look is some 20 to 100 microseconds. The others are found when all processes are looked at.
const LOOKS_AT_ONCE: u64 = 1000;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// And a target so many that are watched: to begin with one and to end it takes half a millisecond.
const JOINS_AT_ONCE: u64 = 1000;
const JOIN_EVERY: Duration = Duration::from_millis(100);
/// How often it is told that a target is a flood.
const TOLD_EVERY: Duration = Duration::from_mins(10);

/// See the head of this file.
pub(super) struct Floods {
    looks: Allowances<u32>,
    joins: Allowances<String>,
    told: Allowances<String>,
}

impl Floods {
    pub(super) fn new() -> Self {
        Self {
            looks: Allowances::new(LOOKS_AT_ONCE, LOOK_EVERY),
            joins: Allowances::new(JOINS_AT_ONCE, JOIN_EVERY),
            told: Allowances::new(1, TOLD_EVERY),
        }
    }

    /// Whether another process of this parent (0 for one that is not known) is looked at now.
    pub(super) fn may_look(&mut self, parent: u32, now_ns: u64) -> bool {
        self.looks.take(parent, now_ns)
    }

    /// Whether another process of this target is watched now.
    pub(super) fn may_join(&mut self, target: &str, now_ns: u64) -> bool {
        self.joins.take(target.to_owned(), now_ns)
    }

    /// Whether it is to be told that this target is a flood.
    pub(super) fn is_news(&mut self, target: &str, now_ns: u64) -> bool {
        self.told.take(target.to_owned(), now_ns)
    }
}
