//! The timeline: what was measured in the last minute, a reading a second, so that a snapshot shows how it came to the breach.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Readings that are kept of each: as many seconds as a snapshot may span.
const READINGS: usize = 128;
/// What was not measured for so long is forgotten: its process is gone.
const FORGOTTEN_NS: u64 = READINGS as u64 * 1_000_000_000;

/// A process and its host at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Monotonic clock, nanoseconds.
    pub(super) at_ns: u64,
    /// CPU use of the process in percent of one core.
    pub(super) cpu_percent: f64,
    /// Its resident memory in bytes.
    pub(super) rss_bytes: u64,
    /// How many threads it has.
    pub(super) threads: u64,
    /// Share of all the host's processors at work, in percent.
    pub(super) host_cpu_percent: f64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    of: Mutex<BTreeMap<u32, Readings>>,
}

#[derive(Debug, Default)]
struct Readings {
    /// Nobody else has to be told which rules there are.
    is_known: bool,
    process: VecDeque<Reading>,
    /// By the names of rules, in the order in which they were applied first: a few.
    rules: Vec<(String, Values)>,
}

/// What a rule has looked at.
#[derive(Debug, Default)]
struct Values {
    /// Time and value.
    measured: VecDeque<(u64, f64)>,
    /// The latest; `None` if it could not be measured.
    latest: Option<f64>,
}

impl Readings {
    fn of_rule(&self, name: &str) -> Option<&Values> {
        self.rules.iter().find(|(known, _)| known == name).map(|(_, values)| values)
    }

    /// True if the rule is new.
    fn push(&mut self, at: usize, name: &str, at_ns: u64, value: Option<f64>) -> bool {
        // Nearly always they come in the same order.
        let is_there = |at: &usize| self.rules.get(*at).is_some_and(|(known, _)| known == name);
        let known = Some(at).filter(is_there).or_else(|| self.rules.iter().position(|(known, _)| known == name));
        let values = match known {
            Some(at) => &mut self.rules[at].1,
            None => {
                self.rules.push((name.to_owned(), Values::default()));
                let last = self.rules.len() - 1;
                &mut self.rules[last].1
            }
        };
        values.latest = value;
        if let Some(value) = value {
            push(&mut values.measured, (at_ns, value));
        }
        known.is_none()
    }
}

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Readings>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process was measured.
    pub(super) fn process(&self, pid: u32, reading: Reading) {
        push(&mut self.lock().entry(pid).or_default().process, reading);
    }

    /// Rules were applied to a process, to these values. True if one of them is new to it, or it was [`Self::renew`]ed.
    pub(super) fn rules<'a>(&self, pid: u32, at_ns: u64, values: impl Iterator<Item = (&'a str, Option<f64>)>) -> bool {
        let mut of = self.lock();
        let readings = of.entry(pid).or_default();
        let mut is_new = !std::mem::replace(&mut readings.is_known, true);
        for (at, (rule, value)) in values.enumerate() {
            is_new |= readings.push(at, rule, at_ns, value);
        }
        is_new
    }

    /// What a rule has seen of a process last, if it has looked at it.
    pub(super) fn latest(&self, pid: u32, rule: &str) -> Option<Option<f64>> {
        Some(self.lock().get(&pid)?.of_rule(rule)?.latest)
    }

    /// What is applied next to these processes is new to them.
    pub(super) fn renew(&self, is_meant: impl Fn(u32) -> bool) {
        for (_, readings) in self.lock().iter_mut().filter(|(pid, _)| is_meant(**pid)) {
            readings.is_known = false;
        }
    }

    /// What was measured of a process from one time to another, each with the value of a rule if there was one.
    pub(super) fn between(&self, pid: u32, rule: &str, from_ns: u64, to_ns: u64) -> Vec<(Reading, Option<f64>)> {
        let of = self.lock();
        let Some(readings) = of.get(&pid) else { return Vec::new() };
        let values = readings.of_rule(rule).map(|values| &values.measured);
        let value = |reading: &Reading| {
            // Of the same second: both are measured one after the other.
            let near = |at_ns: u64| at_ns.abs_diff(reading.at_ns) < 500_000_000;
            values?.iter().find(|(at_ns, _)| near(*at_ns)).map(|(_, value)| *value)
        };
        let inside = readings.process.iter().filter(|reading| (from_ns..=to_ns).contains(&reading.at_ns));
        inside.map(|reading| (*reading, value(reading))).collect()
    }

    /// Forgets processes that were not measured lately.
    pub(super) fn trim(&self, now_ns: u64) {
        let is_recent = |readings: &Readings| {
            let last = readings.process.back().map(|reading| reading.at_ns);
            let last = last.max(readings.rules.iter().filter_map(|(_, values)| Some(values.measured.back()?.0)).max());
            last.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < FORGOTTEN_NS)
        };
        self.lock().retain(|_, readings| is_recent(readings));
    }
}

fn push<T>(readings: &mut VecDeque<T>, reading: T) {
    if readings.len() >= READINGS {
        readings.pop_front();
    }
    readings.push_back(reading);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_rule_stands_beside_the_process_in_its_time() {
        let timeline = Timeline::default();
        for second in 1..300 {
            let at_ns = second * SECOND;
            timeline.process(7, Reading { at_ns, cpu_percent: second as f64, ..Reading::default() });
            if second % 2 == 0 {
                let is_new =
                    timeline.rules(7, at_ns + 1000, [("cold", None), ("hot", Some(second as f64 / 2.0))].into_iter());
                assert_eq!(is_new, second == 2);
            }
        }
        assert_eq!((timeline.latest(7, "hot"), timeline.latest(7, "cold")), (Some(Some(149.0)), Some(None)));
        timeline.renew(|pid| pid == 7);
        let hot = || [("hot", Some(1.0))].into_iter();
        assert_eq!([(); 2].map(|()| timeline.rules(7, 298 * SECOND + 2000, hot())), [true, false]);
        let seen = timeline.between(7, "hot", 290 * SECOND, 292 * SECOND);
        let seen: Vec<_> = seen.into_iter().map(|(reading, value)| (reading.cpu_percent, value)).collect();
        assert_eq!(seen, [(290.0, Some(145.0)), (291.0, None), (292.0, Some(146.0))]);
        assert_eq!(timeline.between(7, "hot", 0, u64::MAX).len(), READINGS);
        assert!(timeline.between(8, "hot", 0, u64::MAX).is_empty());
        timeline.trim(300 * SECOND);
        assert!(!timeline.between(7, "hot", 0, u64::MAX).is_empty());
        timeline.trim(299 * SECOND + FORGOTTEN_NS);
        assert!(timeline.between(7, "hot", 0, u64::MAX).is_empty());
    }
}
