//! `Governor`: says when probes may be set, so that what their hits cost stays within a budget. It neither waits nor reads
//! a clock.
//!
//! It is a bucket of CPU time that fills at the rate of the budget. Hits empty it; when it is empty the probes go, and when
//! enough is in it again they come back. The time until then is varied at random, so that they do not keep step with
//! anything that the process does at regular times.

use std::time::Duration;

/// The bucket holds what the budget allows in this time.
const CAPACITY: Duration = Duration::from_secs(1);
/// Probes come back when the bucket is filled to this share of its capacity, on average.
const REFILL: f64 = 0.6;
/// By how much that varies.
const JITTER: f64 = 0.3;

/// What is to be done about the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may stay, or are to stay away.
    AsTheyAre,
    /// They have to go.
    TakeAway,
    /// They may be set again.
    SetAgain,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Governor {
    /// CPU time a second of time, in seconds; infinite without a bound.
    budget: f64,
    /// What one hit costs, in seconds.
    hit_cost: f64,
    /// CPU time that may be spent now, in seconds; negative when more was spent.
    left: f64,
    /// Whether the probes are set.
    is_set: bool,
    /// What has to be in the bucket before they are set again.
    wanted: f64,
    /// State of the random numbers.
    random: u64,
}

impl Governor {
    /// With probes set and a bucket full. `budget` is a share of one core.
    pub fn new(budget: f64, hit_cost: Duration, seed: u64) -> Self {
        let capacity = budget * CAPACITY.as_secs_f64();
        Self { budget, hit_cost: hit_cost.as_secs_f64(), left: capacity, is_set: true, wanted: 0.0, random: seed | 1 }
    }

    /// Time has passed, and there were hits meanwhile, which have cost something besides.
    pub fn observe(&mut self, hits: u64, besides: Duration, elapsed: Duration) -> Verdict {
        let capacity = self.budget * CAPACITY.as_secs_f64();
        let cost = hits as f64 * self.hit_cost + besides.as_secs_f64();
        self.left = (self.left + self.budget * elapsed.as_secs_f64()).min(capacity) - cost;
        match self.is_set {
            true if self.left < 0.0 => {
                self.is_set = false;
                self.wanted = capacity * (REFILL + JITTER * (2.0 * self.random() - 1.0));
                Verdict::TakeAway
            }
            false if self.left >= self.wanted => {
                self.is_set = true;
                Verdict::SetAgain
            }
            _ => Verdict::AsTheyAre,
        }
    }

    /// From 0 to 1: xorshift, which is random enough for a jitter.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    /// Runs against a process that hits so often while the probes are set; returns the share of time they were, and of CPU
    /// time that the hits took, after the first second.
    fn run(budget: f64, hit_cost: Duration, hits_per_second: f64) -> (f64, f64) {
        let mut governor = Governor::new(budget, hit_cost, 7);
        let (mut is_set, mut set, mut spent) = (true, 0, 0.0);
        for tick in 0..10_000 {
            let hits = if is_set { (hits_per_second * TICK.as_secs_f64()) as u64 } else { 0 };
            if tick >= 100 {
                set += u32::from(is_set);
                spent += hits as f64 * hit_cost.as_secs_f64();
            }
            match governor.observe(hits, Duration::ZERO, TICK) {
                Verdict::TakeAway => is_set = false,
                Verdict::SetAgain => is_set = true,
                Verdict::AsTheyAre => {}
            }
        }
        (f64::from(set) / 9900.0, spent / 99.0)
    }

    #[test]
    fn what_is_cheap_stays_all_the_time() {
        let (set, spent) = run(0.05, Duration::from_micros(5), 1000.0);
        assert_eq!(set, 1.0);
        assert!(spent < 0.0051, "{spent}");
    }

    #[test]
    fn what_is_dear_is_paid_as_far_as_the_budget_goes() {
        for hits in [20_000.0, 100_000.0, 500_000.0, 2_000_000.0] {
            let (set, spent) = run(0.05, Duration::from_micros(5), hits);
            assert!((0.04..0.055).contains(&spent), "{hits} hits a second cost {spent}");
            assert!(set > 0.0 && set < 0.6, "{hits}: {set}");
        }
    }

    #[test]
    fn windows_are_not_regular() {
        let mut governor = Governor::new(0.05, Duration::from_micros(5), 7);
        let mut pauses = Vec::new();
        let (mut is_set, mut since) = (true, 0);
        for tick in 0..20_000 {
            match governor.observe(if is_set { 10_000 } else { 0 }, Duration::ZERO, TICK) {
                Verdict::TakeAway => (is_set, since) = (false, tick),
                Verdict::SetAgain => {
                    is_set = true;
                    pauses.push(tick - since);
                }
                Verdict::AsTheyAre => {}
            }
        }
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
