//! Sampled allocations on their way into a profile: each with what it stands for.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use super::in_use::Lives;
use super::profile::{Allocated, InUse, Sample};
use super::symbolizer::Builder;
use crate::heap::{Tier, Weight, weigh, weigh_published};
use crate::record::{Allocation, HeapRecord, Recording, Stack};
use crate::text::mebibytes;

/// The event's name where what is in use is followed.
pub const LIVE_EVENT: &str = "malloc-live";

/// What is known of stacks in which was allocated.
#[derive(Default)]
struct Known {
    /// By slot: is it an allocator that calls another?
    inner: HashMap<u32, bool>,
    /// By stack: the part of an object that is not counted yet. A sample stands for 5.8 of them, say, and to round each
    /// would be wrong by as much for all.
    parts: HashMap<u32, f64>,
}

impl Builder {
    /// Where what is in use is followed, samples are worth that, and what was allocated besides; else what was allocated.
    pub(super) fn add_allocations(&mut self, recording: &Recording) {
        let HeapRecord { live, .. } = &recording.heap;
        let mut known = Known::default();
        for allocation in &recording.allocations {
            let Some((sample, weight)) = self.allocation(recording, allocation, 1.0, &mut known) else { continue };
            self.profile.samples.push(match live {
                None => Sample { count: weight.count, value: weight.bytes, ..sample },
                Some(_) => Sample { allocated: weight, ..sample },
            });
        }
        known.parts.clear();
        let Lives { alive, in_use } = Lives::of(recording);
        let possible = live.iter().flatten().zip(alive).filter(|(_, alive)| *alive > 0.0);
        for (allocation, alive) in possible {
            let Some((sample, weight)) = self.allocation(recording, allocation, alive, &mut known) else { continue };
            self.profile.samples.push(Sample { count: weight.count, value: weight.bytes, ..sample });
        }
        if let Some(InUse { low_bytes, high_bytes, .. }) = in_use {
            let [low, high] = [low_bytes, high_bytes].map(mebibytes);
            let _ = write!(self.profile.header.sampler, "; in use are {low} to {high} (19 cases of 20)");
        }
        self.profile.header.in_use = in_use;
        // Nothing else is recorded together with them.
        if recording.heap.sample_bytes > 0 {
            self.profile.samples.sort_by_key(|sample| sample.time_ns);
        }
    }

    fn allocation(
        &mut self,
        recording: &Recording,
        allocation: &Allocation,
        alive: f64,
        known: &mut Known,
    ) -> Option<(Sample, Allocated)> {
        let Allocation { time_ns, pid, tid, size, mean, weight, user } = *allocation;
        let heap = recording.heap.heaps.get(&pid);
        // An allocator that calls another, or itself: the caller has been there before.
        if let (Some(slot), Some(heap)) = (user, heap) {
            let is_inner = known.inner.entry(slot).or_insert_with(|| {
                let calls = |stack: &Stack| {
                    let mut callers =
                        stack.frames.iter().skip(1).map_while(|frame| Some((frame.module.as_ref()?, frame.offset)));
                    callers.any(|(module, offset)| heap.allocators.contains(module, offset.saturating_sub(1)))
                };
                recording.stacks.get(&slot).is_some_and(|stack| calls(stack))
            });
            if *is_inner {
                return None;
            }
        }
        let thread = self.thread(recording, pid, tid);
        let stack = self.stack(user, None);
        self.count_losses(stack, user, 1);
        let scale = alive * heap.map_or(1.0, |heap| heap.scale.at(time_ns));
        if scale == 0.0 {
            return None;
        }
        let Weight { objects, bytes } =
            if weight > 0 { weigh_published(size, weight, scale) } else { weigh(size, mean, scale) };
        let count = whole(objects, known.parts.entry(stack).or_default());
        let weight = Allocated { count, bytes: bytes.round() as u64 };
        let time_ns = time_ns.saturating_sub(recording.from_ns);
        Some((Sample { thread, stack, time_ns, ..Sample::default() }, weight))
    }
}

/// How allocations were sampled, in words: by which way, in which files, and for how much of the time.
pub(super) fn sampler(record: &HeapRecord) -> String {
    let tier = |(tier, files): (&Tier, &BTreeSet<String>)| {
        let how = match tier {
            Tier::Published => "at its own rate".to_owned(),
            Tier::Functions => format!("one sample in {}", size(record.sample_bytes)),
        };
        format!("{}, {how}", tier.within(files))
    };
    let tiers: Vec<String> =
        Tier::files(record.heaps.values().map(|heap| &*heap.allocators)).iter().map(tier).collect();
    let shares = record.heaps.values().map(|heap| heap.scale.share());
    let share = shares.fold(1.0, f64::min);
    let attached = if share < 0.995 { format!(", attached {:.1} % of the time", 100.0 * share) } else { String::new() };
    format!("{}{attached}", tiers.join("; "))
}

fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// A number as a whole one; what that is too little or too much is kept for the next.
fn whole(number: f64, part: &mut f64) -> u64 {
    let whole = (number + *part).round().max(0.0);
    *part += number - whole;
    whole as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_are_rounded_are_as_many_as_they_were() {
        let mut part = 0.0;
        let total: u64 = (0..1000).map(|_| whole(5.76, &mut part)).sum();
        assert_eq!(total, 5760);
        assert_eq!(whole(0.3, &mut part) + whole(0.3, &mut part), 1);
    }
}
