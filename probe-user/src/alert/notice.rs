//! What the collector tells of a breach, and all that a channel may say of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ulid::Ulid;

use crate::monitor::{Metric, Side};
use crate::snapshot::{Sidecar, Timestamp};
use crate::text::sanitize;

/// Most labels of a notice.
const MAX_LABELS: usize = 32;

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeKind {
    /// A rule was broken.
    #[default]
    Firing,
    /// A rule was broken by a process that is too busy to be profiled: there is no snapshot.
    Skipped,
    /// What was broken is normal again.
    Resolved,
}

/// A breach, or its end, for people. Readers of other versions read it too, so keys are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// Given when the notice is written to the journal; it holds the time.
    pub id: Ulid,
    /// What has happened.
    pub kind: NoticeKind,
    /// The same for all notices of one rule and process: see [`Notice::identify`].
    pub fingerprint: String,
    /// Name of the service.
    pub target: String,
    /// Name of the rule.
    pub rule: String,
    /// What was measured.
    pub metric: String,
    /// The function that was measured; `None` for metrics of processes.
    pub function: Option<String>,
    /// The value that broke the rule; for the end the value by which it is normal, or the same where none was measured.
    pub value: f64,
    /// What it was compared with.
    pub threshold: f64,
    /// The unit of both.
    pub unit: String,
    /// The side of the threshold on which the rule is broken.
    pub side: Side,
    /// The value and the threshold in words, with units for people: `97.5 above 80 percent of one core`; for the end `12.0,
    /// no longer 97.5 above 80 percent of one core`, or without the first part.
    pub compared: String,
    /// The host.
    pub host: NoticeHost,
    /// The process.
    pub process: NoticeProcess,
    /// Who did it, in one sentence; empty when that is not known.
    pub culprit: String,
    /// Since when the value was on the wrong side.
    pub started_at: Timestamp,
    /// When the rule was broken.
    pub breached_at: Timestamp,
    /// When it was normal again. Where that was before anybody was told that the rule was broken, the kind is that of a breach:
    /// people are told of both in one message.
    pub resolved_at: Option<Timestamp>,
    /// The snapshot; `None` when there is none, or none yet.
    pub snapshot: Option<SnapshotLink>,
    /// It was told before that the rule was broken, without what this one knows: the culprit, or why there is none. Where
    /// that was over by then, the kind is [`NoticeKind::Resolved`].
    pub is_completion: bool,
    /// A further sentence for people, such as why no culprit is named; empty without one.
    pub note: String,
    /// Names of the channels that are told.
    pub channels: Vec<String>,
    /// Further words about it, such as those of a cluster.
    pub labels: BTreeMap<String, String>,
}

/// The host of a notice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoticeHost {
    /// Its name.
    pub name: String,
    /// The address that its traffic leaves by; empty without one.
    pub ip: String,
    /// Share of all processors at work when the rule was broken, in percent.
    pub cpu_percent: f64,
}

/// The process of a notice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoticeProcess {
    /// Its id.
    pub pid: u32,
    /// Path of its executable, as it sees it.
    pub exe: String,
    /// Name or id of its container.
    pub container: Option<String>,
    /// Name or id of its pod.
    pub pod: Option<String>,
    /// CPU use in percent of one core when the rule was broken.
    pub cpu_percent: f64,
    /// The same in percent of all the host's cores.
    pub cpu_percent_of_host: f64,
}

/// Where the snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotLink {
    /// Its id.
    pub id: Ulid,
    /// Its folder on the host.
    pub path: PathBuf,
}

/// What is said of a cause where nothing that was recorded tells it.
const NOT_KNOWN: &str = "the cause is not known";

