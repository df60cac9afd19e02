//! `Row`: what is shown of a function.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use crate::kernel::Figures;

/// The figures of a function; times in nanoseconds, `None` without a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Calls that ended; an estimate where the probes were not set all the time.
    pub calls: u64,
    /// At least so many.
    pub calls_low: u64,
    /// At most so many; `None` where nothing bounds them: then the probes cost so much more than the calls that only a lower
    /// bound can be told.
    pub calls_high: Option<u64>,
    /// Calls a second.
    pub rate: f64,
    /// At least so many a second.
    pub rate_low: f64,
    /// At most so many a second; `None` as `calls_high`.
    pub rate_high: Option<f64>,
    /// Calls that ended as an error; an estimate like `calls`.
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
    /// What the probes cost while they were set, a share of one core.
    pub load: f64,
    /// Calls that were left by an exception or a jump.
    pub left: u64,
    /// Calls that could not be followed.
    pub missed: u64,
    /// Calls that ended because their thread did, or became another program: they are among `calls`, and among the times
    /// with the time until then.
    pub thread_ended: u64,
    /// Why it is not timed, or no longer: a patched function for example. Empty where it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
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
    /// How many calls ended in all of that time.
    pub estimate: Estimate,
    /// Calls that have not returned, and the age of the oldest in nanoseconds.
    pub in_flight: (u64, Option<u64>),
    /// Whether there is a threshold.
    pub has_threshold: bool,
}

impl Row {
    /// A share of the time from which on the probes were set all the time.
    const ALL: f64 = 0.995;
    /// An interval whose ends differ by more than this factor is told by its lower end only.
    const WIDE: f64 = 1.5;

    /// The same where processes that have the function ran for so long without probes, beside the time in which it was timed: how
    /// often they called it meanwhile nobody knows.
    pub fn with_unseen(self, timed: Duration, unseen: Duration) -> Self {
        let share = timed.as_secs_f64() / (timed + unseen).as_secs_f64().max(f64::EPSILON);
        let attached_share = share * self.attached_share;
        if share >= Self::ALL {
            return Self { attached_share, ..self };
        }
        let (calls, rate) = (self.calls_low, self.rate_low);
        Self { attached_share, calls, rate, calls_high: None, rate_high: None, ..self }
    }

    /// True if every call was seen.
    pub fn is_exact(&self) -> bool {
        self.attached_share >= Self::ALL
    }

    /// What stands before the number of calls: nothing if it is exact, `~` for an estimate, `≥` where little more than a lower
    /// bound is known; the number that is meant is [`Self::calls`], or [`Self::calls_low`].
    pub fn mark(&self) -> &'static str {
        let is_wide = self.calls_high.is_none_or(|high| high as f64 > Self::WIDE * self.calls_low as f64);
        match self.is_exact() {
            true => "",
            false if is_wide => "≥",
            false => "~",
        }
    }

    /// Of a function in which no probe may be set.
    pub fn refused(pid: u32, name: &str, reason: &str) -> Self {
        Self { pid, name: name.to_owned(), problem: reason.to_owned(), ..Self::default() }
    }

    /// Whether nothing is known of it because no probe may be set.
    pub fn is_refused(&self) -> bool {
        !self.problem.is_empty() && self.attached_share == 0.0
    }

    /// From the figures of a function.
    pub fn new(pid: u32, name: &str, figures: &Figures, frame: &Frame) -> Self {
        let estimate = frame.estimate;
        let scale = if figures.calls > 0 { estimate.calls / figures.calls as f64 } else { 0.0 };
        // What is only counted has none.
        let has_times = !figures.histogram.is_empty();
        // Figures are read while calls end: there may be a time more than there are calls.
        let seen = has_times.then_some(figures.calls.max(1));
        let seconds = frame.elapsed.as_secs_f64().max(1e-9);
        let rate = |calls: f64| (10.0 * calls / seconds).round() / 10.0;
        Self {
            name: name.to_owned(),
            pid,
            calls: estimate.calls.round() as u64,
            calls_low: estimate.low.floor() as u64,
            calls_high: estimate.high.map(|high| high.ceil() as u64),
            rate: rate(estimate.calls),
            rate_low: rate(estimate.low),
            rate_high: estimate.high.map(rate),
            errors: (figures.errors as f64 * scale).round() as u64,
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
            thread_ended: figures.thread_ended,
            problem: String::new(),
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
            estimate: Estimate { calls: 400.0, low: 380.0, high: Some(450.0) },
            in_flight: (1, Some(7)),
            has_threshold: true,
        };
        let row = Row::new(1, "f", &figures, &frame);
        assert_eq!((row.calls, row.rate, row.errors, row.avg_ns), (400, 200.0, 40, Some(50)));
        assert_eq!((row.attainment, row.in_flight, row.oldest_ns), (Some(0.9), 1, Some(7)));
        assert_eq!((row.calls_low, row.calls_high, row.rate_low, row.mark()), (380, Some(450), 190.0, "~"));
        let wide = |high| Row { calls_high: high, ..row.clone() }.mark();
        assert_eq!((wide(None), wide(Some(1000))), ("≥", "≥"));
        assert_eq!(Row { attached_share: 1.0, ..row.clone() }.mark(), "");
        assert_eq!(row.histogram, [Step { up_to_ns: 1, calls: 100 }]);
        let empty = Row::new(
            1,
            "f",
            &Figures::default(),
            &Frame { has_threshold: false, estimate: Estimate::exact(0), ..frame },
        );
        assert_eq!((empty.calls, empty.avg_ns, empty.attainment), (0, None, None));
    }
}
