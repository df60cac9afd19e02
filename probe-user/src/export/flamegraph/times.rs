//! When the samples of a profile were taken: its weights by short stretches of time.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::flat::Weight;
use crate::symbolize::{Profile, Sample};
use crate::target::ThreadState;

/// Columns of equal length, in the order of time.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "FlamegraphTimes")]
pub struct Times {
    /// Length of a stretch in milliseconds.
    pub bucket_ms: u32,
    /// The stretch, counted from the start of the recording.
    pub bucket: Vec<u32>,
    /// Index into the threads.
    pub thread: Vec<u32>,
    /// Index into the nodes.
    pub node: Vec<u32>,
    /// In the unit of the flamegraph.
    pub weight: Vec<u64>,
    /// Index into the states.
    pub state: Vec<u8>,
}

/// The weights by stretches of `bucket_ms`; `None` for a profile that does not know its times. `node` says where a sample
/// ends, `state` the number of a state.
pub fn times(
    profile: &Profile,
    bucket_ms: u32,
    weight: Weight,
    mut node: impl FnMut(&Sample) -> u32,
    mut state: impl FnMut(ThreadState) -> u8,
) -> Option<Times> {
    if profile.samples.iter().all(|sample| sample.time_ns == 0) {
        return None;
    }
    let length_ns = u64::from(bucket_ms.max(1)) * 1_000_000;
    let mut sums: BTreeMap<(u32, u32, u32, u8), u64> = BTreeMap::new();
    for sample in &profile.samples {
        let bucket = u32::try_from(sample.time_ns / length_ns).unwrap_or(u32::MAX);
        *sums.entry((bucket, sample.thread, node(sample), state(sample.state))).or_default() += weight.get(sample);
    }
    let mut times = Times { bucket_ms, ..Times::default() };
    for ((bucket, thread, node, state), weight) in sums {
        times.bucket.push(bucket);
        times.thread.push(thread);
        times.node.push(node);
        times.weight.push(weight);
        times.state.push(state);
    }
    Some(times)
}
