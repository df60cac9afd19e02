//! `Governor`: says which functions' probes may be set, so that what their hits cost together stays within a budget. It
//! neither waits nor reads a clock.
//!
//! A function that costs less than its share of the budget keeps its probes all the time; what it leaves over goes to the
//! others. The share is the same for all (max-min fairness), so that a function which is called a million times a second
//! does not take away the windows of one that is called ten times. Each function has a bucket of CPU time that fills at the
//! rate of the share. Hits empty it; when it is empty the probes go, and when enough is in it again they come back. The
//! time until then is varied at random, so that windows do not keep step with anything that the process does regularly.
//! One more bucket, for all together, fills at the rate of the budget: it holds when many functions become dear at once.
//!
//! To take probes away and to set them again costs as well, the more the smaller the budget is beside it. Buckets hold as much
//! as some such changes cost, if that is more: windows are fewer and longer then, and the share of the time is the same. To
//! begin with they hold as much as before a long window: full ones would let the first window last for seconds, which is
//! much of the time of whoever looks for seconds only.

use std::time::Duration;

/// A bucket holds what its share of the budget allows in this time,
const CAPACITY: f64 = 1.0;
/// or what it costs to take the probes away and set them again so many times: as a bucket is filled to a fifth of that on
/// average, changes cost no more than hits may.
const CHANGES: f64 = 5.0;
/// How full of that a bucket is to begin with.
const FIRST: f64 = REFILL.1;
/// The part of what the budget allows in that time that is left when there is nothing to be feared soon.
const RESERVE: f64 = 0.5;
/// Probes come back when the bucket is filled to a part of its capacity that varies between these.
const REFILL: (f64, f64) = (0.05, 0.35);
/// What a function costs is known of about so many seconds in which its probes were set.
const MEMORY: f64 = 1.0;
/// The same where the probes have just been set again: what was known before counts for so many seconds.
const OLD_MEMORY: f64 = 0.01;

/// What is to be done about the probes of a function.
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
    /// CPU time that all may spend now, in seconds; negative when more was spent.
    left: f64,
    /// CPU time that it takes to take the probes of a function away and set them again, in seconds.
    change: f64,
    functions: Vec<Function>,
    /// State of the random numbers.
    random: u64,
}

#[derive(Clone, Debug)]
struct Function {
    /// Whether the probes are set.
    is_set: bool,
    /// CPU time that may be spent now, in seconds; negative when more was spent.
    left: f64,
    /// What has to be in the bucket before the probes are set again.
    wanted: f64,
    /// CPU time that was spent lately while the probes were set, and that time, in seconds.
    spent: (f64, f64),
}

impl Function {
    /// What it costs while its probes are set: a share of one core.
    fn rate(&self) -> f64 {
        if self.spent.1 > 0.0 { self.spent.0 / self.spent.1 } else { 0.0 }
    }

    /// Time has passed with the probes set.
    fn learn(&mut self, cost: f64, seconds: f64) {
        self.spent = (self.spent.0 + cost, self.spent.1 + seconds);
        if self.spent.1 > MEMORY {
            self.remember(MEMORY / 2.0);
        }
    }

    /// Lets what is known count for so many seconds.
    fn remember(&mut self, seconds: f64) {
        self.spent = (self.rate() * seconds, seconds);
    }
}

impl Governor {
    /// For so many functions, with all probes set. `budget` is a share of one core.
    pub fn new(budget: f64, functions: usize, seed: u64) -> Self {
        let left = budget * CAPACITY;
        let function = Function { is_set: true, left, wanted: 0.0, spent: (0.0, 0.0) };
        Self { budget, left, change: 0.0, functions: vec![function; functions], random: seed | 1 }
    }

    /// One function more, with its probes set.
    pub fn add(&mut self) {
        let mut function = Function { is_set: true, left: 0.0, wanted: 0.0, spent: (0.0, 0.0) };
        self.functions.push(function.clone());
        self.left = (self.left + FIRST * CHANGES * self.change).min(self.capacity_of_all());
        function.left = FIRST * self.capacity(self.share());
        if let Some(last) = self.functions.last_mut() {
            *last = function;
        }
    }

