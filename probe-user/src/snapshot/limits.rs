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

/// A stored snapshot, as far as limits care.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) id: Ulid,
    pub(super) bytes: u64,
    /// It counts, but it does not go.
    pub(super) is_pinned: bool,
}

impl Limits {
    /// Which of these, sorted from the newest to the oldest, have to go. The newest goes of age only: there is always
    /// room for it, however large it is.
    pub(super) fn surplus(&self, stored: &[Stored], now: SystemTime) -> Vec<Ulid> {
        let pinned = || stored.iter().filter(|stored| stored.is_pinned);
        let mut bytes = pinned().fold(0u64, |sum, stored| sum.saturating_add(stored.bytes));
        let mut snapshots = pinned().count();
        let mut is_over = false;
        let mut surplus = Vec::new();
        for (index, stored) in stored.iter().enumerate().filter(|(_, stored)| !stored.is_pinned) {
            bytes = bytes.saturating_add(stored.bytes);
            snapshots += 1;
            let age = now.duration_since(stored.id.datetime()).unwrap_or_default();
            // Whatever is older than the first that does not fit goes too: no gaps.
            is_over |= index > 0 && (bytes > self.max_bytes || snapshots > self.max_snapshots) || age > self.max_age;
            if is_over {
                surplus.push(stored.id);
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

    fn stored(second: u64, bytes: u64) -> Stored {
        Stored { id: at(second), bytes, is_pinned: false }
    }

    fn pinned(second: u64, bytes: u64) -> Stored {
        Stored { is_pinned: true, ..stored(second, bytes) }
    }

    const WIDE: Limits = Limits { max_bytes: 100, max_age: Duration::from_secs(50), max_snapshots: 10 };

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(100)
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_of_age_only() {
        let stored = [stored(90, 10), stored(80, 30), stored(70, 5)];
        for (limits, expected) in [
            (WIDE, vec![]),
            (Limits { max_bytes: 45, ..WIDE }, vec![]),
            (Limits { max_bytes: 44, ..WIDE }, vec![at(70)]),
            (Limits { max_bytes: 20, ..WIDE }, vec![at(80), at(70)]),
            (Limits { max_bytes: 1, ..WIDE }, vec![at(80), at(70)]),
            (Limits { max_snapshots: 2, ..WIDE }, vec![at(70)]),
            (Limits { max_snapshots: 0, ..WIDE }, vec![at(80), at(70)]),
            (Limits { max_age: Duration::from_secs(30), ..WIDE }, vec![]),
            (Limits { max_age: Duration::from_secs(29), ..WIDE }, vec![at(70)]),
            (Limits { max_age: Duration::from_secs(10), ..WIDE }, vec![at(80), at(70)]),
            (Limits { max_age: Duration::from_secs(1), ..WIDE }, vec![at(90), at(80), at(70)]),
        ] {
            assert_eq!(limits.surplus(&stored, now()), expected, "{limits:?}");
        }
    }

    #[test]
    fn what_is_pinned_counts_and_stays() {
        let all = [stored(90, 10), stored(80, 30), pinned(70, 5), stored(60, 5), pinned(10, 40)];
        for (limits, expected) in [
            (WIDE, vec![]),
            (Limits { max_bytes: 89, ..WIDE }, vec![at(60)]),
            (Limits { max_bytes: 84, ..WIDE }, vec![at(80), at(60)]),
            (Limits { max_bytes: 1, ..WIDE }, vec![at(80), at(60)]),
            (Limits { max_snapshots: 4, ..WIDE }, vec![at(60)]),
            (Limits { max_snapshots: 1, ..WIDE }, vec![at(80), at(60)]),
            (Limits { max_age: Duration::from_secs(1), ..WIDE }, vec![at(90), at(80), at(60)]),
        ] {
            assert_eq!(limits.surplus(&all, now()), expected, "{limits:?}");
        }
        assert!(Limits { max_bytes: 1, ..WIDE }.surplus(&[pinned(90, 9), pinned(80, 9)], now()).is_empty());
    }
}
