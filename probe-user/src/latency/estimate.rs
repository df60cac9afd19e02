//! `Account` and `Estimate`: how often a function was called whose probes were set for a part of the time.
//!
//! Probes slow down what they count, so that calls in a window, divided by its length, are too few. What they do not change
//! is how much processor time of its own a thread needs for a call. So the rate of a thread is
//!
//! ```text
//! its processor time per second without probes / its own processor time per call
//! ```
//!
//! which holds for a thread that does nothing but call (all its time is its own), and for one that idles in between (then
//! idle time bears what the probes cost). Its own time per call is what is left of `A + B - C`: the time per call where only
//! beginnings have probes (A), where only ends have (B), and where both have (C), which only count in all three; that needs no
//! assumption of what a probe costs at these instructions. Where the two cannot be probed apart it is `C` less the cost that
//! was measured at the start.
//!
//! Probes never speed anything up, so that calls per second in any window are a lower bound; and a thread that idles in a
//! window has lost there at most what the probes cost, which is an upper bound.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::probes::Part;

/// By how much a hit may cost more or less than what was measured on a function of our own.
const COST_ERROR: f64 = 0.35;
/// By how much the cost of two probes may be less than the sum of what each costs alone.
const ADDITIVITY: f64 = 0.02;
/// Where threads waited for a processor for this share of the time or more, they make up outside of windows what they have
/// missed within.
const CROWDED: f64 = 0.02;
/// Fewer windows say nothing of how much they vary.
const FEW: f64 = 3.0;
/// Probes that cost this share of one core change little.
const LITTLE: f64 = 0.02;
/// A thread idles that sleeps for this share of a window.
const IDLE: f64 = 0.1;
/// Where probes seem to cost less than this part of what they should, something absorbs it: a thread that spins until it is
/// time.
const ABSORBED: f64 = 0.5;

/// Sums over windows in which one thread was observed; times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// How many windows, and how many of them had calls.
    pub windows: f64,
    busy: f64,
    /// Calls that were seen.
    pub calls: f64,
    /// Hits of probes.
    pub hits: f64,
    /// Length of the windows.
    pub wall: f64,
    /// On a processor.
    pub cpu: f64,
    /// Ready, without one.
    pub waiting: f64,
    /// Squares and products, for how much windows vary.
    squares: Squares,
}

/// Sums of products of what was seen in a window: calls, processor time, length, and length without the time waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Squares {
    calls_calls: f64,
    calls_cpu: f64,
    cpu_cpu: f64,
    calls_wall: f64,
    wall_wall: f64,
    calls_free: f64,
    free_free: f64,
}

/// How much windows vary: a sum of squares, and the degrees of freedom in it. Windows of every mode vary alike, by what else goes on
/// on the host, so that these add up: one mode alone has too few of them.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    squares: f64,
    freedom: f64,
}

/// A quotient of what many windows have seen, and how far the truth may be from it.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    is: f64,
    error: f64,
}

impl Sums {
    /// Of one window.
    pub fn one(calls: u64, hits: u64, wall: f64, cpu: f64, waiting: f64) -> Self {
        let (calls, hits) = (calls as f64, hits as f64);
        let free = wall - waiting;
        let squares = Squares {
            calls_calls: calls * calls,
            calls_cpu: calls * cpu,
            cpu_cpu: cpu * cpu,
            calls_wall: calls * wall,
            wall_wall: wall * wall,
            calls_free: calls * free,
            free_free: free * free,
        };
        let busy = if calls > 0.0 { 1.0 } else { 0.0 };
        Self { windows: 1.0, busy, calls, hits, wall, cpu, waiting, squares }
    }

    fn plus(&mut self, other: &Self, sign: f64) {
        self.windows += sign * other.windows;
        self.busy += sign * other.busy;
        self.calls += sign * other.calls;
        self.hits += sign * other.hits;
        self.wall += sign * other.wall;
        self.cpu += sign * other.cpu;
        self.waiting += sign * other.waiting;
        self.squares.plus(&other.squares, sign);
    }

