//! `Window`: what was seen of a function in the last seconds, from figures that only ever grow.

use std::collections::VecDeque;
use std::time::Duration;

use super::estimate::Account;
use super::row::{Frame, Row};
use super::timing::Reading;
use crate::kernel::Figures;

/// How far back it reaches.
pub const WINDOW: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Window {
    parts: VecDeque<Part>,
    figures: Figures,
    account: Account,
    elapsed: Duration,
    attached: Duration,
    /// What the probes cost while they were set, as of the latest reading.
    load: f64,
    /// The next reading is where it begins.
    is_cut: bool,
}

/// What came between two readings.
#[derive(Debug)]
struct Part {
    elapsed: Duration,
    attached: Duration,
    figures: Figures,
    account: Account,
}

impl Window {
    /// Takes in the next reading, and lets go of what is too old.
    pub fn push(&mut self, reading: &Reading) {
        let Reading { figures, elapsed, attached, load, account, .. } = reading;
        self.load = *load;
        if std::mem::take(&mut self.is_cut) {
            (self.figures, self.elapsed, self.attached) = (figures.clone(), *elapsed, *attached);
            self.account.clone_from(account);
            return;
        }
        let (now, before) = (figures, &self.figures);
        let since = |now: u64, before: u64| now.saturating_sub(before);
        self.parts.push_back(Part {
            elapsed: elapsed.saturating_sub(self.elapsed),
            attached: attached.saturating_sub(self.attached),
            account: account.since(&self.account),
            figures: Figures {
                calls: since(now.calls, before.calls),
                entered: since(now.entered, before.entered),
                errors: since(now.errors, before.errors),
                total_ns: since(now.total_ns, before.total_ns),
                min_ns: now.min_ns,
                max_ns: now.max_ns,
                within: since(now.within, before.within),
                left: since(now.left, before.left),
                missed: since(now.missed, before.missed),
                thread_ended: since(now.thread_ended, before.thread_ended),
                histogram: more(&now.histogram, &before.histogram),
            },
        });
        self.figures.clone_from(figures);
        self.account.clone_from(account);
        (self.elapsed, self.attached) = (*elapsed, *attached);
        while self.parts.iter().skip(1).map(|part| part.elapsed).sum::<Duration>() >= WINDOW {
            self.parts.pop_front();
        }
    }

    /// Lets go of everything until the next reading: calls are judged in another way from now on.
    pub fn forget(&mut self) {
        self.parts.clear();
        self.is_cut = true;
    }

    /// What was seen, scaled; in flight is what was so at the latest reading.
    pub fn row(&self, pid: u32, name: &str, has_threshold: bool, in_flight: (u64, Option<u64>)) -> Row {
        let (mut sum, mut account) = (Figures::default(), Account::default());
        let (mut elapsed, mut attached) = (Duration::ZERO, Duration::ZERO);
        for part in &self.parts {
            let Figures {
                calls, entered, errors, total_ns, min_ns, max_ns, within, left, missed, thread_ended, ..
            } = part.figures;
            account.add(&part.account);
            (elapsed, attached) = (elapsed + part.elapsed, attached + part.attached);
            sum.calls += calls;
            sum.entered += entered;
            sum.errors += errors;
            sum.total_ns += total_ns;
            sum.within += within;
            sum.left += left;
            sum.missed += missed;
            sum.thread_ended += thread_ended;
            // Of all calls so far: bounds for what the histogram says of these.
            (sum.min_ns, sum.max_ns) = (min_ns, max_ns);
            sum.histogram.extend_from_slice(&part.figures.histogram);
        }
        sum.histogram.sort_unstable_by_key(|(bucket, _)| *bucket);
        sum.histogram.dedup_by(|(bucket, count), (kept, sum)| {
            let is_same = bucket == kept;
            *sum += if is_same { *count } else { 0 };
            is_same
        });
        (sum.min_ns, sum.max_ns) = (sum.quantile(0.0).unwrap_or(0), sum.quantile(1.0).unwrap_or(0));
        let attached_share = (attached.as_secs_f64() / elapsed.as_secs_f64().max(1e-9)).min(1.0);
        let estimate = account.estimate(sum.calls, sum.left, elapsed, attached.min(elapsed));
        let frame = Frame { elapsed, attached_share, load: self.load, estimate, in_flight, has_threshold };
        Row::new(pid, name, &sum, &frame)
    }
}

/// What has come to a histogram since it was as before.
fn more(now: &[(u16, u64)], before: &[(u16, u64)]) -> Vec<(u16, u64)> {
    let mut before = before.iter().copied().peekable();
    let more = now.iter().filter_map(|&(bucket, count)| {
        while before.next_if(|(earlier, _)| *earlier < bucket).is_some() {}
        let earlier = before.next_if(|(earlier, _)| *earlier == bucket).map_or(0, |(_, count)| count);
        (count > earlier).then_some((bucket, count - earlier))
    });
    more.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(second: u64, calls: u64, bucket: u16) -> Reading {
        let histogram = vec![(bucket, calls)];
        // Buckets below 64 are nanoseconds.
        let figures = Figures {
            calls,
            total_ns: calls * u64::from(bucket),
            min_ns: 1,
            max_ns: 60,
            histogram,
            ..Figures::default()
        };
        let elapsed = Duration::from_secs(second);
        Reading {
            figures,
            elapsed,
            attached: elapsed / 2,
            load: 0.5,
            account: Account::default(),
            is_set: true,
            in_flight: (0, None),
            problem: String::new(),
        }
    }

    fn row(window: &Window) -> Row {
        window.row(7, "f", false, (0, None))
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::default();
        (1..=20).for_each(|second| window.push(&reading(second, second * 100, 5)));
        let before = row(&window);
        assert_eq!((before.pid, before.calls, before.rate), (7, 2000, 200.0), "half of the time, so twice as many");
        assert_eq!((before.p99_ns, before.min_ns, before.max_ns), (Some(5), Some(5), Some(5)));
        for second in 21..=30 {
            window.push(&reading(second, 2000, 5));
        }
        let after = row(&window);
        assert_eq!((after.calls, after.rate, after.p99_ns, after.avg_ns), (0, 0.0, None, None));
        assert_eq!(window.parts.len(), 10);
    }

    #[test]
    fn slow_calls_are_seen_at_once_and_for_the_length_of_the_window() {
        let mut window = Window::default();
        window.push(&reading(1, 1000, 5));
        let mut slow = reading(2, 1000, 5);
        slow.figures.calls = 1020;
        slow.figures.histogram.push((50, 20));
        window.push(&slow);
        assert_eq!(row(&window).p99_ns, Some(50));
        slow.elapsed = Duration::from_secs(13);
        window.push(&slow);
        assert_eq!(row(&window).p99_ns, None);
    }

    #[test]
    fn without_time_there_is_nothing() {
        let mut window = Window::default();
        assert_eq!((row(&window).calls, row(&window).rate), (0, 0.0));
        window.push(&reading(1, 10, 5));
        window.forget();
        window.push(&reading(2, 15, 5));
        assert_eq!(row(&window).calls, 0, "how these were judged is not known");
        window.push(&reading(3, 20, 5));
        assert_eq!(row(&window).calls, 10);
    }
}
