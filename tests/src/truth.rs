//! What calls took by the clock of the program that made them. A machine that does much else keeps a program waiting for
//! longer than it asked for, so that what a test may expect is this, and not the time for which the program meant to sleep.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

/// By how much a profiler's figure may differ from the program's own: a bucket of its histogram, and what probes cost.
const BELOW: f64 = 0.97;
const ABOVE: f64 = 1.05;
/// And by how much however short a call is, in nanoseconds.
const TRAPS: f64 = 100e3;

/// Calls of one name, since the program began.
#[derive(Debug)]
pub struct Truth {
    /// What they took, in nanoseconds, the shortest first.
    sorted: Vec<f64>,
}

impl Truth {
    /// Of lines `told NAME NANOSECONDS`.
    pub(crate) fn parse(lines: &[String], name: &str) -> Result<Self> {
        let told = lines.iter().filter_map(|line| line.strip_prefix("told ")?.strip_prefix(name)?.strip_prefix(' '));
        let mut sorted = told.map(|number| Ok(number.trim().parse()?)).collect::<Result<Vec<f64>>>()?;
        ensure!(!sorted.is_empty(), "no call of {name} was told");
        sorted.sort_by(f64::total_cmp);
        Ok(Self { sorted })
    }

    /// How many calls there were.
    pub fn calls(&self) -> f64 {
        self.sorted.len() as f64
    }

    /// What the calls took together, in nanoseconds.
    pub fn total(&self) -> f64 {
        self.sorted.iter().sum()
    }

    /// What a call took, in nanoseconds.
    pub fn average(&self) -> f64 {
        self.total() / self.calls()
    }

    /// What the calls took together that took less than that, in nanoseconds.
    pub fn total_below(&self, limit: Duration) -> f64 {
        self.sorted.iter().take_while(|call| **call < limit.as_nanos() as f64).sum()
    }

    /// What a share of the calls, from 0 to 1, did not exceed, in nanoseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted.len() - 1;
        self.sorted[(last as f64 * share).round() as usize]
    }

    /// The share of the calls that took no longer.
    pub fn within(&self, limit: Duration) -> f64 {
        self.sorted.partition_point(|call| *call <= limit.as_nanos() as f64) as f64 / self.calls()
    }

    /// Between two quantiles, the lower one of what is within these calls, with what a profiler may differ by.
    fn between(&self, inner: &Self, low: f64, high: f64) -> RangeInclusive<f64> {
        inner.quantile(low) * BELOW..=self.quantile(high) * ABOVE + TRAPS
    }

    /// A row of a timed function says the same of most calls and of slow ones. The program's calls are more than those
    /// that were timed, so that neighbouring quantiles stand for one: where calls take what they are meant to, they are
    /// the same.
    pub fn expect(&self, row: &Value) -> Result<()> {
        self.expect_nested(self, row)
    }

    /// The same of calls within calls, of which these are the outermost: each takes as long as what the innermost does, and the
    /// probes of those within it.
    pub fn expect_nested(&self, inner: &Self, row: &Value) -> Result<()> {
        for (name, range) in [("p50_ns", self.between(inner, 0.3, 0.7)), ("p99_ns", self.between(inner, 0.92, 1.0))] {
            let value = row[name].as_f64().unwrap_or(f64::NAN);
            ensure!(range.contains(&value), "{name} is not within {range:?}: {row:#}");
        }
        Ok(())
    }

    /// A row says the same of how many were fast enough, of which the program meant so many to be. The further the machine
    /// keeps it from that, the more the seconds that were timed may differ from the others; where it does not, by `tolerance`.
    pub fn expect_attainment(&self, row: &Value, limit: Duration, meant: f64, tolerance: f64) -> Result<()> {
        let (value, truth) = (row["attainment"].as_f64().unwrap_or(f64::NAN), self.within(limit));
        let tolerance = tolerance + (truth - meant).abs();
        ensure!((value - truth).abs() <= tolerance, "{truth} of the calls are within {limit:?}: {row:#}");
        Ok(())
    }
}
