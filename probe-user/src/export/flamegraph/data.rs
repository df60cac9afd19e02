//! A profile as one tree of calls for all threads, and how much each thread adds to which of its nodes.

use std::io::Write;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::Options;
use super::super::flat::{self, Weight};
use super::packed::Columns;
use super::texts::Texts;
use super::times::{Times, times};
use super::tree::{Builder, Functions, Nodes};
use crate::symbolize::Profile;
use crate::target::ThreadState;

/// A flamegraph to draw. Tables are columns of numbers, which are quick to read and small.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Flamegraph")]
pub struct Data<'a> {
    #[serde(flatten)]
    about: About<'a>,
    /// Every name, once.
    #[schemars(with = "Vec<String>")]
    strings: Texts,
    /// Every function, once.
    functions: Functions,
    /// The tree.
    nodes: Nodes,
    /// What each thread adds to the nodes where its stacks end.
    weights: Weights,
    /// The same by time, where that was asked for and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<Times>,
}

/// What is no column.
#[derive(Serialize, JsonSchema)]
struct About<'a> {
    /// What was measured, of which processes and where.
    title: String,
    /// The events, joined by commas.
    event: &'a str,
    /// `samples`, `microseconds` or `bytes`.
    unit: &'static str,
    /// What made the samples.
    sampler: &'a str,
    /// Samples per second and CPU; 0 when unknown.
    frequency: u64,
    /// CPU time that a sample stands for, in milliseconds; 0 where samples stand for none.
    period_ms: f64,
    /// Host name.
    host: &'a str,
    /// Kernel release of the host.
    kernel: &'a str,
    /// Milliseconds since the Unix epoch; 0 when unknown.
    started_ms: f64,
    /// Length of the recording in milliseconds; 0 when unknown.
    duration_ms: f64,
    /// How many samples there are.
    samples: u64,
    /// What is missing: reasons and numbers of samples.
    losses: Vec<(&'a str, u64)>,
    /// Samples whose stack was cut, by reason.
    cut: Vec<(&'a str, u64)>,
    /// The threads that gave samples.
    threads: Vec<Thread<'a>>,
    /// What threads did: `running`, `sleeping`, …
    states: Vec<&'static str>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FlamegraphThread")]
struct Thread<'a> {
    pid: u32,
    /// Name of the process.
    process: String,
    tid: u32,
    name: &'a str,
}

/// Columns of equal length.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "FlamegraphWeights")]
struct Weights {
    /// Index into the threads.
    thread: Vec<u32>,
    /// Index into the nodes.
    node: Vec<u32>,
    /// In the unit of the flamegraph.
    weight: Vec<u64>,
    /// Index into the states.
    state: Vec<u8>,
}

/// The flamegraph of a profile.
pub fn data<'a>(profile: &'a Profile, options: &Options) -> Data<'a> {
    let header = &profile.header;
    let weight = Weight::of(header);
    let mut builder = Builder::new(true);
    let mut stacks = builder.stacks(profile, options.threads);
    let mut weights = Weights::default();
    let mut states = States::default();
    for total in profile.totals() {
        weights.node.push(stacks.add(&total, weight.get(&total)));
        weights.thread.push(total.thread);
        weights.weight.push(weight.get(&total));
        weights.state.push(states.id(total.state));
    }
    let times = options.stretch_ms.and_then(|stretch_ms| {
        times(profile, stretch_ms, weight, |sample| stacks.add(sample, 0), |state| states.id(state))
    });
    drop(stacks);
    let threads = profile.threads.iter().map(|thread| {
        let process = &profile.processes[thread.process as usize];
        Thread { pid: process.pid, process: flat::process_name(process), tid: thread.tid, name: &thread.name }
    });
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let is_time = weight == Weight::Samples && header.unit == "nanoseconds";
    let about = About {
        title: flat::title(profile, options),
        event: &header.event,
        unit: weight.unit(),
        sampler: &header.sampler,
        frequency: header.frequency,
        period_ms: if is_time { milliseconds(header.period) } else { 0.0 },
        host: &header.host,
        kernel: &header.kernel,
        started_ms: milliseconds(header.started_at_ns),
        duration_ms: milliseconds(header.duration_ns),
        samples: profile.samples.iter().map(|sample| sample.count).sum(),
        losses: profile.losses.iter().map(|(reason, count)| (reason.as_str(), *count)).collect(),
        cut: cut(profile),
        threads: threads.collect(),
        states: states.names,
    };
    let functions = builder.functions();
    Data { about, strings: builder.strings, functions, nodes: builder.nodes, weights, times }
}