    /// The usual estimator of a ratio, by what each window differs from it (Cochran, Sampling Techniques, chapter 6): of sums `y`
    /// and `x`, with the sums of their squares and of their products. `None` where too little was seen.
    fn ratio(&self, [y, x]: [f64; 2], [y_y, x_y, x_x]: [f64; 3]) -> Option<Ratio> {
        if self.windows < FEW || self.calls < 1.0 || x <= 0.0 {
            return None;
        }
        let is = y / x;
        let residuals = (y_y - 2.0 * is * x_y + is * is * x_x).max(0.0);
        let freedom = self.windows - 1.0;
        Some(Ratio { is, error: student(freedom) * (residuals / freedom * self.windows).sqrt() / x })
    }

    /// Processor time per call with probes, of which windows vary by this share.
    fn cpu_per_call(&self, vary: Spread) -> Option<Ratio> {
        let is = self.cpu / self.calls;
        let error = student(vary.freedom) * (vary.squares / vary.freedom / self.busy).sqrt() * is;
        (self.calls >= 1.0 && self.busy >= 1.0 && vary.freedom >= FEW).then_some(Ratio { is, error })
    }

    /// By how much, as a share of it, processor time per call differs between windows.
    fn spread(&self) -> Spread {
        if self.busy < 2.0 || self.calls < 1.0 || self.cpu <= 0.0 {
            return Spread::default();
        }
        let Squares { calls_calls, calls_cpu, cpu_cpu, .. } = self.squares;
        let ratio = self.cpu / self.calls;
        let residuals = (cpu_cpu - 2.0 * ratio * calls_cpu + ratio * ratio * calls_calls).max(0.0);
        Spread { squares: residuals * (self.busy / self.cpu).powi(2), freedom: self.busy - 1.0 }
    }

    /// Calls a second with probes.
    fn calls_per_second(&self) -> Option<Ratio> {
        let Squares { calls_calls, calls_wall, wall_wall, .. } = self.squares;
        self.ratio([self.calls, self.wall], [calls_calls, calls_wall, wall_wall])
    }

    /// Calls per second that was neither waited nor spent on probes, if these cost so much for each call.
    fn calls_per_rest(&self, cost: f64) -> Option<Ratio> {
        let Squares { calls_calls, calls_free, free_free, .. } = self.squares;
        let rest = self.wall - self.waiting - cost * self.calls;
        let rest_calls = calls_free - cost * calls_calls;
        let rest_rest = free_free - 2.0 * cost * calls_free + cost * cost * calls_calls;
        self.ratio([self.calls, rest], [calls_calls, rest_calls, rest_rest])
    }

    fn idle(&self) -> f64 {
        (self.wall - self.cpu - self.waiting).max(0.0)
    }
}

impl Squares {
    fn plus(&mut self, other: &Self, sign: f64) {
        let Self { calls_calls, calls_cpu, cpu_cpu, calls_wall, wall_wall, calls_free, free_free } = other;
        self.calls_calls += sign * calls_calls;
        self.calls_cpu += sign * calls_cpu;
        self.cpu_cpu += sign * cpu_cpu;
        self.calls_wall += sign * calls_wall;
        self.wall_wall += sign * wall_wall;
        self.calls_free += sign * calls_free;
        self.free_free += sign * free_free;
    }
}

/// So many standard errors on both sides have the truth between them in 39 of 40 cases, where windows vary as chance does; that
/// leaves room for those that do not. Student's distribution, for few windows wider than the normal one (Abramowitz and
/// Stegun, 26.7.5).
fn student(freedom: f64) -> f64 {
    let (z, by) = (2.24_f64, 1.0 / freedom);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + by * (first + by * (second + by * third))
}

/// What the probes of a function do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They time calls.
    Timed,
    /// Only beginnings have any, and they count calls.
    Begins,
    /// Only ends have any, and they count calls.
    Ends,
    /// Both have some, and they count calls.
    Counted,
}

impl From<Part> for Mode {
    fn from(part: Part) -> Self {
        match part {
            Part::Whole => Self::Timed,
            Part::Begins => Self::Begins,
            Part::Ends => Self::Ends,
        }
    }
}

/// What is known of a thread that calls a function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThreadAccount {
    /// By [`Mode`].
    parts: [Sums; 4],
    /// On a processor and ready for one while there were no probes, and the time in which that was looked at.
    clean_cpu: f64,
    clean_waiting: f64,
    clean_wall: f64,
}

