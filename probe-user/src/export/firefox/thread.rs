//! One thread of the Firefox format: its samples over a tree of stacks, and the tables that the tree needs.

use std::collections::HashMap;
use std::hash::Hash;

use serde_json::{Value, json};

use super::super::flat::{self, Weight};
use super::{category, file_name, milliseconds};
use crate::symbolize::{Frame, Kind, Profile, Sample};

/// The thread table of `thread`; `samples` are in the order of time.
pub fn table(profile: &Profile, thread: usize, samples: &[&Sample]) -> Value {
    let info = &profile.threads[thread];
    let process = &profile.processes[info.process as usize];
    let mut tables = Tables::default();
    let samples = sample_table(profile, samples, &mut tables);
    json!({
        "name": if info.name.is_empty() { format!("Thread <{}>", info.tid) } else { info.name.clone() },
        "isMainThread": info.tid == process.pid,
        "pid": process.pid.to_string(),
        "tid": info.tid.to_string(),
        "processName": flat::process_name(process),
        "processType": "default",
        "processStartupTime": 0.0,
        "processShutdownTime": Value::Null,
        "registerTime": 0.0,
        "unregisterTime": Value::Null,
        "pausedRanges": [],
        "showMarkersInTimeline": false,
        "samples": samples,
        "stackTable": tables.stack_table(),
        "frameTable": tables.frame_table(),
        "funcTable": tables.func_table(),
        "resourceTable": tables.resource_table(profile),
        "nativeSymbols": { "length": 0, "address": [], "functionSize": [], "libIndex": [], "name": [] },
        "markers": {
            "length": 0, "category": [], "data": [], "endTime": [], "name": [], "phase": [], "startTime": [],
        },
        // Last: the tables above add to it.
        "stringArray": tables.strings.list,
    })
}

fn sample_table(profile: &Profile, samples: &[&Sample], tables: &mut Tables) -> Value {
    let (kind, weigh): (_, fn(&Sample) -> Value) = match Weight::of(&profile.header) {
        Weight::Samples => ("samples", |sample| json!(sample.count)),
        Weight::Microseconds => ("tracing-ms", |sample| json!(milliseconds(sample.value))),
        Weight::Bytes => ("bytes", |sample| json!(sample.value)),
    };
    let mut stacks = HashMap::new();
    let stack =
        samples.iter().map(|sample| *stacks.entry(sample.stack).or_insert_with(|| tables.stack(profile, sample.stack)));
    let stack: Vec<_> = stack.collect();
    let mut before = 0;
    let deltas =
        samples.iter().map(|sample| milliseconds(sample.time_ns - std::mem::replace(&mut before, sample.time_ns)));
    let mut table = json!({
        "length": samples.len(),
        "stack": stack,
        "timeDeltas": deltas.collect::<Vec<_>>(),
        "weight": samples.iter().map(|sample| weigh(sample)).collect::<Vec<_>>(),
        "weightType": kind,
    });
    if profile.header.event == "cpu" && profile.header.unit == "nanoseconds" {
        table["threadCPUDelta"] = samples.iter().map(|sample| sample.value / 1000).collect();
    }
    table
}

