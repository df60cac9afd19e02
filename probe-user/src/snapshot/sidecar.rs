//! The sidecar, `snapshot.json`: what is known of a breach beside its profiles. A reader of a later version reads it too,
//! so keys are only ever added.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::latency::Row;
use crate::monitor::{Culprit, Gain, Metric, Side};
use crate::target::ThreadState;
use crate::text::mebibytes;

/// The version of the format that is written here.
pub const VERSION: u32 = 2;

/// What is known of a breach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sidecar {
    /// The snapshot's id, which begins with the time of the breach.
    #[schemars(with = "String", length(equal = 26))]
    pub id: Ulid,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Name of the service.
    pub target: String,
    /// Name of the rule.
    pub rule: String,
    /// What was measured.
    pub metric: Metric,
    /// The function whose calls were measured, for metrics of functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Function>,
    /// The value that broke the rule: the worst until then.
    pub value: f64,
    /// What it was compared with.
    pub threshold: f64,
    /// On which side of it the value was.
    #[serde(default)]
    pub side: Side,
    /// The unit of both.
    pub unit: String,
    /// Start of the evidence: of the window `before`.
    pub started_at: Timestamp,
    /// Since when the value was above the threshold: end of the window `before`, start of the window `breach`.
    pub exceeded_at: Timestamp,
    /// When the rule was broken: end of the window `breach`, start of the window `after`.
    pub breached_at: Timestamp,
    /// End of the evidence: of the window `after`.
    pub ended_at: Timestamp,
    /// Start of the window `baseline`; `None` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_at: Option<Timestamp>,
    /// The host at the breach.
    pub host: Host,
    /// The process at the breach.
    pub process: Process,
    /// Process and host from `started_at` to `ended_at`, about one reading a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// The threads whose stacks were kept, the busiest first.
    pub threads: Vec<Thread>,
    /// The threads whose stacks were left out.
    #[serde(default)]
    pub other_threads: OtherThreads,
    /// What the process holds more of than before, for the metrics `threads` and `fds`; the most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gains: Vec<Gain>,
    /// The functions that explain the breach, most responsible first.
    pub culprits: Vec<Culprit>,
    /// How the allocations of the window `live` were followed; `None` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// What is missing from the profiles: reason → number of samples.
    pub losses: BTreeMap<String, u64>,
    /// The stored profiles.
    #[serde(deserialize_with = "known_profiles")]
    pub profiles: Vec<ProfileEntry>,
}

impl Sidecar {
    /// The cause in one sentence, as far as it is known; empty where nothing is.
    pub fn cause(&self) -> String {
        let who = if self.metric == Metric::Threads { "who started them" } else { "who opened them" };
        match (self.culprits.first(), self.gains.first()) {
            (Some(culprit), _) => culprit.sentence(),
            (None, Some(gain)) if gain.is_plain() => gain.sentence(),
            (None, Some(gain)) => format!("{}; {who} is not known", gain.sentence()),
            (None, None) => self.growth().unwrap_or_default(),
        }
    }

    /// What the process grew by, where it is not known who took it.
    fn growth(&self) -> Option<String> {
        let mut resident = self.figures.iter().map(|figure| figure.rss_bytes).filter(|bytes| *bytes > 0);
        let first = resident.next().filter(|_| self.metric.is_memory())?;
        let grown = resident.next_back()?.saturating_sub(first);
        (grown > 0).then(|| {
            let grown = mebibytes(grown);
            format!(
                "the process grew by {grown}; who took it is not known (pages of mapped files that are cached already \
                 are not followed)"
            )
        })
    }
}