    /// A function less, by its place among them; those behind it move up.
    pub fn remove(&mut self, at: usize) {
        self.functions.remove(at);
    }

    /// Another share of one core that all may cost.
    pub fn set_budget(&mut self, budget: f64) {
        self.budget = budget;
        self.left = self.left.min(self.capacity_of_all());
    }

    /// What it took to take the probes of a function away and set them again, of CPU time.
    pub fn changed(&mut self, cost: Duration) {
        let cost = cost.as_secs_f64();
        self.change = if self.change > 0.0 { (3.0 * self.change + cost) / 4.0 } else { cost };
    }

    /// True as long as much is left of what all may spend soon, however much more the bucket holds because changes are dear.
    pub fn has_reserve(&self) -> bool {
        self.left >= RESERVE * self.budget * CAPACITY
    }

    /// What the bucket of a function holds.
    fn capacity(&self, share: f64) -> f64 {
        (share * CAPACITY).max(CHANGES * self.change)
    }

    fn capacity_of_all(&self) -> f64 {
        (self.budget * CAPACITY).max(CHANGES * self.change * self.functions.len() as f64)
    }

    /// Time has passed, in which the probes of each function cost so much. Says what is to be done about each; this is taken
    /// to be done at once.
    pub fn observe(&mut self, costs: &[Duration], elapsed: Duration) -> Vec<Verdict> {
        assert_eq!(costs.len(), self.functions.len(), "a cost for each function");
        let seconds = elapsed.as_secs_f64();
        let costs: Vec<f64> = costs.iter().map(Duration::as_secs_f64).collect();
        for (function, &cost) in self.functions.iter_mut().zip(&costs) {
            if function.is_set {
                function.learn(cost, seconds);
            }
        }
        let share = self.share();
        let capacity = self.capacity(share);
        self.left = (self.left + self.budget * seconds).min(self.capacity_of_all()) - costs.iter().sum::<f64>();
        for (function, &cost) in self.functions.iter_mut().zip(&costs) {
            function.left = (function.left + share * seconds).min(capacity) - cost;
        }
        if self.left < 0.0 {
            self.empty_dearest(&costs, seconds);
        }
        (0..costs.len()).map(|at| self.judge(at, capacity)).collect()
    }

    /// What each function may cost: those that cost less leave the rest to the others.
    fn share(&self) -> f64 {
        let mut rates: Vec<f64> = self.functions.iter().map(Function::rate).collect();
        rates.sort_by(f64::total_cmp);
        let (mut rest, mut others) = (self.budget, rates.len());
        for rate in rates {
            if rate > rest / others as f64 {
                return rest / others as f64;
            }
            rest -= rate;
            others -= 1;
        }
        self.budget
    }

    /// All together have spent too much: the dearest have to go, until the others could go on for ever.
    fn empty_dearest(&mut self, costs: &[f64], seconds: f64) {
        let mut set: Vec<usize> = (0..costs.len()).filter(|&at| self.functions[at].is_set).collect();
        set.sort_by(|&one, &other| costs[other].total_cmp(&costs[one]));
        let mut sum: f64 = set.iter().map(|&at| costs[at]).sum();
        for at in set {
            if sum <= self.budget * seconds {
                break;
            }
            sum -= costs[at];
            self.functions[at].left = self.functions[at].left.min(-f64::EPSILON);
        }
    }

