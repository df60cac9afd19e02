//! `Part`: what was seen of a function of one process. Of several processes it is one row.

use std::time::Duration;

use super::estimate::Estimate;
use super::row::{Frame, Row};
use super::timing::Slot;
use crate::kernel::Figures;

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Part {
    /// The number by which it is timed.
    pub slot: Slot,
    /// The process.
    pub pid: u32,
    /// The function.
    pub name: String,
    /// Counts, times and histogram.
    pub figures: Figures,
    /// What a row is made of besides.
    pub frame: Frame,
    /// Why it is timed no longer; empty as long as it is.
    pub problem: String,
}

impl Part {
    /// As a row of its own.
    pub fn row(&self) -> Row {
        let row = Row::new(self.pid, &self.name, &self.figures, &self.frame);
        Row { problem: self.problem.clone(), ..row }
    }

    /// The same of a process that has ended: nothing of it is going on any more.
    pub fn ended(mut self) -> Self {
        (self.frame.in_flight, self.frame.load) = ((0, None), 0.0);
        self
    }
}

impl Part {
    /// Adds what was seen of the same function in another process. The share of the time in which probes were set is that of the
    /// time of both together.
    pub fn join(&mut self, other: &Self) {
        self.figures.join(&other.figures);
        let Frame { elapsed, attached_share, load, estimate: Estimate { calls, low, high }, in_flight, has_threshold } =
            other.frame;
        let frame = &mut self.frame;
        let attached = [(frame.elapsed, frame.attached_share), (elapsed, attached_share)];
        let attached: f64 = attached.iter().map(|(elapsed, share)| share * elapsed.as_secs_f64()).sum();
        frame.elapsed += elapsed;
        frame.attached_share = attached / frame.elapsed.as_secs_f64().max(1e-9);
        frame.load += load;
        frame.estimate.calls += calls;
        frame.estimate.low += low;
        frame.estimate.high = frame.estimate.high.zip(high).map(|(one, other)| one + other);
        frame.in_flight = (frame.in_flight.0 + in_flight.0, frame.in_flight.1.max(in_flight.1));
        frame.has_threshold |= has_threshold;
        if !other.problem.is_empty() {
            self.problem = format!("in pid {}: {}", other.pid, other.problem);
        }
    }
}

/// What was seen of a function in all these processes, as one row of the process from which they descend, in which that took so
/// long; `None` without any.
pub fn together(pid: u32, elapsed: Duration, parts: impl IntoIterator<Item = Part>) -> Option<Row> {
    let whole = parts.into_iter().reduce(|mut all, part| {
        all.join(&part);
        all
    })?;
    let frame = Frame { elapsed, ..whole.frame };
    Some(Part { pid, frame, ..whole }.row())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_added_up() {
        let part = |pid: u32, calls: u64, seconds: u64, attached_share: f64| {
            let figures = Figures {
                calls,
                total_ns: calls * 100,
                min_ns: u64::from(pid),
                max_ns: 100 * u64::from(pid),
                histogram: vec![(pid as u16, calls)],
                ..Figures::default()
            };
            let estimate = Estimate { calls: calls as f64, low: calls as f64, high: Some(calls as f64) };
            let elapsed = Duration::from_secs(seconds);
            let in_flight = (1, Some(u64::from(pid)));
            let frame = Frame { elapsed, attached_share, load: 0.01, estimate, in_flight, has_threshold: false };
            Part { slot: pid, pid, name: "serve".into(), figures, frame, problem: String::new() }
        };
        let parts = [part(7, 100, 10, 1.0), part(8, 300, 10, 0.5).ended()];
        let row = together(7, Duration::from_secs(20), parts.clone()).expect("two");
        assert_eq!((row.pid, row.calls, row.rate, row.avg_ns), (7, 400, 20.0, Some(100)));
        assert_eq!((row.min_ns, row.max_ns, row.in_flight, row.oldest_ns), (Some(7), Some(800), 1, Some(7)));
        assert_eq!((row.attached_share, row.load, row.calls_high), (0.75, 0.01, Some(400)));
        let unbounded = Estimate { high: None, ..parts[0].frame.estimate };
        let wide = Part { frame: Frame { estimate: unbounded, ..parts[0].frame }, ..parts[0].clone() };
        let row = together(7, Duration::from_secs(20), [wide, parts[1].clone()]).expect("two");
        assert_eq!((row.calls, row.calls_high), (400, None));
        assert!(together(7, Duration::from_secs(20), []).is_none());
    }
}