/// A function that is timed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Function {
    /// Its name in the configuration.
    pub name: String,
    /// What it belongs to; may be empty.
    pub group: String,
    /// Where it is, as configured.
    pub symbol: String,
    /// Its figures at the breach, of the last 10 seconds.
    pub row: Row,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// The address that its traffic leaves by; empty without one.
    pub ip: String,
    /// Processors online.
    pub cpus: u32,
    /// Share of all processors at work, in percent.
    pub cpu_percent: f64,
    /// Kernel release.
    pub kernel: String,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Path of its executable, as it sees it.
    pub exe: String,
    /// Its arguments, joined by spaces.
    pub cmdline: String,
    /// CPU use in percent of one core.
    pub cpu_percent: f64,
    /// CPU use in percent of all the host's cores.
    pub cpu_percent_of_host: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// How many threads it has.
    pub threads: u64,
    /// Id of its container; `None` outside of one, or where that is not known.
    pub container: Option<String>,
    /// How people call that, in Kubernetes `NAMESPACE/POD/CONTAINER`; `None` where the host does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Uid of its Kubernetes pod; `None` outside of one.
    #[serde(default)]
    pub pod: Option<String>,
}

/// A process and its host at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// When.
    pub at: Timestamp,
    /// The rule's value, in the snapshot's unit; `None` where there was none.
    pub value: Option<f64>,
    /// CPU use of the process in percent of one core.
    pub cpu_percent: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// How many threads it has.
    pub threads: u64,
    /// Share of all the host's processors at work, in percent.
    pub host_cpu_percent: f64,
}

/// A thread whose stacks were kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Its samples on the CPU from `exceeded_at` on.
    pub samples: u64,
    /// CPU use in that time, in percent of one core.
    pub cpu_percent: f64,
    /// What it did in the moment of the breach; `None` if that is not known.
    #[serde(default)]
    pub state: Option<ThreadState>,
}

/// The threads whose stacks were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherThreads {
    /// How many there were in either window.
    pub threads: u64,
    /// Their samples in the window `before`.
    pub before_samples: u64,
    /// Their samples in the window `breach`.
    pub breach_samples: u64,
}

/// How the allocations of the window `live` were followed: it is not the whole heap, but what was allocated since then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Live {
    /// Since when.
    pub since: Timestamp,
    /// For which share of the time, from 0 to 1. What was seen in it is scaled up. What was freed in the rest was not seen to be:
    /// how much that is follows from how long objects of the same stack live where that is seen.
    pub attached_share: f64,
    /// One sample for so many bytes, on average, while it was looked.
    pub sample_bytes: u64,
    /// Bytes of what was allocated since then and is in use at the end of the evidence: an estimate.
    pub in_use_bytes: u64,
    /// Between which numbers that is, in 19 cases of 20; `None` where it was not estimated.
    #[serde(default)]
    pub in_use_interval: Option<[u64; 2]>,
}

/// A part of the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Until the value went above the threshold.
    Before,
    /// From then on until the rule was broken.
    Breach,
    /// From then on.
    After,
    /// A calm stretch of the process, the typical one of the last ones.
    Baseline,
    /// Every thread of the process in the moment of the breach.
    Dump,
    /// What was allocated and not freed until the end, for metrics of memory.
    Live,
}

impl Window {
    /// Its name in the sidecar and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Breach => "breach",
            Self::After => "after",
            Self::Baseline => "baseline",
            Self::Dump => "dump",
            Self::Live => "live",
        }
    }

    /// The file that holds its profile.
    pub fn file(self) -> &'static str {
        match self {
            Self::Before => "before.pb.gz",
            Self::Breach => "breach.pb.gz",
            Self::After => "after.pb.gz",
            Self::Baseline => "baseline.pb.gz",
            Self::Dump => "dump.pb.gz",
            Self::Live => "live.pb.gz",
        }
    }
}

/// A stored profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileEntry {
    /// The part of the evidence it holds.
    pub window: Window,
    /// Its format: `pprof` (compressed by gzip).
    pub format: String,
    /// Its size.
    pub bytes: u64,
}

