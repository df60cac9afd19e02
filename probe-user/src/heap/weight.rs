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

/// The weight of a sampled allocation of `size` bytes where one byte in `mean` is a sample point.
pub fn weigh(size: u64, mean: u64, scale: f64) -> Weight {
    // 1 - exp(-size / mean), exact for small ones, too.
    let chance = -(-(size as f64) / mean as f64).exp_m1();
    let objects = scale / chance.max(f64::MIN_POSITIVE);
    Weight { objects, bytes: objects * size as f64 }
}

/// How long probes were away between the times in which they were set: what was seen in one of them stands for all of the
/// time up to the next, so that it does not matter that the probes are set for longer while little is allocated.
#[derive(Clone, Debug, Default)]
pub struct Scale {
    /// Beginning of each window and what it is to be multiplied with.
    factors: Vec<(u64, f64)>,
    /// The share of the time in which the probes were set.
    share: f64,
}

impl Scale {
    /// From the windows, oldest first, up to the present.
    pub fn new(windows: &[Window], now_ns: u64) -> Self {
        let ends = windows.iter().skip(1).map(|window| window.from_ns).chain([now_ns]);
        let factor = |(window, end): (&Window, u64)| {
            let (set, all) = (window.to_ns - window.from_ns, end.saturating_sub(window.from_ns));
            // A moment is not worth much: nothing may have been seen in it.
            (window.from_ns, (all as f64 / set.max(1) as f64).max(1.0))
        };
        let factors = windows.iter().zip(ends).map(factor).collect();
        let set: u64 = windows.iter().map(|window| window.to_ns - window.from_ns).sum();
        let all = windows.first().map_or(0, |first| now_ns.saturating_sub(first.from_ns));
        Self { factors, share: if all == 0 { 1.0 } else { (set as f64 / all as f64).min(1.0) } }
    }

    /// What a sample of this time is to be multiplied with.
    pub fn at(&self, time_ns: u64) -> f64 {
        let after = self.factors.partition_point(|(from_ns, _)| *from_ns <= time_ns);
        self.factors.get(after.saturating_sub(1)).map_or(1.0, |(_, factor)| *factor)
    }

    /// The share of the time in which the probes were set, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_stand_for_many_and_large_ones_for_themselves() {
        let small = weigh(16, 512 * 1024, 1.0);
        assert!((small.bytes - (512.0 * 1024.0)).abs() < 16.0, "{small:?}");
        let large = weigh(100 << 20, 512 * 1024, 2.0);
        assert!((large.objects - 2.0).abs() < 1e-9, "{large:?}");
    }

    #[test]
    fn each_window_stands_for_the_time_up_to_the_next() {
        let windows = [Window { from_ns: 100, to_ns: 110 }, Window { from_ns: 200, to_ns: 250 }];
        let scale = Scale::new(&windows, 300);
        assert_eq!([scale.at(105), scale.at(199), scale.at(220), scale.at(0)], [10.0, 10.0, 2.0, 10.0]);
        assert!((scale.share() - 0.3).abs() < 1e-9);
        assert_eq!(Scale::new(&[Window { from_ns: 100, to_ns: 300 }], 300).at(200), 1.0);
        assert_eq!(Scale::new(&[], 300).share(), 1.0);
    }
}
