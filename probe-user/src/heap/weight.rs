//! What a sample stands for: the inverse of its chance, times the share of the time in which anybody looked.

use crate::probes::Window;

/// What a sampled allocation stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weight {
    /// Allocations.
    pub objects: f64,
    /// Bytes of all of them.
    pub bytes: f64,
}

/// The chance that an allocation of `size` bytes is sampled where one byte in `mean` is a sample point.
pub fn chance(size: u64, mean: u64) -> f64 {
    // 1 - exp(-size / mean), exact for small ones, too.
    (-(-(size as f64) / mean as f64).exp_m1()).max(f64::MIN_POSITIVE)
}

/// The weight of a sampled allocation of `size` bytes where one byte in `mean` is a sample point.
pub fn weigh(size: u64, mean: u64, scale: f64) -> Weight {
    let objects = scale / chance(size, mean);
    Weight { objects, bytes: objects * size as f64 }
}

/// The weight of one of `size` bytes that the allocator has published, by the bytes that it is said to stand for.
pub fn weigh_published(size: u64, weight: u64, scale: f64) -> Weight {
    let bytes = scale * weight as f64;
    Weight { objects: bytes / size.max(1) as f64, bytes }
}

/// How long probes were away between the times in which they were set. What was seen next to a gap stands for half of it, so
/// that a burst, at whose beginning the probes go, is not taken for as quiet as the hours before it, and that it does not
/// matter that probes are set for longer while little is allocated.
#[derive(Clone, Debug, Default)]
pub struct Scale {
    /// Since when what is to be multiplied with this, by time.
    factors: Vec<(u64, f64)>,
    /// The share of the time in which the probes were set.
    share: f64,
    /// When they were.
    windows: Vec<Window>,
}

impl Scale {
    /// From the windows, oldest first, up to the present.
    pub fn new(windows: &[Window], now_ns: u64) -> Self {
        let mut factors = Vec::with_capacity(windows.len());
        let mut before = 0;
        for (at, window) in windows.iter().enumerate() {
            let after = match windows.get(at + 1) {
                Some(next) => next.from_ns.saturating_sub(window.to_ns) / 2,
                None => now_ns.saturating_sub(window.to_ns),
            };
            let goes_on = at + 1 == windows.len() && window.to_ns >= now_ns;
            push_factors(&mut factors, *window, before, after, goes_on);
            before = after;
        }
        let set: u64 = windows.iter().map(|window| window.to_ns - window.from_ns).sum();
        let all = windows.first().map_or(0, |first| now_ns.saturating_sub(first.from_ns));
        Self {
            factors,
            share: if all == 0 { 1.0 } else { (set as f64 / all as f64).min(1.0) },
            windows: windows.to_vec(),
        }
    }

    /// What a sample of this time is to be multiplied with.
    pub fn at(&self, time_ns: u64) -> f64 {
        let after = self.factors.partition_point(|(from_ns, _)| *from_ns <= time_ns);
        self.factors.get(after.saturating_sub(1)).map_or(1.0, |(_, factor)| *factor)
    }

    /// When the probes were set, oldest first.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The share of the time in which the probes were set, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }
}

/// Adds what a window is to be multiplied with that stands for some time before and after it. In a window that is longer, the
/// nearest parts stand for them.
fn push_factors(factors: &mut Vec<(u64, f64)>, window: Window, before_ns: u64, after_ns: u64, goes_on: bool) {
    let set = window.to_ns - window.from_ns;
    // A moment is not worth much: nothing may have been seen in it.
    let mean = (set + before_ns + after_ns) as f64 / set.max(1) as f64;
    if before_ns + after_ns >= set {
        factors.push((window.from_ns, mean));
        return push_end(factors, window, mean, goes_on);
    }
    let parts = [(window.from_ns, before_ns, 2.0), (window.from_ns + before_ns, set - before_ns - after_ns, 1.0)];
    factors.extend(parts.into_iter().filter(|(_, length, _)| *length > 0).map(|(from, _, factor)| (from, factor)));
    if after_ns > 0 {
        factors.push((window.to_ns - after_ns, 2.0));
    }
    push_end(factors, window, mean, goes_on);
}