/// A later version may have windows that this one does not know: the others are read all the same.
fn known_profiles<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<ProfileEntry>, D::Error> {
    let entries = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let is_known = |entry: &serde_json::Value| Window::deserialize(&entry["window"]).is_ok();
    let known = entries.into_iter().filter(is_known).map(serde_json::from_value);
    known.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// A wall-clock time, in nanoseconds since the Unix epoch; written as RFC 3339 in UTC, to the millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time as the standard library knows it.
    pub fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.system()).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time", "description": "RFC 3339, in UTC."})
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self::from).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sidecar(id: Ulid) -> Sidecar {
        Sidecar {
            id,
            version: VERSION,
            target: "checkout".into(),
            rule: "checkout-cpu".into(),
            metric: Metric::Cpu,
            function: None,
            value: 97.5,
            threshold: 80.0,
            side: Side::Above,
            unit: Metric::Cpu.unit().into(),
            started_at: Timestamp(1_700_000_000_000_000_000),
            exceeded_at: Timestamp(1_700_000_030_000_000_000),
            breached_at: Timestamp(1_700_000_035_000_000_000),
            ended_at: Timestamp(1_700_000_040_000_000_000),
            baseline_at: None,
            host: Host {
                name: "node".into(),
                ip: "192.0.2.7".into(),
                cpus: 4,
                cpu_percent: 31.0,
                kernel: "6.1.0".into(),
            },
            process: Process { pid: 42, exe: "/usr/bin/checkout".into(), threads: 9, ..Process::default() },
            figures: Vec::new(),
            threads: vec![Thread { tid: 43, name: "matcher".into(), samples: 180, cpu_percent: 94.7, state: None }],
            other_threads: OtherThreads { threads: 8, before_samples: 11, breach_samples: 3 },
            gains: Vec::new(),
            culprits: vec![Culprit { function: "match_rules".into(), share: 88.0, ..Culprit::default() }],
            live: None,
            losses: BTreeMap::from([("ring buffer full".into(), 2)]),
            profiles: Vec::new(),
        }
    }

    #[test]
    fn a_sidecar_is_read_back_as_it_was_written() {
        let sidecar = sidecar(Ulid::from_parts(1_700_000_035_000, 7));
        let text = serde_json::to_string_pretty(&sidecar).expect("serializes");
        assert!(text.contains(r#""breached_at": "2023-11-14T22:13:55.000Z""#), "{text}");
        assert!(text.contains(r#""id": "01HF7YBW5R0000000000000007""#), "{text}");
        assert_eq!(serde_json::from_str::<Sidecar>(&text).expect("parses"), sidecar);
    }

    #[test]
    fn keys_of_later_versions_are_no_hindrance() {
        let mut value = serde_json::to_value(sidecar(Ulid::nil())).expect("serializes");
        value["weather"] = "fine".into();
        value["version"] = 9.into();
        value["profiles"] = serde_json::json!([
            { "window": "yesterday", "format": "other" },
            { "window": "breach", "format": "pprof", "bytes": 3, "colour": "red" },
        ]);
        let read: Sidecar = serde_json::from_value(value.clone()).expect("parses");
        assert_eq!(read.version, 9);
        let breach = ProfileEntry { window: Window::Breach, format: "pprof".into(), bytes: 3 };
        assert_eq!(read.profiles, [breach]);
        value["profiles"] = serde_json::json!([{ "window": "breach" }]);
        assert!(serde_json::from_value::<Sidecar>(value).is_err(), "known windows are complete");
    }

    #[test]
    fn growth_that_nobody_is_known_for_is_said() {
        let figure = |rss_bytes| Figure { rss_bytes, ..Figure::default() };
        let figures = vec![figure(2 << 20), figure(101 << 20), figure(0)];
        let sidecar = Sidecar { culprits: Vec::new(), figures, ..sidecar(Ulid::nil()) };
        assert_eq!(sidecar.cause(), "");
        let sidecar = Sidecar { metric: Metric::MemoryRss, ..sidecar };
        assert!(sidecar.cause().starts_with("the process grew by 99.0 MiB; who took it is not known"));
    }
}
