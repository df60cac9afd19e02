//! How fast a value grows, whatever single readings say: the Theil-Sen estimate, the median of the slopes between all pairs of
//! readings. Up to 29 % of them may be anything.

use std::collections::VecDeque;

/// How far back readings count, in nanoseconds.
const WINDOW_NS: u64 = 60 * SECOND_NS;
/// Readings that span less say nothing.
const SPAN_NS: u64 = 10 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
/// Most readings that are kept: the pairs of these are 1,830.
const READINGS: usize = 61;
const MINUTE_S: f64 = 60.0;

/// The latest readings of a value.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    readings: VecDeque<(u64, f64)>,
}

impl Trend {
    /// Takes a reading in, later than all others.
    pub fn add(&mut self, at_ns: u64, value: f64) {
        let oldest = at_ns.saturating_sub(WINDOW_NS);
        while self.readings.len() >= READINGS || self.readings.front().is_some_and(|(at, _)| *at < oldest) {
            self.readings.pop_front();
        }
        self.readings.push_back((at_ns, value));
    }

    /// The growth of the value in a minute; `None` before there are readings of 10 seconds. What was a step has stopped
    /// growing, though half a minute later most pairs span it: of the whole time and its last third, the lesser growth counts.
    pub fn per_minute(&self) -> Option<f64> {
        let (first, last) = (self.readings.front()?.0, self.readings.back()?.0);
        if last.saturating_sub(first) < SPAN_NS {
            return None;
        }
        let value = self.readings[0].1;
        if self.readings.iter().all(|(_, other)| *other == value) {
            // As of most processes most of the time.
            return Some(0.0);
        }
        let (whole, lately) = (self.median_slope(first)?, self.median_slope(last - (last - first) / 3)?);
        let lesser = if whole.abs() < lately.abs() { whole } else { lately };
        Some(if whole * lately > 0.0 { lesser * MINUTE_S } else { 0.0 })
    }

    /// The median of the slopes between readings from a time on, in a second.
    fn median_slope(&self, from_ns: u64) -> Option<f64> {
        let readings = || self.readings.iter().filter(move |(at, _)| *at >= from_ns);
        let mut slopes = Vec::with_capacity(self.readings.len() * self.readings.len() / 2);
        for (index, (begin, low)) in readings().enumerate() {
            for (end, high) in readings().skip(index + 1).filter(|(end, _)| end > begin) {
                slopes.push((high - low) / ((end - begin) as f64 / SECOND_NS as f64));
            }
        }
        let middle = slopes.len() / 2;
        (!slopes.is_empty()).then(|| *slopes.select_nth_unstable_by(middle, f64::total_cmp).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The growth after one reading a second.
    fn growth(values: impl IntoIterator<Item = f64>) -> Option<f64> {
        let mut trend = Trend::default();
        for (second, value) in (100..).zip(values) {
            trend.add(second * SECOND_NS, value);
        }
        trend.per_minute()
    }

    #[test]
    fn a_steady_growth_is_its_slope() {
        assert_eq!(growth((0..=10).map(f64::from)), Some(60.0));
        assert_eq!(growth((0..200).map(|second| 1e9 - 3.0 * f64::from(second))), Some(-180.0));
        assert_eq!(growth([5.0; 30]), Some(0.0));
    }

    #[test]
    fn a_step_that_is_over_is_no_growth() {
        for calm in [5, 20, 30, 50] {
            let step = (0..60).map(|second| if second < 60 - calm { 1e9 } else { 2e9 });
            assert_eq!(growth(step), Some(0.0), "{calm} seconds ago");
        }
        let begins = (0..60).map(|second| 1e9 + 1e6 * f64::from((second - 25).max(0)));
        assert!(growth(begins).is_some_and(|growth| growth > 30e6), "it goes on, for more than half of the time");
    }

    #[test]
    fn too_few_readings_are_none() {
        assert_eq!(growth([]), None);
        assert_eq!(growth((0..10).map(f64::from)), None);
        let mut trend = Trend::default();
        (0..20).for_each(|_| trend.add(7, 1.0));
        assert_eq!(trend.per_minute(), None, "all at one time");
    }

    #[test]
    fn outliers_do_not_move_it() {
        let peaks = |second: u32| if second.is_multiple_of(5) { 1e6 } else { 2.0 * f64::from(second) };
        let found = growth((1..60).map(peaks)).expect("a value");
        assert!((found - 120.0).abs() < 15.0, "{found}");
        // A step, as a cache that is filled at once, is no growth.
        let step = |second: u32| if second < 40 { 10.0 } else { 1e6 };
        assert_eq!(growth((0..61).map(step)), Some(0.0));
    }

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let bend = |second: u32| if second < 100 { 50.0 * f64::from(second) } else { 5000.0 };
        assert_eq!(growth((0..170).map(bend)), Some(0.0));
        let mut trend = Trend::default();
        trend.add(SECOND_NS, 1.0);
        trend.add(500 * SECOND_NS, 9.0);
        assert_eq!(trend.per_minute(), None, "after a stall it begins again");
    }
}
