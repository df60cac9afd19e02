//! What one of many sources may cause, so that one that floods us pays with its own detail only.

/// How much there may be of something.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// So much at once.
    pub at_once: u64,
    /// And one in so much time from then on, in nanoseconds.
    pub every_ns: u64,
}

/// What a source has taken of its [`Limit`]: the generic cell rate algorithm (ITU-T I.371, annex A).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    /// By when what was taken is made up for, `CLOCK_MONOTONIC` in nanoseconds.
    even_ns: u64,
    /// How often there was nothing left since there was something last.
    refused: u64,
}

impl Allowance {
    /// Whether there is something left.
    #[inline(always)]
    pub fn has_left(&self, limit: Limit, now_ns: u64) -> bool {
        self.even_ns.saturating_sub(now_ns) <= limit.every_ns * (limit.at_once - 1)
    }

    /// Takes one. Returns how often one was refused since the one before.
    #[inline(always)]
    pub fn take(&mut self, limit: Limit, now_ns: u64) -> u64 {
        self.spend(limit.every_ns, now_ns);
        core::mem::take(&mut self.refused)
    }

    /// Takes what it takes so much time to make up for.
    #[inline(always)]
    pub fn spend(&mut self, time_ns: u64, now_ns: u64) {
        self.even_ns = if self.even_ns > now_ns { self.even_ns } else { now_ns }.saturating_add(time_ns);
    }

    /// Whether all that was taken is made up for, so that nothing needs to be remembered.
    pub fn is_even(&self, now_ns: u64) -> bool {
        self.even_ns <= now_ns
    }

    /// Remembers that one was refused.
    #[inline(always)]
    pub fn refuse(&mut self) {
        self.refused += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { at_once: 10, every_ns: 100 };

    fn taken(allowance: &mut Allowance, wanted: usize, now_ns: u64) -> usize {
        (0..wanted)
            .filter(|_| {
                let has_left = allowance.has_left(LIMIT, now_ns);
                if has_left {
                    let _ = allowance.take(LIMIT, now_ns);
                } else {
                    allowance.refuse();
                }
                has_left
            })
            .count()
    }

    #[test]
    fn so_much_at_once_and_so_much_later() {
        let mut allowance = Allowance::default();
        assert_eq!(taken(&mut allowance, 50, 1_000_000), 10);
        assert_eq!(taken(&mut allowance, 50, 1_000_099), 0);
        assert_eq!(taken(&mut allowance, 50, 1_000_100), 1);
        assert_eq!(taken(&mut allowance, 50, 1_000_450), 3);
        assert_eq!(taken(&mut allowance, 50, 2_000_000), 10, "no more than that at once");
    }

    #[test]
    fn what_was_refused_is_told_once() {
        let mut allowance = Allowance::default();
        taken(&mut allowance, 15, 1_000_000);
        assert_eq!(allowance.take(LIMIT, 2_000_000), 5);
        assert_eq!(allowance.take(LIMIT, 2_000_000), 0);
    }
}
