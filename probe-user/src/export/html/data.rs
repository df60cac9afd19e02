//! The profile as the page's script takes it: one tree of calls for all threads, and how much each thread adds to which
//! of its nodes.

use std::collections::HashMap;

use serde::Serialize;

use super::super::Options;
use super::super::flat::{self, Weight};
use crate::symbolize::{Kind, Profile, Sample};

/// What the page shows. Tables are columns of numbers, which are quick to read and small.
#[derive(Serialize)]
pub struct Data<'a> {
    title: String,
    event: &'a str,
    /// `samples`, `microseconds` or `bytes`.
    unit: &'static str,
    sampler: &'a str,
    /// Samples per second and CPU; 0 when unknown.
    frequency: u64,
    /// CPU time that a sample stands for, in milliseconds; 0 where samples stand for none.
    #[serde(rename = "periodMs")]
    period_ms: f64,
    host: &'a str,
    kernel: &'a str,
    /// Milliseconds since the Unix epoch; 0 when unknown.
    #[serde(rename = "startedMs")]
    started_ms: f64,
    #[serde(rename = "durationMs")]
    duration_ms: f64,
    samples: u64,
    losses: Vec<(&'a str, u64)>,
    /// Samples whose stack was cut, by reason.
    cut: Vec<(&'a str, u64)>,
    threads: Vec<Thread<'a>>,
    strings: Vec<String>,
    functions: Functions,
    nodes: Nodes,
    /// What each thread adds to the nodes where its stacks end.
    weights: Weights,
}

#[derive(Serialize)]
struct Thread<'a> {
    pid: u32,
    process: String,
    tid: u32,
    name: &'a str,
}

/// Indexes into the strings, lines, and what the function is.
#[derive(Default, Serialize)]
struct Functions {
    name: Vec<u32>,
    file: Vec<u32>,
    /// The line in which most of the weight was seen.
    line: Vec<u32>,
    /// In how many lines there was any.
    lines: Vec<u32>,
    module: Vec<u32>,
    kind: Vec<u8>,
}

/// The tree: node 0 is its root, a parent stands before its children.
#[derive(Serialize)]
struct Nodes {
    parent: Vec<u32>,
    function: Vec<u32>,
    inlined: Vec<u8>,
}

#[derive(Default, Serialize)]
struct Weights {
    thread: Vec<u32>,
    node: Vec<u32>,
    weight: Vec<u64>,
}

/// What a function may be; the script has the same numbers.
mod kind {
    pub const USER: u8 = 0;
    pub const KERNEL: u8 = 1;
    pub const PROCESS: u8 = 2;
    pub const THREAD: u8 = 3;
    pub const CUT: u8 = 4;
    pub const ROOT: u8 = 5;
}

/// The page's data for `profile`.
pub fn data<'a>(profile: &'a Profile, options: &Options) -> Data<'a> {
    let header = &profile.header;
    let weight = Weight::of(header);
    let mut builder = Builder::new();
    for total in profile.totals() {
        builder.add(profile, options, &total, weight.get(&total));
    }
    let threads = profile.threads.iter().map(|thread| {
        let process = &profile.processes[thread.process as usize];
        Thread { pid: process.pid, process: flat::process_name(process), tid: thread.tid, name: &thread.name }
    });
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let is_time = weight == Weight::Samples && header.unit == "nanoseconds";
    Data {
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
        functions: builder.functions(),
        strings: builder.strings.list,
        nodes: builder.nodes,
        weights: builder.weights,
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

#[derive(Default)]
struct Strings {
    list: Vec<String>,
    index: HashMap<String, u32>,
}

impl Strings {
    fn id(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.index.get(text) {
            return id;
        }
        self.list.push(text.to_owned());
        self.index.insert(text.to_owned(), self.list.len() as u32 - 1);
        self.list.len() as u32 - 1
    }
}

/// What makes two frames the same function.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Function {
    name: u32,
    file: u32,
    module: u32,
    kind: u8,
}

