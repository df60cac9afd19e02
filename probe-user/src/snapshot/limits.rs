//! How much a store keeps. Which snapshots have to go is decided here, without touching any.

use std::time::{Duration, SystemTime};

use ulid::Ulid;

/// How much is kept; the oldest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that all snapshots together may take.
    pub max_bytes: u64,
    /// How old a snapshot may get.
    pub max_age: Duration,
    /// Most snapshots.
    pub max_snapshots: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_age: Duration::from_secs(30 * 86_400), max_snapshots: 1000 }
    }
}

impl Limits {
    /// Which of these (id, bytes), sorted from the newest to the oldest, have to go. The newest stays, however large.
    pub(super) fn surplus(&self, stored: &[(Ulid, u64)], now: SystemTime) -> Vec<Ulid> {
        let mut bytes = 0u64;
        let mut is_over = false;
        let mut surplus = Vec::new();
        for (index, &(id, size)) in stored.iter().enumerate() {
            bytes = bytes.saturating_add(size);
            let age = now.duration_since(id.datetime()).unwrap_or_default();
            // Whatever is older than the first that does not fit goes too: no gaps.
            is_over |= index > 0 && (bytes > self.max_bytes || index >= self.max_snapshots || age > self.max_age);
            if is_over {
                surplus.push(id);
            }
        }
        surplus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Ulid {
        Ulid::from_parts(second * 1000, 0)
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_never() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let stored = [(at(90), 10), (at(80), 30), (at(70), 5)];
        let wide = Limits { max_bytes: 100, max_age: Duration::from_secs(50), max_snapshots: 10 };
        for (limits, expected) in [
            (wide, vec![]),
            (Limits { max_bytes: 45, ..wide }, vec![]),
            (Limits { max_bytes: 44, ..wide }, vec![at(70)]),
            (Limits { max_bytes: 20, ..wide }, vec![at(80), at(70)]),
            (Limits { max_bytes: 1, ..wide }, vec![at(80), at(70)]),
            (Limits { max_snapshots: 2, ..wide }, vec![at(70)]),
            (Limits { max_age: Duration::from_secs(30), ..wide }, vec![]),
            (Limits { max_age: Duration::from_secs(29), ..wide }, vec![at(70)]),
            (Limits { max_age: Duration::from_secs(1), ..wide }, vec![at(80), at(70)]),
        ] {
            assert_eq!(limits.surplus(&stored, now), expected, "{limits:?}");
        }
    }
}
