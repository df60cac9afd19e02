//! The state of the collector, of targets and of threads, and what can be asked of them on demand.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Seconds;
use crate::snapshot::Timestamp;
use crate::supervise;
use crate::target::ThreadState;

/// How the collector itself is. Counters count since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// Processor time that it took, in seconds.
    pub cpu_seconds: f64,
    /// Its resident memory, in bytes.
    pub rss_bytes: u64,
    /// Memory of its kernel maps, in bytes.
    pub map_bytes: u64,
    /// Samples a second and processor, at present.
    pub frequency: u32,
    /// Samples that were taken.
    pub samples: u64,
    /// Samples that are missing or cut: reason → number.
    pub losses: BTreeMap<String, u64>,
    /// Snapshots that were stored.
    pub snapshots_stored: u64,
    /// Snapshots that could not be stored.
    pub snapshots_failed: u64,
    /// Threads that hang: each has been at one piece of work for longer than that can take.
    pub stuck: Vec<StuckThread>,
    /// What fires now.
    pub firing: Vec<Firing>,
}

/// A thread that hangs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StuckThread {
    /// The process: `collector` or `server`.
    pub process: String,
    /// Its name.
    pub thread: String,
    /// How long it has been at one piece of work, in seconds.
    pub seconds: u64,
}

impl StuckThread {
    /// Those of this process, which is called so.
    pub fn here(process: &str) -> Vec<Self> {
        let of = |stuck: supervise::Stuck| Self {
            process: process.to_owned(),
            thread: stuck.thread,
            seconds: stuck.since.as_secs(),
        };
        supervise::stuck().into_iter().map(of).collect()
    }
}

/// A rule that is broken by a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Firing {
    /// Name of the rule.
    pub rule: String,
    /// Name of the target.
    pub target: String,
    /// The process; `None` for metrics of the host.
    pub pid: Option<u32>,
    /// When it was broken.
    pub since: Timestamp,
    /// The latest value, in the metric's unit; `None` if it cannot be measured.
    pub value: Option<f64>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetState {
    /// Its name.
    pub name: String,
    /// Its processes, by pid.
    pub processes: Vec<ProcessState>,
}

/// A process of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessState {
    /// Its id.
    pub pid: u32,
    /// Path of its executable, as it sees it; empty when unknown.
    pub exe: String,
    /// Its arguments, joined by spaces.
    #[serde(default)]
    pub cmdline: String,
    /// When it was started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Id of its container; `None` outside of one.
    #[serde(default)]
    pub container: Option<String>,
    /// How people call that; `None` where the host does not tell.
    #[serde(default)]
    pub container_name: Option<String>,
    /// Uid of its pod; `None` outside of one.
    #[serde(default)]
    pub pod: Option<String>,
    /// How many threads it has.
    #[serde(default)]
    pub threads: u64,
    /// How many calm stretches of it are kept, the typical one of which breaches are compared with. Without any it is what
    /// came before.
    #[serde(default)]
    pub calm_stretches: usize,
    /// The latest values by name of metric, as `cpu` and `memory.rss`, each in the unit that rules have for it. What
    /// cannot be measured is left out.
    pub metrics: BTreeMap<String, f64>,
}

/// A thread of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Its process.
    pub pid: u32,
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// What it does; `None` if that is not known.
    pub state: Option<ThreadState>,
    /// CPU use of late, in percent of one core; `None` if that is not known yet.
    pub cpu_percent: Option<f64>,
}

/// What to record of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordRequest {
    /// What is sampled: `cpu`, `off-cpu`, `page-fault`, or another event that the collector can record.
    pub event: String,
    /// How long.
    pub duration: Seconds,
    /// Samples a second and processor; that of the collector at present if it is left out.
    pub frequency: Option<u32>,
    /// One process of the target only.
    pub pid: Option<u32>,
}

impl Default for RecordRequest {
    fn default() -> Self {
        Self { event: "cpu".into(), duration: Seconds(std::time::Duration::from_secs(10)), frequency: None, pid: None }
    }
}

/// Whose threads to dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DumpRequest {
    /// One process of the target only.
    pub pid: Option<u32>,
}
