//! Which threads matter, so that a snapshot of a process with a thousand threads stays small.

use std::collections::{BTreeMap, HashMap};

use crate::symbolize::{Measure, Profile};

/// Bytes of memory that each thread has made resident, by its id.
pub(super) fn bytes_by_thread(profile: &Profile) -> BTreeMap<u32, u64> {
    let mut bytes = BTreeMap::new();
    for sample in profile.samples.iter().filter(|sample| sample.measure == Measure::Resident) {
        *bytes.entry(profile.threads[sample.thread as usize].tid).or_default() += sample.value;
    }
    bytes
}

/// Samples of each thread on the CPU, by its id.
pub(super) fn samples_by_thread(profile: &Profile) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for sample in profile.samples.iter().filter(|sample| sample.is_on_cpu()) {
        *counts.entry(profile.threads[sample.thread as usize].tid).or_default() += sample.count;
    }
    counts
}

/// Time of each thread in a function or in what it calls, at work and waiting, in nanoseconds, by its id.
pub(super) fn time_by_thread(profile: &Profile, function: &str) -> BTreeMap<u32, u64> {
    let is_below = |stack: u32| profile.frames(stack).iter().any(|frame| frame.function == function);
    let mut known = HashMap::new();
    let mut times = BTreeMap::new();
    for sample in profile.samples.iter().filter(|sample| !sample.measure.is_memory()) {
        if *known.entry(sample.stack).or_insert_with(|| is_below(sample.stack)) {
            *times.entry(profile.threads[sample.thread as usize].tid).or_default() += sample.value;
        }
    }
    times
}

/// The `count` threads with the most samples, busiest first; the lower id first among equals.
pub(super) fn busiest(counts: &BTreeMap<u32, u64>, count: usize) -> Vec<u32> {
    let mut ranked: Vec<(u32, u64)> = counts.iter().map(|(&tid, &samples)| (tid, samples)).collect();
    ranked.sort_by_key(|&(_, samples)| std::cmp::Reverse(samples));
    ranked.into_iter().take(count).map(|(tid, _)| tid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_threads_are_chosen() {
        let counts = BTreeMap::from([(1, 5), (2, 9), (3, 5), (4, 1)]);
        assert_eq!(busiest(&counts, 3), [2, 1, 3]);
        assert_eq!(busiest(&counts, 9).len(), 4);
    }
}
