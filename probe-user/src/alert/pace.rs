//! How fast is allowed: a token bucket for each channel, and pauses that grow with each failure.

use std::time::{Duration, Instant};

use ulid::Ulid;

/// Messages so many a minute, with bursts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    per_second: f64,
    burst: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_minute: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self { tokens: burst, per_second: f64::from(per_minute.max(1)) / 60.0, burst, filled: now }
    }

    /// How long until a message may go; zero for now.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let more = now.saturating_duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + more).min(self.burst);
        self.filled = now;
        // A rounding must not make it wait for nothing.
        const ENOUGH: f64 = 1.0 - 1e-9;
        if self.tokens >= ENOUGH {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.tokens) / self.per_second)
    }

    /// A message goes.
    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

/// The pause after so many failures: about 1 s, 2 s, 4 s and so on, at most `longest`. Half of it is chance, so that not
/// all that failed together comes back together.
pub(super) fn backoff(failures: u32, longest: Duration) -> Duration {
    let whole = Duration::from_secs(1u64.checked_shl(failures).unwrap_or(u64::MAX)).min(longest);
    // The random part of an id is as good as any.
    let chance = f64::from(Ulid::new().random() as u32) / f64::from(u32::MAX);
    whole.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(20, 3, start);
        for _ in 0..3 {
            assert_eq!(bucket.wait(start), Duration::ZERO);
            bucket.take();
        }
        let wait = bucket.wait(start);
        assert!((2.9..3.1).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(bucket.wait(start + wait), Duration::ZERO);
        bucket.take();
        assert!(bucket.wait(start + wait) > Duration::from_secs(2));
        // An hour's rest is no credit beyond the burst.
        let later = start + Duration::from_secs(3600);
        for _ in 0..3 {
            assert_eq!(bucket.wait(later), Duration::ZERO);
            bucket.take();
        }
        assert!(bucket.wait(later) > Duration::ZERO);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let longest = Duration::from_secs(300);
        for (failures, most) in [(0, 1), (1, 2), (4, 16), (9, 300), (200, 300)] {
            let pause = backoff(failures, longest);
            let most = Duration::from_secs(most);
            assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
        }
        let pauses: std::collections::BTreeSet<_> = (0..20).map(|_| backoff(9, longest)).collect();
        assert!(pauses.len() > 10, "by chance");
    }
}