/// What is known of the calls of a function, for an [`Estimate`]. Everything in it only grows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Calls that were only counted: these are not among those that were timed.
    pub passed: u64,
    /// Time without any trap.
    pub clean: Duration,
    /// What a hit costs, as measured on a function of our own, in seconds.
    pub hit_cost: f64,
    /// By thread id.
    pub(super) threads: BTreeMap<u32, ThreadAccount>,
    /// Calls of threads whose processor time was not known yet.
    pub(super) others: Sums,
}

/// How often a function was called.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Most likely.
    pub calls: f64,
    /// At least.
    pub low: f64,
    /// At most; `None` where nothing bounds it.
    pub high: Option<f64>,
}

impl Estimate {
    /// All were seen.
    pub fn exact(calls: u64) -> Self {
        let calls = calls as f64;
        Self { calls, low: calls, high: Some(calls) }
    }
}

impl Account {
    /// A thread was observed in a window.
    pub fn window(&mut self, tid: u32, mode: Mode, sums: &Sums) {
        self.threads.entry(tid).or_default().parts[mode as usize].plus(sums, 1.0);
    }

    /// Threads without a clock made these calls in a window.
    pub fn window_of_others(&mut self, sums: &Sums) {
        self.others.plus(sums, 1.0);
    }

    /// A thread was observed while there were no probes.
    pub fn clean(&mut self, tid: u32, cpu: f64, waiting: f64, wall: f64) {
        let thread = self.threads.entry(tid).or_default();
        thread.clean_cpu += cpu;
        thread.clean_waiting += waiting;
        thread.clean_wall += wall;
    }

    /// What has come since it was as `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut new = self.clone();
        new.passed = self.passed.saturating_sub(before.passed);
        new.clean = self.clean.saturating_sub(before.clean);
        new.others.plus(&before.others, -1.0);
        for (tid, before) in &before.threads {
            if let Some(thread) = new.threads.get_mut(tid) {
                thread.plus(before, -1.0);
            }
        }
        new.threads.retain(|_, thread| thread.clean_wall > 0.0 || thread.parts.iter().any(|part| part.windows > 0.0));
        new
    }

    /// Takes in what another time has brought.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.clean += other.clean;
        self.hit_cost = other.hit_cost;
        self.others.plus(&other.others, 1.0);
        for (tid, thread) in &other.threads {
            self.threads.entry(*tid).or_default().plus(thread, 1.0);
        }
    }

    /// How often a function was called in `elapsed`, of which its probes were set for `attached` and saw this many calls end.
    pub fn estimate(&self, ended: u64, left: u64, elapsed: Duration, attached: Duration) -> Estimate {
        if self.passed == 0 && attached >= elapsed {
            return Estimate::exact(ended);
        }
        // Which of the others were left by a jump or an exception is not known: in proportion.
        let part = if left > 0 { ended as f64 / (ended + left) as f64 } else { 1.0 };
        let begun = self.begun((ended + left + self.passed) as f64, elapsed.as_secs_f64(), attached.as_secs_f64());
        Estimate { calls: part * begun.calls, low: part * begun.low, high: begun.high.map(|high| part * high) }
    }

    /// The same of all calls, where so many were seen; times in seconds.
    fn begun(&self, seen: f64, elapsed: f64, attached: f64) -> Estimate {
        let away = elapsed - attached;
        if away <= 0.0 || attached <= 0.0 {
            return Estimate { calls: seen, low: seen, high: Some(seen) };
        }
        let clean = self.clean.as_secs_f64().min(away);
        // Probes that leave still cost: as many calls as with them.
        let slowed = seen / attached;
        let rate = self.rate(slowed);
        Estimate {
            calls: seen + slowed * (away - clean) + rate.calls * clean,
            low: seen + slowed.min(rate.low) * (away - clean) + rate.low * clean,
            // When the traps went is known as often as it was looked.
            high: rate.high.map(|high| seen + high.max(slowed) * away),
        }
    }

    /// Calls a second without probes, where `slowed` were seen with them.
    fn rate(&self, slowed: f64) -> Estimate {
        let longest = self.threads.values().map(|thread| thread.clean_wall).fold(0.0, f64::max);
        let mut sum = Estimate { high: Some(0.0), ..Estimate::default() };
        let (calls, wall) = (self.others.calls, self.others.wall.max(f64::EPSILON));
        let mut known = 0.0;
        for thread in self.threads.values().filter(|thread| thread.clean_wall > 0.0) {
            let Some(rate) = thread.rate(self.hit_cost) else { continue };
            // A thread that lived for a part of the time.
            let share = thread.clean_wall / longest;
            sum.calls += share * rate.calls;
            sum.low += share * rate.low;
            sum.high = sum.high.zip(rate.high).map(|(sum, high)| sum + share * high);
            known += thread.parts.iter().map(|part| part.calls).sum::<f64>();
        }
        if known <= 0.0 {
            return bounded(slowed, self.others.hits / self.others.calls.max(1.0), self.hit_cost);
        }
        if calls > 0.0 {
            // Those of threads that nobody has a clock of, in proportion.
            let all = self.threads.values().flat_map(|thread| &thread.parts).map(|part| part.calls).sum::<f64>();
            let share = calls / (calls + all);
            let is_first = self.others.windows <= FEW && share < 0.5;
            if !is_first {
                let others = bounded(calls / wall, self.others.hits / calls, self.hit_cost);
                sum.calls += others.calls;
                sum.low += others.low;
                sum.high = sum.high.zip(others.high).map(|(sum, high)| sum + high);
            }
        }
        sum
    }
}