    fn judge(&mut self, at: usize, capacity: f64) -> Verdict {
        let part = REFILL.0 + (REFILL.1 - REFILL.0) * self.random();
        let function = &mut self.functions[at];
        match function.is_set {
            true if function.left < 0.0 => {
                function.is_set = false;
                function.wanted = capacity * part;
                Verdict::TakeAway
            }
            // The share may have become less since.
            false if function.left >= function.wanted.min(capacity) && self.left >= 0.0 => {
                function.is_set = true;
                function.remember(OLD_MEMORY);
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

    const TICK: Duration = Duration::from_millis(5);
    const HIT: f64 = 2e-6;
    /// Ticks in which probes that are taken away still cost.
    const LEAVING: u32 = 2;

    /// Of each function: the share of time its probes were set, and of CPU time that the hits took.
    type Shares = Vec<(f64, f64)>;

    /// Runs for 100 seconds against functions that are hit so often a second while their probes are set; the first second
    /// does not count.
    fn run(budget: f64, hits_per_second: &[f64]) -> Shares {
        let mut governor = Governor::new(budget, hits_per_second.len(), 7);
        let mut states = vec![(true, 0u32); hits_per_second.len()];
        let mut sums = vec![(0.0, 0.0); hits_per_second.len()];
        for tick in 0..20_000 {
            let costs = (0..states.len()).map(|at| {
                let (is_set, leaving) = states[at];
                let costs = is_set || leaving > 0;
                // A thread does nothing but hit at most.
                let cost = if costs { (hits_per_second[at] * HIT).min(1.0) * TICK.as_secs_f64() } else { 0.0 };
                states[at].1 = states[at].1.saturating_sub(1);
                if tick >= 200 {
                    sums[at].0 += f64::from(u8::from(is_set)) / 19_800.0;
                    sums[at].1 += cost / 99.0;
                }
                Duration::from_secs_f64(cost)
            });
            let costs: Vec<Duration> = costs.collect();
            for (state, verdict) in states.iter_mut().zip(governor.observe(&costs, TICK)) {
                match verdict {
                    Verdict::TakeAway => *state = (false, LEAVING),
                    Verdict::SetAgain => *state = (true, 0),
                    Verdict::AsTheyAre => {}
                }
            }
        }
        sums
    }

    #[test]
    fn where_changes_are_dear_they_are_few() {
        let change = Duration::from_millis(1);
        let mut governor = Governor::new(0.01, 0, 7);
        for _ in 0..10 {
            governor.changed(change);
            governor.add();
        }
        let (mut is_set, mut changes, mut set_ticks, mut spent) = ([true; 10], 0, 0, Duration::ZERO);
        for _ in 0..20_000 {
            // Twice as much as they may.
            let costs = is_set.map(|is_set| if is_set { TICK.mul_f64(0.002) } else { Duration::ZERO });
            spent += costs.iter().sum::<Duration>();
            set_ticks += is_set.iter().filter(|is_set| **is_set).count();
            for (is_set, verdict) in is_set.iter_mut().zip(governor.observe(&costs, TICK)) {
                changes += u32::from(verdict == Verdict::SetAgain);
                *is_set = verdict == Verdict::SetAgain || *is_set && verdict == Verdict::AsTheyAre;
            }
        }
        let (share, of_changes) = (set_ticks as f64 / 200_000.0, (changes * change).as_secs_f64() / 100.0);
        assert!((0.45..0.6).contains(&share), "{share}");
        assert!((0.009..0.0115).contains(&(spent.as_secs_f64() / 100.0)), "{spent:?}");
        assert!((0.001..0.011).contains(&of_changes), "no more than the hits: {of_changes}");
    }

    #[test]
    fn the_first_window_is_no_longer_than_later_ones() {
        let mut governor = Governor::new(0.01, 0, 7);
        governor.changed(Duration::from_millis(180));
        governor.add();
        let spent = (0..).map_while(|_| {
            let cost = TICK.mul_f64(0.2);
            (governor.observe(&[cost], TICK) == [Verdict::AsTheyAre]).then_some(cost)
        });
        let spent: Duration = spent.sum();
        // A third of five changes, and what came in meanwhile.
        assert!((0.31..0.34).contains(&spent.as_secs_f64()), "{spent:?}");
    }

    #[test]
    fn what_is_cheap_stays_all_the_time() {
        let shares = run(0.05, &[1000.0, 10.0, 0.0]);
        assert!(shares.iter().all(|&(set, _)| set > 0.999_999), "{shares:?}");
    }

    #[test]
    fn what_is_dear_is_paid_as_far_as_the_budget_goes() {
        for budget in [0.01, 0.05] {
            for hits in [100_000.0, 400_000.0, 2_000_000.0] {
                let [(set, spent)] = run(budget, &[hits])[..] else { panic!() };
                assert!((0.8..1.05).contains(&(spent / budget)), "{hits} hits a second cost {spent} of {budget}");
                assert!(set > 0.0 && set < 0.6, "{hits}: {set}");
            }
        }
    }

    #[test]
    fn what_is_dear_does_not_take_the_windows_of_what_is_cheap() {
        let shares = run(0.05, &[1_000_000.0, 10.0, 1000.0, 500.0]);
        for &(set, _) in &shares[1..] {
            assert!(set > 0.999_999, "{shares:?}");
        }
        let sum: f64 = shares.iter().map(|&(_, spent)| spent).sum();
        assert!((0.04..0.0525).contains(&sum), "{shares:?}");
        assert!(shares[0].1 > 0.035, "what the others leave over: {shares:?}");
    }

    #[test]
    fn dear_changes_are_no_reason_to_hurry() {
        let mut governor = Governor::new(0.01, 0, 7);
        for took in [1, 1, 1, 1, 200] {
            governor.changed(Duration::from_millis(took));
            governor.add();
        }
        assert!(governor.has_reserve(), "{governor:?}");
        // Hits that take what all changes might.
        governor.observe(&[Duration::from_millis(100); 5], TICK);
        assert!(!governor.has_reserve(), "{governor:?}");
    }

    #[test]
    fn those_who_are_dear_share_alike() {
        let shares = run(0.05, &[1_000_000.0, 200_000.0, 50_000.0, 2_000.0]);
        // 0.4 % for the cheap one, 1.5 % for each of the others.
        for &(_, spent) in &shares[..3] {
            assert!((0.012..0.0165).contains(&spent), "{shares:?}");
        }
        assert!(shares[3].0 > 0.999_999, "{shares:?}");
    }

    #[test]
    fn many_that_become_dear_at_once_spend_no_more_than_a_bucket() {
        let count = 50;
        let mut governor = Governor::new(0.05, count, 7);
        for _ in 0..2000 {
            governor.observe(&vec![Duration::ZERO; count], TICK);
        }
        let (mut set, mut spent) = (vec![true; count], 0.0);
        for _ in 0..20 {
            let costs: Vec<_> = set.iter().map(|&set| if set { TICK.mul_f64(0.02) } else { Duration::ZERO }).collect();
            spent += costs.iter().map(Duration::as_secs_f64).sum::<f64>();
            for (set, verdict) in set.iter_mut().zip(governor.observe(&costs, TICK)) {
                *set = matches!(verdict, Verdict::SetAgain) || *set && verdict != Verdict::TakeAway;
            }
        }
        assert!(spent < 0.065, "{spent} s in the first 100 ms");
    }

    #[test]
    fn what_becomes_cheap_is_set_for_good() {
        let mut governor = Governor::new(0.05, 1, 7);
        let mut is_set = true;
        let mut last_taken = 0;
        for tick in 0..4000 {
            let share = if tick < 2000 { 0.8 } else { 0.001 };
            let cost = if is_set { TICK.mul_f64(share) } else { Duration::ZERO };
            match governor.observe(&[cost], TICK)[..] {
                [Verdict::TakeAway] => (is_set, last_taken) = (false, tick),
                [Verdict::SetAgain] => is_set = true,
                _ => {}
            }
        }
        assert!(is_set && (1000..2010).contains(&last_taken), "{last_taken}");
    }

    #[test]
    fn windows_are_not_regular() {
        let mut governor = Governor::new(0.05, 1, 7);
        let mut pauses = Vec::new();
        let (mut is_set, mut since) = (true, 0);
        for tick in 0..20_000 {
            match governor.observe(&[if is_set { TICK } else { Duration::ZERO }], TICK)[..] {
                [Verdict::TakeAway] => (is_set, since) = (false, tick),
                [Verdict::SetAgain] => {
                    is_set = true;
                    pauses.push(tick - since);
                }
                _ => {}
            }
        }
        assert!(pauses.len() > 100, "{}", pauses.len());
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 10, "{pauses:?}");
    }

    #[test]
    fn without_a_bound_nothing_goes() {
        let mut governor = Governor::new(f64::INFINITY, 1, 7);
        for _ in 0..100 {
            assert_eq!(governor.observe(&[TICK], TICK), [Verdict::AsTheyAre]);
        }
    }
}
