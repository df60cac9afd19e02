//! One tree of calls: strings, functions that refer to them, nodes that refer to functions and to their callers.

use std::ops::Range;

use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::flat;
use super::texts::Texts;
use crate::symbolize::{Kind, Profile, Sample};

/// Columns of equal length.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "FlamegraphFunctions")]
pub struct Functions {
    /// Index into the strings.
    pub name: Vec<u32>,
    /// Index into the strings.
    pub file: Vec<u32>,
    /// The line in which most of the weight was seen; 0 when unknown.
    pub line: Vec<u32>,
    /// In how many lines there was any.
    pub lines: Vec<u32>,
    /// Index into the strings.
    pub module: Vec<u32>,
    /// 0 a function of the program, 1 of the kernel, 2 a process, 3 a thread, 4 where a stack was cut, 5 the root.
    pub kind: Vec<u8>,
}

/// Columns of equal length: node 0 is the root, a parent stands before its children.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FlamegraphNodes")]
pub struct Nodes {
    /// Index into the nodes: who called.
    pub parent: Vec<u32>,
    /// Index into the functions.
    pub function: Vec<u32>,
    /// 1 where the compiler put the function into the one that called it.
    pub inlined: Vec<u8>,
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

/// What makes two frames the same function.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Function {
    name: u32,
    file: u32,
    module: u32,
    kind: u8,
}

/// A tree that grows.
pub struct Builder {
    /// The strings so far.
    pub strings: Texts,
    /// Processes of the same name are two if their ids differ.
    with_pids: bool,
    functions: Vec<Function>,
    function_index: HashMap<Function, u32>,
    /// Functions with lines, and the weight there.
    lines: Vec<(u32, u32, u64)>,
    /// The nodes so far.
    pub nodes: Nodes,
    /// (parent, function) → node.
    node_index: HashMap<(u32, u32), u32>,
}

impl Builder {
    /// A tree with its root.
    pub fn new(with_pids: bool) -> Self {
        let mut builder = Self {
            with_pids,
            strings: Texts::default(),
            functions: Vec::new(),
            function_index: HashMap::new(),
            lines: Vec::new(),
            nodes: Nodes { parent: vec![0], function: vec![0], inlined: vec![0] },
            node_index: HashMap::new(),
        };
        builder.function("all", "", "", kind::ROOT);
        builder
    }

    /// Takes in stacks of a profile, with a frame for the thread where that is asked for.
    pub fn stacks<'a>(&'a mut self, profile: &'a Profile, with_threads: bool) -> Stacks<'a> {
        Stacks {
            builder: self,
            profile,
            with_threads,
            bases: vec![None; profile.threads.len()],
            places: vec![None; profile.locations.len()],
            frames: Vec::new(),
        }
    }

    fn function(&mut self, name: &str, file: &str, module: &str, kind: u8) -> u32 {
        let strings = &mut self.strings;
        let function = Function { name: strings.id(name), file: strings.id(file), module: strings.id(module), kind };
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

    /// The functions so far.
    pub fn functions(&self) -> Functions {
        let mut columns = Functions::default();
        for function in &self.functions {
            columns.name.push(function.name);
            columns.file.push(function.file);
            columns.module.push(function.module);
            columns.kind.push(function.kind);
        }
        columns.line = vec![0; self.functions.len()];
        columns.lines = vec![0; self.functions.len()];
        let mut lines = self.lines.clone();
        lines.sort_unstable();
        let mut most = vec![0; self.functions.len()];
        for same in lines.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            let (function, line, _) = same[0];
            let weight = same.iter().fold(0, |sum: u64, (_, _, weight)| sum.saturating_add(*weight));
            let function = function as usize;
            columns.lines[function] += 1;
            // Of lines with the same weight it is the first.
            if columns.lines[function] == 1 || weight > most[function] {
                (most[function], columns.line[function]) = (weight, line);
            }
        }
        columns
    }
}

/// Stacks of one profile, on their way into the tree. What is the same for many of them is looked up once.
pub struct Stacks<'a> {
    builder: &'a mut Builder,
    profile: &'a Profile,
    with_threads: bool,
    /// By thread: the node below which its stacks are.
    bases: Vec<Option<u32>>,
    /// By location: its `frames`.
    places: Vec<Option<(u32, u32)>>,
    frames: Vec<Frame>,
}

/// A line of a location.
struct Frame {
    function: u32,
    inlined: bool,
    /// 0 when unknown.
    line: u32,
    weight: u64,
}

impl Stacks<'_> {
    /// Adds a sample's stack; returns the node where it ends. `weight` says which lines are the hottest.
    pub fn add(&mut self, sample: &Sample, weight: u64) -> u32 {
        let mut node = self.base(sample.thread);
        let stack = &self.profile.stacks[sample.stack as usize];
        if let Some(reason) = &stack.truncated {
            let function = self.builder.function(&flat::truncated(reason), "", "", kind::CUT);
            node = self.builder.node(node, function, false);
        }
        for &location in stack.locations.iter().rev() {
            for at in self.place(location) {
                let frame = &mut self.frames[at];
                frame.weight = frame.weight.saturating_add(weight);
                node = self.builder.node(node, frame.function, frame.inlined);
            }
        }
        node
    }

    /// The node of a process, or of a thread below it.
    fn base(&mut self, thread: u32) -> u32 {
        if let Some(node) = self.bases[thread as usize] {
            return node;
        }
        let info = &self.profile.threads[thread as usize];
        let process = &self.profile.processes[info.process as usize];
        let name = match flat::process_name(process) {
            name if process.pid == 0 || !self.builder.with_pids => name,
            name => format!("{name} (pid {})", process.pid),
        };
        let function = self.builder.function(&name, "", &process.exe, kind::PROCESS);
        let mut node = self.builder.node(0, function, false);
        if self.with_threads {
            let function = self.builder.function(&flat::thread_name(info), "", "", kind::THREAD);
            node = self.builder.node(node, function, false);
        }
        self.bases[thread as usize] = Some(node);
        node
    }

    /// The frames of a location, root first.
    fn place(&mut self, location: u32) -> Range<usize> {
        let (from, to) = self.places[location as usize].unwrap_or_else(|| {
            let from = self.frames.len() as u32;
            let mut frames = Vec::new();
            self.profile.add_frames(location, &mut frames);
            for frame in frames {
                let kind = if frame.kind == Kind::Kernel { kind::KERNEL } else { kind::USER };
                let name = if frame.function.is_empty() { "[unnamed]" } else { &*frame.function };
                let function = self.builder.function(name, frame.file, frame.module, kind);
                self.frames.push(Frame { function, inlined: frame.inlined, line: frame.line, weight: 0 });
            }
            let place = (from, self.frames.len() as u32);
            self.places[location as usize] = Some(place);
            place
        });
        from as usize..to as usize
    }
}

impl Drop for Stacks<'_> {
    /// Hands over which lines were hot.
    fn drop(&mut self) {
        let lines = self.frames.iter().filter(|frame| frame.line > 0);
        self.builder.lines.extend(lines.map(|frame| (frame.function, frame.line, frame.weight)));
    }
}
