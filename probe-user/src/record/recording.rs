//! `Recording`: a stretch of the flight recorder, with all that is needed to name it later, also without its processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::stacks::{Slot, Stack};

/// A sample in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// User stack, if there is one.
    pub user: Option<Slot>,
    /// Kernel stack, if there is one.
    pub kernel: Option<Slot>,
}

/// Names of a thread and of its process, as they were last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// The thread's name.
    pub name: String,
}

/// A process in a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedProcess {
    /// Service name if one was given, else the command name.
    pub name: String,
    /// Path of the executable.
    pub exe: String,
    /// Command line.
    pub cmdline: String,
}

/// Samples with what they refer to.
#[derive(Debug, Default)]
pub struct Recording {
    /// What made the samples.
    pub clock: &'static str,
    /// Samples per second and CPU.
    pub frequency: u64,
    /// Begin, `CLOCK_MONOTONIC` nanoseconds.
    pub from_ns: u64,
    /// End, `CLOCK_MONOTONIC` nanoseconds.
    pub to_ns: u64,
    /// In the order of their arrival.
    pub samples: Vec<Sample>,
    /// The stacks of `samples`. A missing one was lost on its way.
    pub stacks: HashMap<Slot, Arc<Stack>>,
    /// By process and thread id.
    pub threads: HashMap<(u32, u32), Thread>,
    /// By process id.
    pub processes: HashMap<u32, RecordedProcess>,
    /// What is missing: reason → count.
    pub losses: BTreeMap<String, u64>,
}