/// Windows that were made one of two lie partly behind their end. What else is seen there, while probes are set and taken away,
/// is seen by some of them only and for a time that nobody knows, so that it stands for nothing; but a window may go on.
fn push_end(factors: &mut Vec<(u64, f64)>, window: Window, mean: f64, goes_on: bool) {
    factors.push((window.to_ns, if window.is_joined || goes_on { mean } else { 0.0 }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_ns: u64, to_ns: u64) -> Window {
        Window { from_ns, to_ns, is_joined: false }
    }

    #[test]
    fn small_ones_stand_for_many_and_large_ones_for_themselves() {
        let small = weigh(16, 512 * 1024, 1.0);
        assert!((small.bytes - (512.0 * 1024.0)).abs() < 16.0, "{small:?}");
        let large = weigh(100 << 20, 512 * 1024, 2.0);
        assert!((large.objects - 2.0).abs() < 1e-9, "{large:?}");
    }

    #[test]
    fn what_an_allocator_publishes_stands_for_what_it_says() {
        assert_eq!(weigh_published(1000, 512_000, 1.0), Weight { objects: 512.0, bytes: 512_000.0 });
        assert_eq!(weigh_published(1 << 20, 1 << 20, 2.0), Weight { objects: 2.0, bytes: f64::from(1 << 21) });
        assert_eq!(weigh_published(0, 10, 1.0).objects, 10.0);
    }

    #[test]
    fn thinned_samples_weigh_as_much_as_all_did() {
        for size in [16, 5000, 700_000] {
            let kept = chance(size, 64 << 10) / chance(size, 32 << 10);
            let (before, after) = (weigh(size, 32 << 10, 1.0).bytes, kept * weigh(size, 64 << 10, 1.0).bytes);
            assert!(kept <= 1.0 && (after / before - 1.0).abs() < 1e-9, "{size}: {after} of {before}");
        }
    }

    #[test]
    fn windows_stand_for_half_of_the_gaps_beside_them() {
        let windows = [window(100, 110), window(200, 250)];
        let scale = Scale::new(&windows, 300);
        assert_eq!([scale.at(105), scale.at(199), scale.at(220), scale.at(0)], [5.5, 0.0, 2.9, 5.5]);
        assert!((scale.share() - 0.3).abs() < 1e-9);
        let joined = Window { is_joined: true, ..windows[0] };
        assert_eq!(Scale::new(&[joined, windows[1]], 300).at(199), 5.5, "a window that was made one with it");
        assert_eq!(Scale::new(&[window(100, 300)], 300).at(200), 1.0);
        assert_eq!(Scale::new(&[window(100, 300)], 300).at(301), 1.0, "a window that goes on");
        let over = Scale::new(&[window(100, 101)], 300);
        assert_eq!([over.at(100), over.at(102)], [200.0, 0.0], "while the probes of the last window are taken away");
        assert_eq!(Scale::new(&[], 300).share(), 1.0);
    }

    #[test]
    fn a_long_window_stands_for_gaps_by_its_parts_beside_them() {
        let windows = [(0, 1000), (1100, 1110), (1200, 2000)].map(|(from_ns, to_ns)| window(from_ns, to_ns));
        let scale = Scale::new(&windows, 2000);
        assert_eq!([scale.at(500), scale.at(949), scale.at(950), scale.at(999)], [1.0, 1.0, 2.0, 2.0]);
        assert_eq!([scale.at(1105), scale.at(1200), scale.at(1245), scale.at(1500)], [10.5, 2.0, 1.0, 1.0]);
        // All time is stood for once.
        let sum: f64 = (0..2000)
            .filter(|at| windows.iter().any(|w| (w.from_ns..w.to_ns).contains(at)))
            .map(|at| scale.at(at))
            .sum();
        assert!((sum - 2000.0).abs() < 1e-6, "{sum}");
    }
}