struct Builder {
    strings: Strings,
    functions: Vec<Function>,
    function_index: HashMap<Function, u32>,
    /// (function, line) → weight.
    lines: HashMap<(u32, u32), u64>,
    nodes: Nodes,
    /// (parent, function) → node.
    node_index: HashMap<(u32, u32), u32>,
    weights: Weights,
}

impl Builder {
    fn new() -> Self {
        let mut builder = Self {
            strings: Strings::default(),
            functions: Vec::new(),
            function_index: HashMap::new(),
            lines: HashMap::new(),
            nodes: Nodes { parent: vec![0], function: vec![0], inlined: vec![0] },
            node_index: HashMap::new(),
            weights: Weights::default(),
        };
        builder.function("all", "", "", kind::ROOT);
        builder
    }

    fn add(&mut self, profile: &Profile, options: &Options, sample: &Sample, weight: u64) {
        let thread = &profile.threads[sample.thread as usize];
        let process = &profile.processes[thread.process as usize];
        let name = match flat::process_name(process) {
            name if process.pid == 0 => name,
            name => format!("{name} (pid {})", process.pid),
        };
        let function = self.function(&name, "", &process.exe, kind::PROCESS);
        let mut node = self.node(0, function, false);
        if options.threads {
            let function = self.function(&flat::thread_name(thread), "", "", kind::THREAD);
            node = self.node(node, function, false);
        }
        if let Some(reason) = &profile.stacks[sample.stack as usize].truncated {
            let function = self.function(&flat::truncated(reason), "", "", kind::CUT);
            node = self.node(node, function, false);
        }
        for frame in profile.frames(sample.stack) {
            let kind = if frame.kind == Kind::Kernel { kind::KERNEL } else { kind::USER };
            let name = if frame.function.is_empty() { "[unnamed]" } else { &*frame.function };
            let function = self.function(name, frame.file, frame.module, kind);
            if frame.line > 0 {
                *self.lines.entry((function, frame.line)).or_default() += weight;
            }
            node = self.node(node, function, frame.inlined);
        }
        self.weights.thread.push(sample.thread);
        self.weights.node.push(node);
        self.weights.weight.push(weight);
    }

    fn function(&mut self, name: &str, file: &str, module: &str, kind: u8) -> u32 {
        let id = |text: &str, strings: &mut Strings| strings.id(text);
        let function = Function {
            name: id(name, &mut self.strings),
            file: id(file, &mut self.strings),
            module: id(module, &mut self.strings),
            kind,
        };
        *self.function_index.entry(function).or_insert_with(|| {
            self.functions.push(function);
            self.functions.len() as u32 - 1
        })
    }

    fn node(&mut self, parent: u32, function: u32, inlined: bool) -> u32 {
        *self.node_index.entry((parent, function)).or_insert_with(|| {
            self.nodes.parent.push(parent);
            self.nodes.function.push(function);
            self.nodes.inlined.push(inlined.into());
            self.nodes.parent.len() as u32 - 1
        })
    }

    fn functions(&self) -> Functions {
        let mut columns = Functions::default();
        for function in &self.functions {
            columns.name.push(function.name);
            columns.file.push(function.file);
            columns.module.push(function.module);
            columns.kind.push(function.kind);
        }
        columns.line = vec![0; self.functions.len()];
        columns.lines = vec![0; self.functions.len()];
        let mut most = vec![(0, 0); self.functions.len()];
        for (&(function, line), &weight) in &self.lines {
            let function = function as usize;
            columns.lines[function] += 1;
            most[function] = most[function].max((weight, u32::MAX - line));
        }
        for (line, (_, reversed)) in columns.line.iter_mut().zip(most) {
            *line = if reversed == 0 { 0 } else { u32::MAX - reversed };
        }
        columns
    }
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
        assert_eq!(data.cut, [("<b>;\u{fffd}1 2", 1), ("no frame pointer", 1), ("stack not readable", 1)]);
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
