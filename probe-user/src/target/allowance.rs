//! `Allowances`: what each of many sources may cause, so that one that floods us pays with its own detail only.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use probe_ebpf::allowance::{Allowance, Limit};

/// Sources that are remembered at once, about; those that have their whole allowance need not be.
const REMEMBERED: usize = 4096;

/// The same allowance for each source.
#[derive(Debug)]
pub struct Allowances<K> {
    limit: Limit,
    taken: HashMap<K, Allowance>,
    /// When there are so many, those that need not be remembered are forgotten.
    crowded: usize,
}

impl<K: Eq + Hash> Allowances<K> {
    /// Each may cause so much at once, and one in so much time from then on.
    pub fn new(at_once: u64, every: Duration) -> Self {
        let limit = Limit { at_once, every_ns: every.as_nanos() as u64 };
        Self { limit, taken: HashMap::new(), crowded: REMEMBERED }
    }

    /// Whether a source has something left. `now_ns` is `CLOCK_MONOTONIC`.
    pub fn has_left(&self, key: &K, now_ns: u64) -> bool {
        self.taken.get(key).is_none_or(|taken| taken.has_left(self.limit, now_ns))
    }

    /// Lets a source cause something, if it has something left.
    pub fn take(&mut self, key: K, now_ns: u64) -> bool {
        let has_left = self.has_left(&key, now_ns);
        if has_left {
            self.spend(key, 1.0, now_ns);
        }
        has_left
    }

    /// Charges a source with something, also if it had not so much left: it is made up for later.
    pub fn spend(&mut self, key: K, cost: f64, now_ns: u64) {
        if self.taken.len() >= self.crowded {
            self.taken.retain(|_, taken| !taken.is_even(now_ns));
            self.crowded = REMEMBERED.max(2 * self.taken.len());
        }
        self.taken.entry(key).or_default().spend((cost * self.limit.every_ns as f64) as u64, now_ns);
    }

    /// A source is gone.
    pub fn forget(&mut self, key: &K) {
        self.taken.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowances<K: Eq + Hash>() -> Allowances<K> {
        Allowances::new(10, Duration::from_secs(1))
    }

    #[test]
    fn each_has_its_own() {
        let mut allowances = allowances();
        let mut taken = |key, times: usize, at: u64| (0..times).filter(|_| allowances.take(key, at)).count();
        assert_eq!(taken("flood", 100, SECOND), 10);
        assert_eq!(taken("calm", 5, SECOND), 5, "another's flood takes nothing from it");
        assert_eq!(taken("flood", 100, 4 * SECOND), 3);
    }

    #[test]
    fn what_is_dear_is_made_up_for_later() {
        let mut allowances = allowances();
        assert!(allowances.has_left(&1, 0));
        allowances.spend(1, 100.0, 0);
        assert!(!allowances.has_left(&1, 90 * SECOND) && allowances.has_left(&1, 91 * SECOND));
        allowances.forget(&1);
        assert!(allowances.has_left(&1, 0));
    }

    #[test]
    fn who_floods_from_ever_new_sources_fills_no_memory() {
        let mut allowances = allowances();
        for source in 0..100_000u64 {
            allowances.take(source, source * SECOND / 1000);
        }
        assert!(allowances.taken.len() <= REMEMBERED, "{}", allowances.taken.len());
    }
}