/// Of calls with so many hits each, of which nothing is known but how many there were a second. How much processor time
/// their threads had is not known either, so that nothing bounds them unless their probes cost next to nothing.
fn bounded(rate: f64, hits_per_call: f64, hit_cost: f64) -> Estimate {
    let cost = rate * hits_per_call.max(1.0) * hit_cost;
    if cost > LITTLE {
        return Estimate { calls: rate, low: rate, high: None };
    }
    Estimate { calls: rate / (1.0 - cost), low: rate, high: Some(rate / (1.0 - 2.0 * cost)) }
}

impl ThreadAccount {
    fn plus(&mut self, other: &Self, sign: f64) {
        for (sums, other) in self.parts.iter_mut().zip(&other.parts) {
            sums.plus(other, sign);
        }
        self.clean_cpu += sign * other.clean_cpu;
        self.clean_waiting += sign * other.clean_waiting;
        self.clean_wall += sign * other.clean_wall;
    }

    /// Its calls a second without probes. `None` where too little was seen.
    fn rate(&self, hit_cost: f64) -> Option<Estimate> {
        let [timed, begins, ends, counted] = &self.parts;
        let use_of_cpu = self.clean_cpu / self.clean_wall;
        let seen: f64 = self.parts.iter().map(|part| part.calls).sum();
        if seen < 1.0 {
            let windows: f64 = self.parts.iter().map(|part| part.windows).sum();
            return (windows >= FEW).then_some(Estimate { high: Some(0.0), ..Estimate::default() });
        }
        let spreads = self.parts.iter().map(Sums::spread);
        let vary = spreads.fold(Spread::default(), |sum, one| Spread {
            squares: sum.squares + one.squares,
            freedom: sum.freedom + one.freedom,
        });
        let with = timed.cpu_per_call(vary)?;
        let hits_per_call = timed.hits / timed.calls;
        let expected = hits_per_call * hit_cost;
        // What the probes cost, by parts of a call.
        let apart = begins.cpu_per_call(vary).zip(ends.cpu_per_call(vary)).zip(counted.cpu_per_call(vary));
        let (own, error, cost) = match apart {
            Some(((begins, ends), both)) => {
                let own = begins.is + ends.is - both.is;
                let cost = (with.is - own).max(0.0);
                let noise = both.error.hypot(begins.error).hypot(ends.error);
                (own, noise.hypot(ADDITIVITY * cost), cost)
            }
            None => (with.is - expected, with.error.hypot(COST_ERROR * expected), expected),
        };
        // No probe has made it faster.
        let own = own.min(with.is);
        let per = |own: f64| (own > 0.0).then(|| use_of_cpu / own);
        let (mut low, mut high) = (use_of_cpu / (own.max(0.0) + error), per(own - error));
        let is_wide = high.is_none_or(|high| high > 2.0 * low);
        let slowed = self.parts.iter().filter_map(Sums::calls_per_second);
        let floor = slowed.map(|rate| rate.is - rate.error).fold(0.0, f64::max);
        // The windows in which it idled most. What is known of its waits is as old as the last one that ended, which makes a
        // difference in windows: it has to idle without probes as well.
        let idleness = |part: &&Sums| part.idle() / part.wall.max(f64::EPSILON);
        let idlest =
            self.parts.iter().filter(|part| part.busy > 0.0).max_by(|a, b| idleness(a).total_cmp(&idleness(b)));
        let clean_idle = self.clean_wall - self.clean_cpu - self.clean_waiting;
        let idles = clean_idle > IDLE * self.clean_wall;
        let sum = |of: fn(&Sums) -> f64| self.parts.iter().map(of).sum::<f64>();
        let waiting = self.clean_waiting + sum(|part| part.waiting);
        let is_crowded = waiting > CROWDED * (self.clean_wall + sum(|part| part.wall));
        let mut calls = if 2.0 * own > error { use_of_cpu / own } else { low };
        if let Some(part) = idlest.filter(|part| idles && idleness(part) > IDLE) {
            let rest_of = |part: &Sums| part.calls_per_rest(cost.max(expected) * (1.0 + COST_ERROR));
            let idle = self.parts.iter().filter(|part| idleness(part) > IDLE && !is_crowded);
            let ceiling = idle.filter_map(rest_of).map(|most| most.is + most.error).reduce(f64::min);
            // Where its own time is too little to be told, idle time bears the cost, and makes up for waits.
            calls = if is_wide { part.calls / part.wall } else { calls };
            high = [high, ceiling.filter(|ceiling| *ceiling >= low)].into_iter().flatten().reduce(f64::min);
        } else if apart.is_some() && cost < ABSORBED * expected {
            // It may spin until it is time: then it was called as often as in the best of windows.
            low = low.min(floor);
            calls = calls.min(low.max(floor));
        }
        if high.is_none_or(|high| floor <= high) {
            low = low.max(floor);
        } else {
            // It had more time in windows than without probes: nothing but the windows themselves is sure.
            (low, high) = (low.min(floor), None);
        }
        Some(Estimate { calls: calls.clamp(low, high.unwrap_or(f64::MAX).max(low)), low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What probes cost at beginnings and ends; the second is not what was measured on a function of our own.
    const COSTS: (f64, f64) = (2e-6, 5e-6);
    /// What it takes besides to time a call.
    const TIMING: f64 = 8e-7;

    /// A thread whose calls take so long, and that is to make so many a second at most; with probes in 40 windows of 10 ms.
    fn account(own: f64, pace: f64) -> Account {
        // Windows differ by up to one part in a hundred.
        account_of(40, own, pace, |round| 1.0 + f64::from((round * 7) % 11) / 1000.0 - 0.005)
    }

    /// The same with so many windows, of which each is slower by a factor.
    fn account_of(windows: u32, own: f64, pace: f64, mut noise: impl FnMut(u32) -> f64) -> Account {
        let mut account = Account { clean: Duration::from_secs(9), hit_cost: 3e-6, ..Account::default() };
        for round in 0..windows {
            let (mode, cost, hits) = match round % 4 {
                1 => (Mode::Begins, COSTS.0, 1.0),
                2 => (Mode::Counted, COSTS.0 + COSTS.1, 2.0),
                3 => (Mode::Ends, COSTS.1, 1.0),
                _ => (Mode::Timed, COSTS.0 + COSTS.1 + TIMING, 2.0),
            };
            let noise = noise(round);
            let calls = (0.01 / (own + cost)).min(0.01 * pace);
            let sums = Sums::one(
                calls.round() as u64,
                (calls * hits).round() as u64,
                0.01,
                calls.round() * (own + cost) * noise,
                0.0,
            );
            account.window(1, mode, &sums);
        }
        account.clean(1, 9.0 * (pace * own).min(1.0), 0.0, 9.0);
        account
    }

    fn rate(account: &Account) -> Estimate {
        account.rate(1.0)
    }

    #[test]
    fn a_thread_that_does_nothing_but_call_is_not_slowed_in_the_count() {
        for per_second in [1e3, 2e4, 1e5, 2e5, 5e5] {
            let found = rate(&account(1.0 / per_second, f64::MAX));
            assert!((found.calls / per_second - 1.0).abs() < 0.1, "{per_second}: {found:?}");
            assert!(found.low <= per_second && found.high.is_none_or(|high| high >= per_second), "{found:?}");
        }
    }

    #[test]
    fn the_truth_is_in_the_interval_in_19_of_20_cases() {
        let mut random = fastrand::Rng::with_seed(7);
        // Each kind of window twice, and three times: as many as there are in three seconds.
        for (windows, per_second, noise) in [(8, 2e4, 0.02), (9, 2e4, 0.1), (9, 1e5, 0.02), (12, 5e5, 0.01)] {
            let mut within = 0;
            for _ in 0..400 {
                // Nearly normal, with this standard deviation.
                let mut slower = |_| 1.0 + noise * ((0..12).map(|_| random.f64()).sum::<f64>() - 6.0);
                let found = rate(&account_of(windows, 1.0 / per_second, f64::MAX, &mut slower));
                within += u32::from(found.low <= per_second && found.high.is_none_or(|high| high >= per_second));
            }
            assert!(within >= 380, "{windows} windows of {per_second} a second that vary by {noise}: {within} of 400");
        }
    }

    #[test]
    fn nothing_bounds_a_thread_that_catches_up_on_what_it_missed_while_it_waited() {
        let paced = account(1e-8, 2e4);
        assert!(rate(&paced).high.is_some_and(|high| high >= 2e4), "{:?}", rate(&paced));
        let mut crowded = paced;
        crowded.clean(1, 0.0, 1.0, 1.0);
        assert_eq!(rate(&crowded).high, None);
    }

    #[test]
    fn what_cannot_be_told_is_a_lower_bound() {
        let found = rate(&account(2e-9, f64::MAX));
        assert!(found.low <= 5e8 && found.high.is_none(), "{found:?}");
        assert!(found.low > 1e5 && found.calls >= found.low, "more than any window has seen: {found:?}");
    }

    #[test]
    fn idle_time_bears_what_probes_cost() {
        for pace in [1e3, 2e4, 5e4] {
            let found = rate(&account(1e-6, pace));
            assert!((found.calls / pace - 1.0).abs() < 0.1, "{pace}: {found:?}");
            assert!(found.low <= 1.001 * pace && found.high.is_none_or(|high| high >= pace), "{pace}: {found:?}");
        }
    }

    #[test]
    fn windows_and_the_time_without_probes_make_the_count() {
        let account = account(5e-6, f64::MAX);
        // Ten seconds: 0.4 s with probes, 0.6 s in which they left.
        let found = account.estimate(20_000, 0, Duration::from_secs(10), Duration::from_millis(400));
        let expected = 20_000.0 / 0.4 + 200_000.0 * 9.0;
        assert!((found.calls / expected - 1.0).abs() < 0.1, "{found:?}");
        // None returned but by an exception, or every fourth.
        assert_eq!(account.estimate(0, 20_000, Duration::from_secs(10), Duration::from_millis(400)).calls, 0.0);
        let part = account.estimate(15_000, 5_000, Duration::from_secs(10), Duration::from_millis(400));
        assert!((part.calls / found.calls - 0.75).abs() < 1e-9, "{part:?} {found:?}");
        assert_eq!(account.estimate(7, 0, Duration::from_secs(1), Duration::from_secs(1)), Estimate::exact(7));
        let nothing = Account { clean: Duration::from_secs(1), hit_cost: 3e-6, ..Account::default() };
        let found = nothing.estimate(100_000, 0, Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!((found.low, found.high), (200_000.0, None), "nothing is known of who calls it");
        let found = nothing.estimate(1000, 0, Duration::from_secs(2), Duration::from_secs(1));
        assert!(found.low == 2000.0 && found.high.is_some_and(|high| high < 2020.0), "{found:?}");
    }

    #[test]
    fn accounts_of_parts_of_the_time_add_up() {
        let (first, mut all) = (account(5e-6, f64::MAX), account(5e-6, f64::MAX));
        all.add(&first);
        let rest = all.since(&first);
        assert!((rate(&rest).calls / rate(&first).calls - 1.0).abs() < 1e-6);
        assert_eq!(all.since(&all), Account { hit_cost: 3e-6, ..Account::default() });
    }
}
