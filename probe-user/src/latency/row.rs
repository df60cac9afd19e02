//! `Row`: what is shown of a function.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::Figures;

/// The figures of a function; times in nanoseconds, `None` without a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Calls that ended; scaled up where the probes were not set all the time.
    pub calls: u64,
    /// Calls a second.
    pub rate: f64,
    /// Calls that ended as an error; scaled like `calls`.
    pub errors: u64,
    /// Average of the calls that were seen, as all times.
    pub avg_ns: Option<u64>,
    /// Shortest.
    pub min_ns: Option<u64>,
    /// Longest.
    pub max_ns: Option<u64>,
    /// Median.
    pub p50_ns: Option<u64>,
    /// 90 % are not longer.
    pub p90_ns: Option<u64>,
    /// 99 %.
    pub p99_ns: Option<u64>,
    /// 99.9 %.
    pub p999_ns: Option<u64>,
    /// The share of calls within the threshold, from 0 to 1; `None` without a threshold.
    pub attainment: Option<f64>,
    /// Calls that have not returned.
    pub in_flight: u64,
    /// How long the oldest of them has been going on.
    pub oldest_ns: Option<u64>,
    /// The share of the time in which the probes were set, from 0 to 1.
    pub attached_share: f64,
    /// What the probes cost while calls were counted, a share of one core: from [`Self::MUCH`] on they slow down what they count.
    pub load: f64,
    /// Calls that were left by an exception or a jump.
    pub left: u64,
    /// Calls that could not be followed.
    pub missed: u64,
    /// The calls that were seen by how long they took, the shortest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histogram: Vec<Step>,
}

/// Calls that took about as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LatencyStep")]
pub struct Step {
    /// So long at most, in nanoseconds; at least that divided by the fourth root of two.
    pub up_to_ns: u64,
    /// How many there were. Not scaled.
    pub calls: u64,
}

/// What a row is made of besides the figures.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Since when the function is timed.
    pub elapsed: Duration,
    /// The share of that time in which the probes were set.
    pub attached_share: f64,
    /// What the probes cost meanwhile, a share of one core.
    pub load: f64,
    /// Calls that have not returned, and the age of the oldest in nanoseconds.
    pub in_flight: (u64, Option<u64>),
    /// Whether there is a threshold.
    pub has_threshold: bool,
}

impl Row {
    /// A [`Self::load`] from which on [`Self::calls`] may be too few by much.
    pub const MUCH: f64 = 0.3;

    /// From the figures of a function.
    pub fn new(pid: u32, name: &str, figures: &Figures, frame: &Frame) -> Self {
        let scaled = |count: u64| (count as f64 / frame.attached_share.max(1e-6)).round() as u64;
        // What is only counted has none.
        let has_times = !figures.histogram.is_empty();
        // Figures are read while calls end: there may be a time more than there are calls.
        let seen = has_times.then_some(figures.calls.max(1));
        let (calls, seconds) = (scaled(figures.calls), frame.elapsed.as_secs_f64().max(1e-9));
        Self {
            name: name.to_owned(),
            pid,
            calls,
            rate: (10.0 * calls as f64 / seconds).round() / 10.0,
            errors: scaled(figures.errors),
            avg_ns: seen.map(|calls| figures.total_ns / calls),
            min_ns: seen.map(|_| figures.min_ns),
            max_ns: seen.map(|_| figures.max_ns),
            p50_ns: figures.quantile(0.5),
            p90_ns: figures.quantile(0.9),
            p99_ns: figures.quantile(0.99),
            p999_ns: figures.quantile(0.999),
            attainment: seen
                .filter(|_| frame.has_threshold)
                .map(|calls| (figures.within as f64 / calls as f64).min(1.0)),
            in_flight: frame.in_flight.0,
            oldest_ns: frame.in_flight.1,
            attached_share: frame.attached_share,
            load: frame.load,
            left: figures.left,
            missed: figures.missed,
            histogram: figures.steps().into_iter().map(|(up_to_ns, calls)| Step { up_to_ns, calls }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_scaled_and_times_are_not() {
        let figures = Figures {
            calls: 100,
            errors: 10,
            within: 90,
            total_ns: 5000,
            min_ns: 1,
            max_ns: 99,
            histogram: vec![(0, 100)],
            ..Figures::default()
        };
        let frame = Frame {
            elapsed: Duration::from_secs(2),
            attached_share: 0.25,
            load: 0.5,
            in_flight: (1, Some(7)),
            has_threshold: true,
        };
        let row = Row::new(1, "f", &figures, &frame);
        assert_eq!((row.calls, row.rate, row.errors, row.avg_ns), (400, 200.0, 40, Some(50)));
        assert_eq!((row.attainment, row.in_flight, row.oldest_ns), (Some(0.9), 1, Some(7)));
        assert_eq!(row.histogram, [Step { up_to_ns: 1, calls: 100 }]);
        let empty = Row::new(1, "f", &Figures::default(), &Frame { has_threshold: false, ..frame });
        assert_eq!((empty.calls, empty.avg_ns, empty.attainment), (0, None, None));
    }
}
