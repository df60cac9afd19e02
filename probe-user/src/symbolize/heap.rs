//! Sampled allocations on their way into a profile: each with what it stands for.

use std::collections::HashMap;

use super::profile::{Allocated, Sample};
use super::symbolizer::Builder;
use crate::heap::{Weight, weigh};
use crate::record::{Allocation, HeapRecord, Recording, Stack};

/// The event's name where what is in use is followed.
pub const LIVE_EVENT: &str = "malloc-live";

impl Builder {
    /// Where what is in use is followed, samples are worth that, and what was allocated besides; else what was allocated.
    pub(super) fn add_allocations(&mut self, recording: &Recording) {
        let HeapRecord { live, .. } = &recording.heap;
        let mut inner = HashMap::new();
        for allocation in &recording.allocations {
            let Some((sample, weight)) = self.allocation(recording, allocation, &mut inner) else { continue };
            self.profile.samples.push(match live {
                None => Sample { count: weight.count, value: weight.bytes, ..sample },
                Some(_) => Sample { allocated: weight, ..sample },
            });
        }
        for allocation in live.iter().flatten() {
            let Some((sample, weight)) = self.allocation(recording, allocation, &mut inner) else { continue };
            self.profile.samples.push(Sample { count: weight.count, value: weight.bytes, ..sample });
        }
        // Nothing else is recorded together with them.
        if recording.heap.sample_bytes > 0 {
            self.profile.samples.sort_by_key(|sample| sample.time_ns);
        }
    }

    fn allocation(
        &mut self,
        recording: &Recording,
        allocation: &Allocation,
        inner: &mut HashMap<u32, bool>,
    ) -> Option<(Sample, Allocated)> {
        let Allocation { time_ns, pid, tid, size, mean, user } = *allocation;
        let heap = recording.heap.heaps.get(&pid);
        // An allocator that calls another, or itself: the caller has been there before.
        if let (Some(slot), Some(heap)) = (user, heap) {
            let is_inner = inner.entry(slot).or_insert_with(|| {
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
        let scale = heap.map_or(1.0, |heap| heap.scale.at(time_ns));
        let Weight { objects, bytes } = weigh(size, mean, scale);
        let weight = Allocated { count: objects.round() as u64, bytes: bytes.round() as u64 };
        let time_ns = time_ns.saturating_sub(recording.from_ns);
        Some((Sample { thread, stack, time_ns, ..Sample::default() }, weight))
    }
}

/// How allocations were sampled, in words: the allocators, how, and for how much of the time.
pub(super) fn sampler(record: &HeapRecord) -> String {
    let mut files: Vec<String> = record.heaps.values().flat_map(|heap| heap.allocators.files()).collect();
    files.sort();
    files.dedup();
    let shares = record.heaps.values().map(|heap| heap.scale.share());
    let share = shares.fold(1.0, f64::min);
    let attached = if share < 0.995 { format!(", attached {:.1} % of the time", 100.0 * share) } else { String::new() };
    format!("uprobes in {}, one sample in {}{attached}", files.join(" and "), size(record.sample_bytes))
}

fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}