impl Data<'_> {
    /// Writes it in binary.
    pub fn pack(&self, out: &mut dyn Write) -> Result<()> {
        #[derive(Serialize)]
        struct Rest<'a> {
            #[serde(flatten)]
            about: &'a About<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            times: Option<Stretches>,
        }
        #[derive(Serialize)]
        struct Stretches {
            bucket_ms: u32,
        }
        let mut columns = Columns::of(&self.strings, &self.functions, &self.nodes);
        let Weights { thread, node, weight, state } = &self.weights;
        columns.numbers("weights.thread", thread);
        columns.numbers("weights.node", node);
        columns.numbers("weights.weight", weight);
        columns.numbers("weights.state", state);
        if let Some(Times { bucket_ms: _, bucket, thread, node, weight, state }) = &self.times {
            columns.numbers("times.bucket", bucket);
            columns.numbers("times.thread", thread);
            columns.numbers("times.node", node);
            columns.numbers("times.weight", weight);
            columns.numbers("times.state", state);
        }
        let times = self.times.as_ref().map(|times| Stretches { bucket_ms: times.bucket_ms });
        columns.write(&Rest { about: &self.about, times }, out)
    }
}

/// Names of states, each once.
#[derive(Default)]
struct States {
    names: Vec<&'static str>,
}

impl States {
    fn id(&mut self, state: ThreadState) -> u8 {
        let known = self.names.iter().position(|name| *name == state.name());
        known.unwrap_or_else(|| {
            self.names.push(state.name());
            self.names.len() - 1
        }) as u8
    }
}

fn cut(profile: &Profile) -> Vec<(&str, u64)> {
    let mut reasons = std::collections::BTreeMap::new();
    for sample in &profile.samples {
        if let Some(reason) = &profile.stacks[sample.stack as usize].truncated {
            *reasons.entry(reason.as_str()).or_default() += sample.count;
        }
    }
    reasons.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    #[test]
    fn the_tree_has_every_sample_once_and_parents_first() {
        let profile = fixture::clean();
        let data = data(&profile, &Options::default());
        assert_eq!(data.weights.weight.iter().sum::<u64>(), 23);
        assert!(data.nodes.parent.iter().enumerate().skip(1).all(|(node, &parent)| (parent as usize) < node));
        assert_eq!(data.about.states, ["running"]);
        assert!(data.times.is_none() && data.weights.state.iter().all(|&state| state == 0));
        assert_eq!(data.about.cut, [("<b>;\u{fffd}1 2", 1), ("no frame pointer", 1), ("stack not readable", 1)]);
    }

    #[test]
    fn weights_by_time_are_those_of_all_the_time_at_the_same_nodes() {
        let mut profile = fixture::clean();
        profile.samples[2].state = ThreadState::Sleeping;
        let data = data(&profile, &Options { stretch_ms: Some(50), ..Options::default() });
        let times = data.times.as_ref().unwrap();
        assert_eq!(data.about.states, ["running", "sleeping"]);
        let mut sums = std::collections::BTreeMap::new();
        let columns = times.node.iter().zip(&times.thread).zip(times.state.iter().zip(&times.weight));
        columns
            .for_each(|((node, thread), (state, weight))| *sums.entry((*node, *thread, *state)).or_default() += weight);
        let Weights { thread, node, weight, state } = &data.weights;
        for (at, sum) in weight.iter().enumerate() {
            assert_eq!(sums.remove(&(node[at], thread[at], state[at])), Some(*sum));
        }
        assert!(sums.is_empty(), "{sums:?}");
        let in_bucket = |wanted: u32| -> u64 {
            let of = times.bucket.iter().zip(&times.weight).filter(|(bucket, _)| **bucket == wanted);
            of.map(|(_, weight)| weight).sum()
        };
        assert_eq!([0, 1, 2, 3].map(in_bucket), [9, 6, 8, 0]);
    }

    #[test]
    fn a_function_is_one_whatever_the_line_and_shows_the_hottest() {
        let profile = fixture::clean();
        let data = data(&profile, &Options::default());
        let name = data.strings.iter().position(|text| text == "handle_request").unwrap() as u32;
        let function = data.functions.name.iter().position(|&id| id == name).unwrap();
        assert_eq!(data.functions.name.iter().filter(|&&id| id == name).count(), 1);
        assert_eq!((data.functions.line[function], data.functions.lines[function]), (42, 2));
    }
}
