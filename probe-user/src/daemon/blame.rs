//! Who is to blame for a breach of memory: those who keep what they allocate, where that explains the growth, else those who
//! made memory resident. Both are named; the question is who comes first.

use super::evidence::{Times, Windows};
use super::keeper::Job;
use super::timeline::Reading;
use crate::monitor::{Culprit, Kept, Metric, growth_culprits, kept};
use crate::symbolize::{Measure, Profile};

/// Most functions that are named.
const MAX: usize = 10;
/// What is kept explains what has grown when it is this part of it: memory may as well be mapped, or of a stack.
const EXPLAINS: f64 = 0.5;

/// Most responsible first.
pub(super) fn memory_culprits(job: &Job, times: Times, windows: &Windows) -> Vec<Culprit> {
    let Windows { before, whole, live, figures, .. } = windows;
    let rss = |(reading, _): &(Reading, Option<f64>)| reading.rss_bytes;
    let grown_bytes = grown_bytes(figures.iter().map(rss));
    let grown = growth_culprits(whole, before, grown_bytes);
    let Some((profile, in_use)) = live else { return grown };
    // From when it is known both what was allocated and what has grown.
    let start_ns = times.from_ns.max(in_use.since_ns);
    let recent = kept(profile, start_ns - in_use.since_ns);
    // The size of a process is of all that it has, if that is known.
    let all = kept(profile, 0).filter(|all| {
        job.breach.metric != Metric::MemoryGrowth && all.bytes as f64 >= EXPLAINS * job.process.rss_bytes as f64
    });
    let Some(kept) = all.clone().or(recent) else { return grown };
    let is_explained = all.is_some() || {
        let figures = figures.iter().filter(|(reading, _)| reading.at_ns >= start_ns).map(rss);
        explains(&kept, whole, start_ns.saturating_sub(times.from_ns), times, self::grown_bytes(figures))
    };
    if !is_explained && grown.is_empty() {
        return grown; // what is kept is not what has grown either
    }
    let (first, second) = if is_explained { (kept.culprits, grown) } else { (grown, kept.culprits) };
    let mut named = first;
    for culprit in second {
        let is_same = |known: &Culprit| known.function == culprit.function && known.module == culprit.module;
        if !named.iter().any(is_same) {
            named.push(culprit);
        }
    }
    named.truncate(MAX);
    named
}

/// What a process has grown by, from what was resident over time: nothing when it was ending.
fn grown_bytes(resident: impl Iterator<Item = u64>) -> u64 {
    let mut resident = resident.filter(|bytes| *bytes > 0);
    let first = resident.next().unwrap_or(0);
    resident.last().unwrap_or(0).saturating_sub(first)
}

/// Whether as much was kept as has become resident in the same time, in bytes a second; `from_ns` is since the start of the
/// evidence, `grown_bytes` what the process has grown by since then.
fn explains(kept: &Kept, whole: &Profile, from_ns: u64, times: Times, grown_bytes: u64) -> bool {
    // The evidence may begin later than was asked for.
    let shift_ns = times.end_ns.saturating_sub(times.from_ns).saturating_sub(whole.header.duration_ns);
    let from_ns = from_ns.saturating_sub(shift_ns);
    let resident = whole.samples.iter().filter(|s| s.measure == Measure::Resident && s.time_ns >= from_ns);
    let resident = resident.map(|sample| sample.value).sum::<u64>().max(grown_bytes);
    let seconds = |time_ns: u64| time_ns.max(1) as f64 / 1e9;
    let grown = resident as f64 / seconds(whole.header.duration_ns.saturating_sub(from_ns));
    kept.bytes as f64 / seconds(kept.span_ns) >= EXPLAINS * grown
}

#[cfg(test)]
mod tests;
