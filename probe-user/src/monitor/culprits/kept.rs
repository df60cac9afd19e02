//! Who keeps what it allocates. Growth of resident memory blames whoever touches a page first, and under churn that is often
//! not who leaks: what leaks takes the place that others have freed, and these have to take fresh pages for themselves. What
//! was allocated, and is in use still after everything else of its age was freed, does not have that fault.

use super::memory::charge_memory;
use super::{Culprit, Of, charged_most, describe};
use crate::symbolize::{Profile, Sample};

/// Fewer samples explain nothing: their sum is known to a quarter at best.
const ENOUGH: usize = 16;
/// What is in use after this long is kept, even where it is known for much longer.
const LONG_NS: u64 = 30_000_000_000;

/// The functions that keep what they allocate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Those that keep most first, at most ten.
    pub culprits: Vec<Culprit>,
    /// What all keep, in bytes,
    pub bytes: u64,
    /// of what was allocated in so many nanoseconds.
    pub span_ns: u64,
}

/// Who keeps what was allocated from a time of the profile on, in nanoseconds since its start, and is in use at its end:
/// the first half of that time counts, because the rest may yet be freed. What was freed while nobody looked is in the profile's
/// values already. `None` if the samples are too few to tell.
pub fn kept(live: &Profile, from_ns: u64) -> Option<Kept> {
    let all_ns = live.header.duration_ns.saturating_sub(from_ns);
    let age_ns = (all_ns / 2).min(LONG_NS);
    let span_ns = all_ns - age_ns;
    let mut old = live.clone();
    old.samples.retain(|sample| sample.value > 0 && (from_ns..from_ns + span_ns).contains(&sample.time_ns));
    if old.samples.len() < ENOUGH {
        return None;
    }
    for stack in &mut old.stacks {
        // The function of the allocator, which may be part of the program.
        if stack.locations.len() > 1 {
            stack.locations.remove(0);
        }
    }
    let (charges, nothing) = (charge_memory(&old, bytes), charge_memory(&Profile::default(), bytes));
    let culprits = charged_most(&charges).into_iter().map(|(function, bytes)| Culprit {
        bytes: Some(bytes),
        kept_for_ns: Some(age_ns),
        of: Of::Memory,
        ..describe(function, &charges, &nothing)
    });
    Some(Kept { culprits: culprits.collect(), bytes: charges.count, span_ns })
}

fn bytes(sample: &Sample) -> u64 {
    sample.value
}

#[cfg(test)]
mod tests {
    use super::super::tests::profile;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A function that keeps 1 MiB of each second, and one whose 20 MiB are of the last second.
    fn live() -> Profile {
        let mut live = profile(20, &[("t", "main leaks malloc", 1), ("t", "main churns malloc", 1)]);
        let (leaks, churns) = (live.samples[0], live.samples[1]);
        live.samples.clear();
        for second in 0..20 {
            live.samples.push(Sample { time_ns: second * SECOND, value: 1 << 20, ..leaks });
            live.samples.push(Sample { time_ns: second * SECOND, value: 0, ..churns });
            live.samples.push(Sample { time_ns: 19 * SECOND + second, value: 1 << 20, ..churns });
        }
        live
    }

    #[test]
    fn what_may_yet_be_freed_is_not_blamed() {
        let (mut live, from_ns) = (live(), 0);
        assert_eq!(kept(&live, from_ns), None, "ten samples of the first half are too few");
        let more: Vec<Sample> =
            live.samples.iter().map(|sample| Sample { value: sample.value / 2, ..*sample }).collect();
        live.samples.extend(more);
        let kept = kept(&live, from_ns).expect("enough");
        assert_eq!((kept.bytes, kept.span_ns), (15 << 20, 10 * SECOND));
        let [culprit] = &kept.culprits[..] else { panic!("{kept:?}") };
        assert_eq!((culprit.function.as_str(), culprit.bytes, culprit.share), ("leaks", Some(15 << 20), 100.0));
        assert_eq!(
            culprit.sentence(),
            "leaks (app.c:1) keeps 15.0 MiB that it allocated, 100 % of what is in use after 10 s, in thread t"
        );
    }

    #[test]
    fn only_what_was_allocated_lately_counts_where_that_is_asked_for() {
        let mut live = live();
        live.samples.iter_mut().for_each(|sample| sample.time_ns += 1000 * SECOND);
        live.header.duration_ns = 1020 * SECOND;
        let leak = live.samples[0];
        live.samples.extend((0..200).map(|second| Sample { time_ns: second * SECOND, value: 7, ..leak }));
        assert_eq!(kept(&live, 1000 * SECOND), None);
        let all = kept(&live, 0).expect("enough");
        assert_eq!((all.bytes, all.span_ns), (200 * 7, 990 * SECOND), "after 30 s");
    }
}