/// Distinct entries in the order in which they were first seen.
struct Interner<T> {
    list: Vec<T>,
    index: HashMap<T, u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { list: Vec::new(), index: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    fn id(&mut self, entry: T) -> u32 {
        *self.index.entry(entry).or_insert_with_key(|entry| {
            self.list.push(entry.clone());
            self.list.len() as u32 - 1
        })
    }

    fn column<C: Into<Value>>(&self, get: impl Fn(&T) -> C) -> Value {
        self.list.iter().map(get).collect()
    }

    fn constant(&self, value: impl Into<Value>) -> Value {
        vec![value.into(); self.list.len()].into()
    }
}

#[derive(Default)]
struct Tables {
    strings: Interner<String>,
    /// Modules, as indexes into the profile's.
    resources: Interner<u32>,
    functions: Interner<Function>,
    frames: Interner<Position>,
    /// (caller, frame).
    stacks: Interner<(Option<u32>, u32)>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Function {
    name: u32,
    file: Option<u32>,
    resource: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Position {
    function: u32,
    line: Option<u32>,
    category: u32,
    inline_depth: u32,
}

impl Tables {
    /// The index of the stack's leaf in the tree; `None` for an empty stack.
    fn stack(&mut self, profile: &Profile, stack: u32) -> Option<u32> {
        let mut leaf = None;
        if let Some(reason) = &profile.stacks[stack as usize].truncated {
            let name = self.strings.id(flat::truncated(reason));
            let function = self.functions.id(Function { name, file: None, resource: None });
            let position = Position { function, line: None, category: category::OTHER, inline_depth: 0 };
            leaf = Some(self.push(leaf, position));
        }
        let mut inline_depth = 0;
        for frame in profile.frames(stack) {
            inline_depth = if frame.inlined { inline_depth + 1 } else { 0 };
            let position = self.position(profile, &frame, inline_depth);
            leaf = Some(self.push(leaf, position));
        }
        leaf
    }

    fn push(&mut self, caller: Option<u32>, position: Position) -> u32 {
        let frame = self.frames.id(position);
        self.stacks.id((caller, frame))
    }

    fn position(&mut self, profile: &Profile, frame: &Frame<'_>, inline_depth: u32) -> Position {
        let name = self.strings.id(flat::frame_name(frame).into_owned());
        let file = (!frame.file.is_empty()).then(|| self.strings.id(frame.file.to_owned()));
        let module = profile.locations[frame.location as usize].module;
        let resource = module.map(|module| {
            self.strings.id(file_name(&profile.modules[module as usize].path).to_owned());
            self.resources.id(module)
        });
        let category = match frame.kind {
            Kind::User => category::USER,
            Kind::Kernel => category::KERNEL,
        };
        let function = self.functions.id(Function { name, file, resource });
        Position { function, line: (frame.line > 0).then_some(frame.line), category, inline_depth }
    }

    fn stack_table(&self) -> Value {
        json!({
            "length": self.stacks.list.len(),
            "prefix": self.stacks.column(|(caller, _)| *caller),
            "frame": self.stacks.column(|(_, frame)| *frame),
        })
    }

    fn frame_table(&self) -> Value {
        json!({
            "length": self.frames.list.len(),
            // Offsets in a file are not the virtual addresses that the format means.
            "address": self.frames.constant(-1),
            "inlineDepth": self.frames.column(|frame| frame.inline_depth),
            "category": self.frames.column(|frame| frame.category),
            "subcategory": self.frames.constant(0),
            "func": self.frames.column(|frame| frame.function),
            "nativeSymbol": self.frames.constant(Value::Null),
            "innerWindowID": self.frames.constant(0),
            "line": self.frames.column(|frame| frame.line),
            "column": self.frames.constant(Value::Null),
        })
    }

    fn func_table(&self) -> Value {
        json!({
            "length": self.functions.list.len(),
            "name": self.functions.column(|function| function.name),
            "isJS": self.functions.constant(false),
            "relevantForJS": self.functions.constant(false),
            "resource": self.functions.column(|function| function.resource.map_or(-1, i64::from)),
            "fileName": self.functions.column(|function| function.file),
            "lineNumber": self.functions.constant(Value::Null),
            "columnNumber": self.functions.constant(Value::Null),
        })
    }

    fn resource_table(&mut self, profile: &Profile) -> Value {
        let name = |module: &u32| file_name(&profile.modules[*module as usize].path).to_owned();
        let names: Vec<_> = self.resources.list.iter().map(|module| self.strings.id(name(module))).collect();
        json!({
            "length": self.resources.list.len(),
            "lib": self.resources.column(|module| *module),
            "name": names,
            "host": self.resources.constant(Value::Null),
            "type": self.resources.constant(1),
        })
    }
}
