//! Which of the sampled allocations that nobody has seen end are in use, and how much that is.

use std::collections::BTreeMap;

use super::profile::InUse;
use crate::heap::{Object, Scale, chance, in_use, weigh, weigh_published};
use crate::record::{Allocation, Recording};

/// What is known of the memory in use of a recording.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// For each of the recording's live allocations: the probability that it is in use; 0 for those that are too young.
    pub alive: Vec<f64>,
    /// All of them.
    pub in_use: Option<InUse>,
}

impl Lives {
    /// By the allocations that were followed. What is younger than the recording asks for is left out.
    pub fn of(recording: &Recording) -> Self {
        let Some(live) = &recording.heap.live else { return Self::default() };
        let until_ns = recording.to_ns.saturating_sub(recording.heap.older_ns);
        let is_old = |allocation: &Allocation| allocation.time_ns <= until_ns;
        // Of a process of which it is not known when it was looked at, nothing can be told but what was seen.
        let alive = live.iter().map(|allocation| f64::from(u8::from(is_old(allocation)))).collect();
        let mut lives = Self { alive, in_use: None };
        let (mut bytes, mut down, mut up) = (0.0, 0.0, 0.0);
        for (&pid, heap) in &recording.heap.heaps {
            // By stack: objects, each with its number among the live ones.
            let mut cohorts: BTreeMap<_, (Vec<Object>, Vec<Option<usize>>)> = BTreeMap::new();
            let mut add = |allocation: &Allocation, ended, number| {
                let object = object(recording, allocation, ended);
                let (objects, numbers) = cohorts.entry(allocation.user).or_default();
                objects.push(object);
                numbers.push(number);
            };
            for ended in recording.heap.ended.iter().filter(|ended| ended.allocation.pid == pid) {
                add(&ended.allocation, Some((ended.ended_ns, ended.is_reused)), None);
            }
            for (number, allocation) in live.iter().enumerate().filter(|(_, allocation)| allocation.pid == pid) {
                add(allocation, None, Some(number));
            }
            let (objects, numbers): (Vec<_>, Vec<_>) = cohorts.into_values().unzip();
            let estimate = in_use(&objects, heap.scale.windows(), recording.to_ns, until_ns);
            let judged = numbers.iter().flatten().zip(estimate.alive.iter().flatten());
            for (number, alive) in judged.filter_map(|(number, alive)| Some(((*number)?, *alive))) {
                lives.alive[number] = lives.alive[number].min(alive);
            }
            let (low, high) = estimate.interval;
            let high = if objects.is_empty() { unseen(recording.heap.sample_bytes, &heap.scale) } else { high };
            // Processes are independent of each other.
            bytes += estimate.bytes;
            down += (estimate.bytes - low).powi(2);
            up += (high - estimate.bytes).powi(2);
        }
        let whole = |bytes: f64| bytes.max(0.0).round() as u64;
        let (low_bytes, high_bytes) = (whole(bytes - down.sqrt()), whole(bytes + up.sqrt()));
        lives.in_use = Some(InUse { bytes: whole(bytes), low_bytes, high_bytes });
        lives
    }
}

/// What may be in use where no sample was taken, in 19 of 20 cases: as many bytes as three samples stand for (the rule of three).
fn unseen(sample_bytes: u64, scale: &Scale) -> f64 {
    if scale.windows().is_empty() { 0.0 } else { 3.0 * sample_bytes as f64 / scale.share().max(1e-9) }
}

fn object(recording: &Recording, allocation: &Allocation, ended: Option<(u64, bool)>) -> Object {
    let Allocation { time_ns, pid, size, mean, weight, .. } = *allocation;
    let scale = recording.heap.heaps.get(&pid).map_or(1.0, |heap| heap.scale.at(time_ns));
    let (bytes, chance) = match weight {
        0 => (weigh(size, mean, 1.0).bytes, chance(size, mean)),
        weight => (weigh_published(size, weight, 1.0).bytes, size as f64 / weight as f64),
    };
    Object { allocated_ns: time_ns, ended, bytes, scaled: bytes * scale, chance }
}
