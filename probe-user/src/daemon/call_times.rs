//! `CallTimes`: how long calls of timed functions took in the last ten minutes, so that a slow call can be compared with those of
//! a calm time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the registry publishes each second is of so long.
const SPAN_NS: u64 = 10_000_000_000;
/// Such spans that are kept, one after the other: as far back as calm stretches may be.
const SPANS: usize = 66;
/// The latest, one a second: as long as a breach and its end take, most often.
const LATEST: usize = 64;
/// Of a function that was not seen for so long nothing is kept.
const FORGOTTEN_NS: u64 = SPANS as u64 * SPAN_NS;

/// Calls that ended in the ten seconds before a time.
#[derive(Clone, Copy, Debug)]
struct Span {
    at_ns: u64,
    calls: u64,
    avg_ns: u64,
}

#[derive(Debug, Default)]
struct Times {
    spans: VecDeque<Span>,
    latest: VecDeque<Span>,
    seen_ns: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct CallTimes {
    of: Mutex<BTreeMap<(u32, Arc<str>), Times>>,
}

impl CallTimes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u32, Arc<str>), Times>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen of functions of processes in the last ten seconds: calls, and how long they took on average.
    pub(super) fn add<'a>(&self, at_ns: u64, seen: impl Iterator<Item = (&'a (u32, Arc<str>), u64, Option<u64>)>) {
        let mut of = self.lock();
        for (key, calls, avg_ns) in seen {
            if !of.contains_key(key) {
                of.insert(key.clone(), Times::default());
            }
            let Some(times) = of.get_mut(key) else { continue };
            times.seen_ns = at_ns;
            let Some(avg_ns) = avg_ns.filter(|_| calls > 0) else { continue };
            let span = Span { at_ns, calls, avg_ns };
            push(&mut times.latest, span, LATEST);
            if times.spans.back().is_none_or(|last| at_ns.saturating_sub(last.at_ns) >= SPAN_NS) {
                push(&mut times.spans, span, SPANS);
            }
        }
        of.retain(|_, times| at_ns.saturating_sub(times.seen_ns) < FORGOTTEN_NS);
    }

    /// Of the calls that ended from one time to another: how many there were, and how long they took on average. Known to
    /// ten seconds.
    pub(super) fn between(&self, pid: u32, function: &str, from_ns: u64, to_ns: u64) -> Option<(u64, u64)> {
        let of = self.lock();
        let times = of.get(&(pid, function.into()))?;
        let inside: Vec<&Span> =
            times.spans.iter().filter(|span| span.at_ns > from_ns && span.at_ns <= to_ns).collect();
        let calls: u64 = inside.iter().map(|span| span.calls).sum();
        let total: f64 = inside.iter().map(|span| span.calls as f64 * span.avg_ns as f64).sum();
        (calls > 0).then(|| (calls, (total / calls as f64) as u64))
    }

    /// The longest average of ten seconds that end from one time to another: of those that are all of a breach, if there are.
    pub(super) fn longest(&self, pid: u32, function: &str, from_ns: u64, to_ns: u64) -> Option<u64> {
        let of = self.lock();
        let latest = of.get(&(pid, function.into()))?.latest.iter();
        latest.filter(|span| span.at_ns > from_ns && span.at_ns <= to_ns).map(|span| span.avg_ns).max()
    }

    /// How long calls took that ended last before a time: in the ten seconds before it.
    pub(super) fn before(&self, pid: u32, function: &str, at_ns: u64) -> Option<u64> {
        let of = self.lock();
        let latest = of.get(&(pid, function.into()))?.latest.iter().rev();
        let mut before = latest.filter(|span| span.at_ns <= at_ns && span.at_ns + SPAN_NS > at_ns);
        before.next().map(|span| span.avg_ns)
    }
}

fn push(spans: &mut VecDeque<Span>, span: Span, most: usize) {
    if spans.len() >= most {
        spans.pop_front();
    }
    spans.push_back(span);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn calls_of_a_calm_time_are_told_from_those_of_the_breach() {
        let times = CallTimes::default();
        let key: (u32, Arc<str>) = (7, "deliver".into());
        for second in 1..=300 {
            let (calls, avg) = if second <= 290 { (100, Some(2)) } else { (10, Some(93)) };
            times.add(second * SECOND, [(&key, calls, avg)].into_iter());
        }
        assert_eq!(times.between(7, "deliver", 60 * SECOND, 120 * SECOND), Some((600, 2)));
        assert_eq!(times.between(7, "other", 0, 300 * SECOND), None);
        assert_eq!(times.longest(7, "deliver", 290 * SECOND, 300 * SECOND), Some(93));
        assert_eq!(
            (times.before(7, "deliver", 290 * SECOND), times.before(7, "deliver", 400 * SECOND)),
            (Some(2), None)
        );
        times.add(301 * SECOND, [(&key, 0, None)].into_iter());
        assert_eq!(times.between(7, "deliver", 300 * SECOND, 310 * SECOND), None, "no call, no time");
        times.add(2000 * SECOND, std::iter::empty());
        assert!(times.lock().is_empty());
    }
}
