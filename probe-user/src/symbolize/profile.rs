//! `Profile`: stacks with names, ready to be exported, stored, compared or shown. It is what every room after
//! `symbolize` speaks. Tables refer to each other by index; an index is valid in its own profile only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::target::ThreadState;

/// The event of waits.
pub const OFF_CPU: &str = "off-cpu";
/// What tells of them.
pub const SCHED_SWITCH: &str = "sched_switch";
/// The event of samples of memory.
pub const PAGE_FAULT: &str = "page-fault";
/// What makes them, and the tier of memory that this is.
pub const PAGE_FAULTS: &str = "page_fault_user (tier 1)";

/// What is counted beside the losses without being one: stacks through code without tables, by rows that were derived from its
/// instructions.
pub const DERIVED_STACKS: &str = "stacks with frames derived from code";

/// A symbolized recording: tables of processes, threads, modules, locations and stacks, and the samples over them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// What was measured, how, when and on which host.
    pub header: Header,
    /// Processes that gave samples.
    pub processes: Vec<ProcessInfo>,
    /// Threads that gave samples.
    pub threads: Vec<ThreadInfo>,
    /// Executables and libraries that locations refer to.
    pub modules: Vec<Module>,
    /// Distinct code addresses with their names.
    pub locations: Vec<Location>,
    /// Distinct stacks.
    pub stacks: Vec<Stack>,
    /// What was seen: a thread with a stack at a time.
    pub samples: Vec<Sample>,
    /// What is missing from this profile: reason → number of samples (or stacks) it happened to.
    pub losses: BTreeMap<String, u64>,
}

/// How a profile came to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The events, joined by commas: `cpu`, `off-cpu` (where threads wait), `page-fault` (where memory grows); or by itself
    /// `malloc` (memory that was allocated), `malloc-live` (memory in use), `threads` (a dump), `calls` (slow ones).
    pub event: String,
    /// Unit of [`Sample::value`]: `nanoseconds`, `bytes`. Beside times, memory is in bytes nevertheless.
    pub unit: String,
    /// What made the samples: `cpu-cycles` (hardware), `cpu-clock` (a timer), `sched_switch` (waits), `page_fault_user`.
    pub sampler: String,
    /// Samples per second and CPU; 0 where every event is taken.
    pub frequency: u64,
    /// Value of one sample, in `unit`; 0 where each has its own.
    pub period: u64,
    /// Wall-clock start, nanoseconds since the Unix epoch.
    pub started_at_ns: u64,
    /// Length of the recording in nanoseconds.
    pub duration_ns: u64,
    /// Host name.
    pub host: String,
    /// Kernel release of the host.
    pub kernel: String,
    /// Where it is of memory in use: how much that is, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<InUse>,
}

/// An estimate of the memory in use, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUse {
    /// The estimate.
    pub bytes: u64,
    /// It is not less than this in 39 of 40 cases,
    pub low_bytes: u64,
    /// and not more than this.
    pub high_bytes: u64,
}

/// A process that gave samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Process id (the kernel's tgid) in the initial pid namespace.
    pub pid: u32,
    /// Service name when configured, else the command name.
    pub name: String,
    /// Path of the executable as the process sees it; empty when it could not be read.
    pub exe: String,
    /// Command line, joined by spaces; empty when it could not be read.
    pub cmdline: String,
}

/// A thread that gave samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ThreadInfo {
    /// Index into [`Profile::processes`].
    pub process: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// The thread's name (`comm`), at its last sample.
    pub name: String,
}

/// An executable file, a library or a pseudo module such as `[vdso]` or `[kernel]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Module {
    /// Path as the process sees it, or a name in brackets.
    pub path: String,
    /// GNU build id in lower-case hex; empty when the file has none.
    pub build_id: String,
    /// Address the module was mapped at when it was first seen.
    pub memory_start: u64,
    /// End of that mapping.
    pub memory_limit: u64,
    /// File offset of `memory_start`.
    pub file_offset: u64,
}

/// Where code runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The process's own code.
    #[default]
    User,
    /// The kernel.
    Kernel,
}

/// One code address with what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Location {
    /// User or kernel.
    pub kind: Kind,
    /// Index into [`Profile::modules`]; `None` when the address belongs to no known mapping.
    pub module: Option<u32>,
    /// Offset in the module's file; the address itself for the kernel and where `module` is `None`. Where it has no name,
    /// the beginning of its function as far as that is known.
    pub address: u64,
    /// Functions at this address: the innermost inlined one first, the function that was really compiled last.
    /// Empty when the address has no name.
    pub lines: Vec<Line>,
}

/// A function with the source position inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line {
    /// Demangled name, sanitized: no control characters, bounded length.
    pub function: String,
    /// Source file; empty when unknown.
    pub file: String,
    /// Line in `file`; 0 when unknown.
    pub line: u32,
}

/// A call stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stack {
    /// Indexes into [`Profile::locations`], leaf first; kernel frames, if any, come before user frames.
    pub locations: Vec<u32>,
    /// Why the stack ends before the thread's first frame; `None` when it is whole.
    pub truncated: Option<String>,
}

/// What the value of a sample measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Time, or whatever else the header's unit says.
    #[default]
    Time,
    /// Memory that has become resident, in bytes.
    Resident,
    /// Address space that was mapped, in bytes.
    Mapped,
}

impl Measure {
    /// True for bytes of memory.
    pub fn is_memory(self) -> bool {
        self != Self::Time
    }

    fn is_time(&self) -> bool {
        !self.is_memory()
    }
}

/// One or more samples of a thread with the same stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sample {
    /// Index into [`Profile::threads`].
    pub thread: u32,
    /// Index into [`Profile::stacks`].
    pub stack: u32,
    /// Nanoseconds since the start of the recording.
    pub time_ns: u64,
    /// How many samples this stands for.
    pub count: u64,
    /// Their value, in the header's unit.
    pub value: u64,
    /// What the thread did.
    #[serde(default)]
    pub state: ThreadState,
    /// What `value` measures.
    #[serde(default, skip_serializing_if = "Measure::is_time")]
    pub measure: Measure,
    /// Where the value is the memory in use: what was allocated.
    #[serde(default, skip_serializing_if = "Allocated::is_nothing")]
    pub allocated: Allocated,
}

impl Sample {
    /// True if it is of a thread at work.
    pub fn is_on_cpu(&self) -> bool {
        !self.measure.is_memory() && self.state == ThreadState::Running
    }
}

/// Memory that was allocated, whether it is in use or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Allocated {
    /// Allocations.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Allocated {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
