//! With what a breach is compared: what is most like it, but for what went wrong. A service at its usual load is no match for
//! itself at rest, because whatever it does then looks new.

use super::evidence::Windows;
use crate::record::Stretch;
use crate::symbolize::Profile;

/// The window before a breach is a baseline if it is at least so long.
const LEAST_NS: u64 = 5_000_000_000;
/// It is taken if the load in it is nearer to that of the breach by this much, as the logarithm of a ratio.
const NEARER: f64 = 0.4;

/// How long calls of the function that was measured take on average, in nanoseconds, where that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CallTime {
    pub(super) now_ns: Option<u64>,
    /// In the baseline,
    pub(super) baseline_ns: Option<u64>,
    /// and right before the breach.
    pub(super) before_ns: Option<u64>,
}

/// Processors at work for a process, on average.
pub(super) fn load(profile: &Profile) -> f64 {
    let at_work = profile.samples.iter().filter(|sample| sample.is_on_cpu()).map(|sample| sample.value);
    at_work.sum::<u64>() as f64 / profile.header.duration_ns.max(1) as f64
}

/// How well a calm stretch serves to compare a load with: the better the nearer it is, from below rather than from above.
pub(super) fn suits(stretch: &Stretch, load: f64) -> f64 {
    let distance = distance(stretch.load, load);
    if stretch.load <= load { -distance } else { -10.0 - distance }
}

/// The profile to compare with of the two that there may be; `early` is of right before the breach.
pub(super) fn nearer<'a>(during: &Profile, baseline: &'a Profile, early: &'a Profile) -> &'a Profile {
    let now = load(during);
    let by = distance(load(baseline), now) - distance(load(early), now);
    if early.header.duration_ns >= LEAST_NS && by > NEARER { early } else { baseline }
}

/// The same for calls, with how long they took then: the calm time if the function was called in it.
pub(super) fn of_calls<'a>(windows: &Windows, baseline: &'a Profile, early: &'a Profile) -> (&'a Profile, Option<u64>) {
    let CallTime { baseline_ns, before_ns, .. } = windows.call_time;
    match (baseline_ns, before_ns) {
        (None, Some(_)) => (early, before_ns),
        // What was recorded right before stands in for a baseline that there is not yet.
        (None, None) => (baseline, None),
        (Some(_), _) => (baseline, baseline_ns.filter(|_| windows.baseline.is_some())),
    }
}

fn distance(one: f64, other: f64) -> f64 {
    /// Less than a thousandth of a processor is nothing.
    const NOTHING: f64 = 0.001;
    (one.max(NOTHING) / other.max(NOTHING)).ln().abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::Sample;

    fn profile(seconds: u64, load: f64) -> Profile {
        let mut profile = Profile::default();
        profile.header.duration_ns = seconds * 1_000_000_000;
        let value = (load * profile.header.duration_ns as f64) as u64;
        profile.samples.push(Sample { count: 1, value, ..Sample::default() });
        profile
    }

    #[test]
    fn the_stretch_with_the_nearest_load_below_suits_best() {
        let best = |loads: &[f64], load: f64| {
            let stretches = loads.iter().map(|&load| Stretch { from_ns: 0, to_ns: 1, load });
            let best = stretches.max_by(|one, other| suits(one, load).total_cmp(&suits(other, load)));
            best.expect("some").load
        };
        assert_eq!(best(&[0.01, 0.5, 0.6, 0.95], 0.9), 0.6);
        assert_eq!(best(&[2.0, 1.5], 0.9), 1.5, "if there is none below, the nearest above");
        assert_eq!(best(&[0.0, 0.0], 0.9), 0.0);
    }

    #[test]
    fn a_load_that_was_there_before_the_breach_is_no_news() {
        let (during, idle, loaded) = (profile(10, 0.9), profile(60, 0.01), profile(29, 0.6));
        assert_eq!(load(nearer(&during, &idle, &loaded)), 0.6);
        assert_eq!(load(nearer(&during, &loaded, &idle)), 0.6);
        assert_eq!(load(nearer(&during, &idle, &profile(3, 0.6))), 0.01, "too short to tell");
    }
}