impl Notice {
    /// The notice of a breach by its snapshot, with the folder it is stored in; `None` when it could not be stored so far.
    pub fn of_snapshot(sidecar: &Sidecar, folder: Option<PathBuf>, channels: &[String]) -> Self {
        let notice = Self {
            id: Ulid::nil(),
            kind: NoticeKind::Firing,
            fingerprint: String::new(),
            target: sidecar.target.clone(),
            rule: sidecar.rule.clone(),
            metric: sidecar.metric.name().to_owned(),
            function: sidecar.function.as_ref().map(|function| function.name.clone()),
            value: sidecar.value,
            threshold: sidecar.threshold,
            unit: sidecar.unit.clone(),
            side: sidecar.side,
            compared: sidecar.metric.compare(sidecar.value, sidecar.side, sidecar.threshold),
            host: NoticeHost {
                name: sidecar.host.name.clone(),
                ip: sidecar.host.ip.clone(),
                cpu_percent: sidecar.host.cpu_percent,
            },
            process: NoticeProcess {
                pid: sidecar.process.pid,
                exe: sidecar.process.exe.clone(),
                container: sidecar.process.container_name.clone().or_else(|| sidecar.process.container.clone()),
                pod: sidecar.process.pod.clone(),
                cpu_percent: sidecar.process.cpu_percent,
                cpu_percent_of_host: sidecar.process.cpu_percent_of_host,
            },
            culprit: Some(sidecar.cause()).filter(|cause| !cause.is_empty()).unwrap_or_else(|| NOT_KNOWN.to_owned()),
            started_at: sidecar.exceeded_at,
            breached_at: sidecar.breached_at,
            resolved_at: None,
            snapshot: folder.map(|path| SnapshotLink { id: sidecar.id, path }),
            is_completion: false,
            note: String::new(),
            channels: channels.to_vec(),
            labels: BTreeMap::new(),
        };
        notice.identify()
    }

