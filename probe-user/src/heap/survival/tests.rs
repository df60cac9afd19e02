//! Simulated programs: what is estimated is compared with what they really have in use.

use super::*;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// xorshift.
struct Random(u64);

impl Random {
    fn even(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.even()).ln() * mean
    }
}

/// Windows of some milliseconds, for a share of the time, as a governor sets them.
fn windows(random: &mut Random, share: f64, end_ns: u64) -> Vec<Window> {
    if share >= 1.0 {
        return vec![Window { from_ns: 0, to_ns: end_ns, is_joined: false }];
    }
    let (mut windows, mut at) = (Vec::new(), 0);
    while at < end_ns {
        let length = 5 * MILLISECOND + random.exponential(5e6) as u64;
        windows.push(Window { from_ns: at, to_ns: (at + length).min(end_ns), is_joined: false });
        let gap = length as f64 * (1.0 - share) / share;
        at += length + (gap * (0.3 + 1.4 * random.even())) as u64;
    }
    windows
}

/// A stack: bytes a second, and how long objects live, in nanoseconds.
type Stack<'a> = (f64, &'a dyn Fn(&mut Random) -> u64);

/// What is sampled of it, one object in 4 KiB, and the bytes that are really in use at the end.
fn run(random: &mut Random, stacks: &[Stack<'_>], windows: &[Window], end_ns: u64) -> (Vec<Vec<Object>>, Vec<f64>) {
    const BYTES: f64 = 4096.0;
    let share = windows.iter().map(|window| window.to_ns - window.from_ns).sum::<u64>() as f64 / end_ns as f64;
    let is_seen = |at: u64| windows.iter().any(|window| (window.from_ns..=window.to_ns).contains(&at));
    let (mut cohorts, mut truth) = (Vec::new(), Vec::new());
    for (rate, lifetime) in stacks {
        let (mut objects, mut in_use, mut at) = (Vec::new(), 0.0, 0.0);
        loop {
            at += random.exponential(1e9 * BYTES / rate);
            if at >= end_ns as f64 {
                break;
            }
            let allocated_ns = at as u64;
            let dies = allocated_ns.saturating_add(lifetime(random));
            in_use += if dies > end_ns { BYTES } else { 0.0 };
            if !is_seen(allocated_ns) {
                continue;
            }
            let ended = (dies <= end_ns && is_seen(dies)).then_some((dies, false));
            objects.push(Object { allocated_ns, ended, bytes: BYTES, scaled: BYTES / share, chance: 0.1 });
        }
        cohorts.push(objects);
        truth.push(in_use);
    }
    (cohorts, truth)
}

fn per_cohort(cohorts: &[Vec<Object>], estimate: &Estimate) -> Vec<f64> {
    let sum = |(objects, alive): (&Vec<Object>, &Vec<f64>)| {
        objects.iter().zip(alive).map(|(object, alive)| object.scaled * alive).sum()
    };
    cohorts.iter().zip(&estimate.alive).map(sum).collect()
}

const MB: f64 = 1e6;

#[test]
fn a_leak_is_found_among_ten_times_as_much_churn_whatever_the_share() {
    let leak = |_: &mut Random| u64::MAX;
    let short = |random: &mut Random| random.exponential(3e5) as u64;
    let requests = |random: &mut Random| 100 * MILLISECOND + random.exponential(2e8) as u64;
    let middle = |random: &mut Random| random.exponential(2e6) as u64;
    for share in [0.01, 0.05, 0.3, 1.0] {
        let mut random = Random(7);
        let end_ns = 15 * SECOND;
        let windows = windows(&mut random, share, end_ns);
        // Of lives that are longer than windows and shorter than gaps nobody sees anything but the reuse of addresses.
        let other: &dyn Fn(&mut Random) -> u64 = if share < 0.03 { &middle } else { &requests };
        let stacks: [Stack<'_>; 3] = [(10.0 * MB, &short), (2.0 * MB, &leak), (10.0 * MB, other)];
        let (cohorts, truth) = run(&mut random, &stacks, &windows, end_ns);
        let estimate = in_use(&cohorts, &windows, end_ns, end_ns);
        let found = per_cohort(&cohorts, &estimate);
        let ratio = found[1] / truth[1];
        assert!(found[1] > 1.5 * found[0] && found[1] > 1.5 * found[2], "{share}: {found:?} of {truth:?}");
        let margin = if share < 0.03 { 0.5 } else { 0.25 };
        assert!((1.0 - margin..1.0 + margin).contains(&ratio), "{share}: {found:?} of {truth:?}");
        if share >= 1.0 {
            let unseen = found.iter().zip(&truth).map(|(found, truth)| (found - truth).abs()).sum::<f64>();
            assert!(unseen < 1.0, "all was seen: {found:?} of {truth:?}");
        }
    }
}

#[test]
fn the_interval_holds_the_truth_in_most_cases() {
    let leak = |_: &mut Random| u64::MAX;
    let short = |random: &mut Random| random.exponential(1e6) as u64;
    let mut held = 0;
    let mut widths = Vec::new();
    for seed in 1..=20 {
        let mut random = Random(seed * 7919);
        let end_ns = 20 * SECOND;
        let windows = windows(&mut random, 0.05, end_ns);
        let stacks: [Stack<'_>; 2] = [(1.0 * MB, &leak), (5.0 * MB, &short)];
        let (cohorts, truth) = run(&mut random, &stacks, &windows, end_ns);
        let estimate = in_use(&cohorts, &windows, end_ns, end_ns);
        let truth: f64 = truth.iter().sum();
        held += usize::from(estimate.interval.0 <= truth && truth <= estimate.interval.1);
        widths.push(estimate.interval.1 / estimate.interval.0);
    }
    assert!(held >= 16, "{held} of 20");
    assert!(widths.iter().all(|width| (1.01..4.0).contains(width)), "{widths:?}");
}

#[test]
fn those_that_were_all_seen_freed_are_innocent() {
    let windows = [
        Window { from_ns: 0, to_ns: SECOND, is_joined: false },
        Window { from_ns: 9 * SECOND, to_ns: 10 * SECOND, is_joined: false },
    ];
    let object =
        |at: u64, ended| Object { allocated_ns: at * MILLISECOND, ended, bytes: 4096.0, scaled: 8192.0, chance: 0.1 };
    let freed = |at: u64| object(at, Some(((at + 1) * MILLISECOND, false)));
    let cohorts = [(0..50).map(freed).collect(), (0..50).map(|at| object(at, None)).collect::<Vec<_>>()];
    let estimate = in_use(&cohorts, &windows, 10 * SECOND, 10 * SECOND);
    let found = per_cohort(&cohorts, &estimate);
    assert_eq!(found[0], 0.0);
    assert!(found[1] > 0.95 * 50.0 * 8192.0, "{found:?}");
    let (low, high) = estimate.interval;
    assert!(low < estimate.bytes && estimate.bytes < high, "{estimate:?}");
    // What is younger than was asked for does not count.
    let older = in_use(&cohorts, &windows, 10 * SECOND, 24 * MILLISECOND);
    assert!((older.bytes / estimate.bytes - 0.5).abs() < 0.01, "{} of {}", older.bytes, estimate.bytes);
}

#[test]
fn addresses_that_are_handed_out_again_are_evidence() {
    // Lives of 30 ms, in windows of 10 ms that are 100 ms apart: nobody sees anything freed.
    let windows: Vec<Window> = (0..100)
        .map(|n| Window { from_ns: n * 100 * MILLISECOND, to_ns: (n * 100 + 10) * MILLISECOND, is_joined: false })
        .collect();
    let cohort = |is_reused: bool| {
        let object = |n: u64| Object {
            allocated_ns: (n * 100 + 5) * MILLISECOND,
            ended: (is_reused && n < 98).then_some(((n + 2) * 100 * MILLISECOND, true)),
            bytes: 4096.0,
            scaled: 40960.0,
            chance: 0.1,
        };
        (0..100).map(object).collect::<Vec<_>>()
    };
    let cohorts = [cohort(true), cohort(false)];
    let found = per_cohort(&cohorts, &in_use(&cohorts, &windows, 10 * SECOND, 10 * SECOND));
    assert!(found[0] <= 3.0 * 40960.0 && found[1] > 90.0 * 40960.0, "{found:?}");
}

#[test]
fn nothing_known_is_nothing_in_use() {
    assert_eq!(in_use(&[], &[], 7, 7), Estimate::default());
    let object = Object { allocated_ns: 5, ended: None, bytes: 10.0, scaled: 10.0, chance: 1.0 };
    let estimate = in_use(&[vec![object]], &[], 7, 7);
    assert_eq!((estimate.bytes, estimate.interval), (10.0, (10.0, 10.0)), "all that can be said");
}