    /// Sets the fingerprint from target, rule, host, container and process, so that a breach and its end have the same.
    pub fn identify(mut self) -> Self {
        let mut hasher = Sha256::new();
        let container = self.process.container.as_deref().unwrap_or_default();
        let pid = self.process.pid.to_string();
        for part in [self.target.as_str(), &self.rule, &self.host.name, container, &pid] {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        self.fingerprint = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self
    }

    /// Its end, now, with the value by which it is normal; `None` when nothing was measured, as of a process that is gone.
    pub fn over(&self, value: Option<f64>) -> Self {
        let metric = Metric::ALL.iter().find(|metric| metric.name() == self.metric);
        let show = |value: f64| metric.map_or_else(|| value.to_string(), |metric| metric.show(value));
        let now = value.map_or(String::new(), |value| format!("{}, ", show(value)));
        let end = self.ended(format!("{now}no longer {}", self.compared));
        Self { value: value.unwrap_or(self.value), ..end }
    }

    /// Its end for those who are told, because there is no room for it any more.
    pub(super) fn out_of_sight(&self) -> Self {
        self.ended(format!("no longer followed, because too many alerts fire; it was {}", self.compared))
    }

    fn ended(&self, compared: String) -> Self {
        let resolved_at = Some(SystemTime::now().into());
        let (is_completion, note) = (false, String::new());
        Self { id: Ulid::nil(), kind: NoticeKind::Resolved, resolved_at, compared, is_completion, note, ..self.clone() }
    }

    /// Are both of the same breach? Clocks are read more than once.
    pub fn is_of_breach(&self, other: &Self) -> bool {
        const SAME_NS: u64 = 1_000_000_000;
        self.fingerprint == other.fingerprint && self.started_at.0.abs_diff(other.started_at.0) < SAME_NS
    }

    /// Is it the end of a breach?
    pub fn is_resolved(&self) -> bool {
        self.kind == NoticeKind::Resolved
    }

    /// Was a breach over before it was told?
    pub fn is_brief(&self) -> bool {
        !self.is_resolved() && self.resolved_at.is_some()
    }

    /// That it is over already, in words; `None` where it is not.
    pub fn brevity(&self) -> Option<String> {
        let until = self.resolved_at.filter(|_| self.is_brief())?.system();
        let lasted = until.duration_since(self.started_at.system()).unwrap_or_default().as_secs();
        Some(format!("it is over: it lasted {}", humantime::format_duration(Duration::from_secs(lasted.max(1)))))
    }

    /// A brief breach as its beginning and its end, for those who keep in mind what fires. The end has no id yet.
    pub fn split(&self) -> [Self; 2] {
        let end = Self { resolved_at: self.resolved_at, ..self.over(None) };
        [Self { resolved_at: None, ..self.clone() }, end]
    }

    /// A notice that is no breach, to see whether a channel works.
    pub fn test(host: NoticeHost, channel: &str, now: Timestamp) -> Self {
        let notice = Self {
            id: Ulid::from_datetime(now.system()),
            target: "probe".into(),
            rule: "test".into(),
            metric: "test".into(),
            value: 1.0,
            unit: "tests".into(),
            compared: "1 above 0 tests".into(),
            host,
            process: NoticeProcess {
                pid: std::process::id(),
                exe: std::env::current_exe().map(|exe| exe.display().to_string()).unwrap_or_default(),
                ..NoticeProcess::default()
            },
            culprit: format!("nobody: this is a test of the channel {channel}, sent by `probe alert test`"),
            started_at: now,
            breached_at: now,
            channels: vec![channel.to_owned()],
            ..Self::default()
        };
        notice.identify()
    }

    /// Makes all texts harmless to show and bounds them.
    pub(super) fn sanitize(&mut self) {
        let Self { fingerprint, target, rule, metric, unit, compared, culprit, note, host, process, function, .. } =
            self;
        let texts = [fingerprint, target, rule, metric, unit, compared, culprit, note, &mut host.name, &mut host.ip];
        let options = [function, &mut process.container, &mut process.pod].into_iter().filter_map(Option::as_mut);
        for text in texts.into_iter().chain(options).chain([&mut process.exe]) {
            *text = sanitize(text);
        }
        self.channels.truncate(MAX_LABELS);
        let labels = std::mem::take(&mut self.labels).into_iter().take(MAX_LABELS);
        self.labels = labels.map(|(name, value)| (sanitize(&name), sanitize(&value))).collect();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::snapshot::tests::sidecar;

    /// A notice of a breach, as the collector makes it, for this process and these channels.
    pub(crate) fn notice(pid: u32, channels: &[&str]) -> Notice {
        let mut sidecar = sidecar(Ulid::from_parts(1_700_000_035_000, 7));
        sidecar.process.pid = pid;
        let channels: Vec<String> = channels.iter().map(|&name| name.to_owned()).collect();
        Notice::of_snapshot(&sidecar, Some("/var/lib/probe/X".into()), &channels)
    }

    #[test]
    fn a_breach_and_its_end_have_one_fingerprint() {
        let firing = notice(42, &["ops"]);
        let mut resolved = Notice { kind: NoticeKind::Resolved, value: 3.0, ..firing.clone() }.identify();
        assert_eq!(firing.fingerprint, resolved.fingerprint);
        assert_eq!(firing.fingerprint.len(), 16);
        resolved.process.pid = 43;
        assert_ne!(firing.fingerprint, resolved.identify().fingerprint);
    }

    #[test]
    fn an_end_says_by_which_value_it_is_normal() {
        let firing = notice(42, &["ops"]);
        let over = firing.over(Some(12.0));
        assert_eq!((over.kind, over.value, over.threshold), (NoticeKind::Resolved, 12.0, 80.0));
        assert_eq!(over.compared, "12.0, no longer 97.5 above 80 percent of one core");
        assert!(over.resolved_at > Some(firing.breached_at) && over.fingerprint == firing.fingerprint);
        let gone = firing.over(None);
        assert_eq!((gone.value, &*gone.compared), (97.5, "no longer 97.5 above 80 percent of one core"));
        let slow =
            Notice { metric: Metric::FunctionP99.name().into(), compared: "20.3ms above 10.0ms".into(), ..firing };
        assert_eq!(slow.over(Some(3_000_000.0)).compared, "3.00ms, no longer 20.3ms above 10.0ms");
    }

    #[test]
    fn it_says_what_the_snapshot_knows() {
        let notice = notice(42, &["ops"]);
        assert_eq!(notice.compared, "97.5 above 80 percent of one core");
        assert_eq!(notice.culprit, "match_rules went from 0 % to 88 % of the process");
        assert_eq!(notice.started_at, Timestamp(1_700_000_030_000_000_000));
        let read: Notice = serde_json::from_value(serde_json::to_value(&notice).expect("JSON")).expect("read back");
        assert_eq!(read, notice);
    }

    #[test]
    fn other_versions_are_read() {
        let notice: Notice = serde_json::from_str(r#"{"rule": "hot", "weather": "fine"}"#).expect("read");
        assert_eq!((notice.rule.as_str(), notice.kind), ("hot", NoticeKind::Firing));
    }

    #[test]
    fn texts_are_made_harmless() {
        let mut hostile = notice(42, &[]);
        hostile.culprit = "evil\r\nBcc: all@example.org".into();
        hostile.labels = (0..100).map(|n| (format!("l{n}"), "x\n".repeat(5000))).collect();
        hostile.sanitize();
        assert!(!hostile.culprit.contains(['\r', '\n']));
        assert_eq!(hostile.labels.len(), MAX_LABELS);
        assert!(hostile.labels.values().all(|value| value.len() <= crate::text::MAX_NAME));
    }
}
