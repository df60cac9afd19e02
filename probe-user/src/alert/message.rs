//! What an alert says.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::monitor::Metric;
use crate::snapshot::{Sidecar, Timestamp};

/// The body of a webhook, and the words of the log line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Name of the service.
    pub target: String,
    /// Name of the rule.
    pub rule: String,
    /// What was measured.
    pub metric: String,
    /// The value that broke the rule.
    pub value: f64,
    /// What it was compared with.
    pub threshold: f64,
    /// The unit of both.
    pub unit: String,
    /// Name of the host.
    pub host: String,
    /// Address of the host; empty without one.
    pub ip: String,
    /// The process.
    pub pid: u32,
    /// Share of all the host's processors at work, in percent.
    pub host_cpu_percent: f64,
    /// CPU use of the process in percent of one core.
    pub process_cpu_percent: f64,
    /// Who did it, in one sentence; empty when that is not known.
    pub culprit: String,
    /// Since when the value was above the threshold.
    pub started_at: Timestamp,
    /// When the rule was broken.
    pub breached_at: Timestamp,
    /// The snapshot; `None` when it could not be stored so far.
    pub snapshot: Option<SnapshotLink>,
    /// All of it as one line of text.
    pub text: String,
}

/// Where the snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotLink {
    /// Its id.
    pub id: String,
    /// Its folder on the host.
    pub path: PathBuf,
}

impl Message {
    /// The message for a snapshot, with the folder it is stored in; `None` when it could not be stored so far.
    pub fn new(sidecar: &Sidecar, folder: Option<PathBuf>) -> Self {
        let mut message = Self {
            target: sidecar.target.clone(),
            rule: sidecar.rule.clone(),
            metric: sidecar.metric.name().to_owned(),
            value: sidecar.value,
            threshold: sidecar.threshold,
            unit: sidecar.unit.clone(),
            host: sidecar.host.name.clone(),
            ip: sidecar.host.ip.clone(),
            pid: sidecar.process.pid,
            host_cpu_percent: sidecar.host.cpu_percent,
            process_cpu_percent: sidecar.process.cpu_percent,
            culprit: sidecar.culprits.first().map(|culprit| culprit.sentence()).unwrap_or_default(),
            started_at: sidecar.exceeded_at,
            breached_at: sidecar.breached_at,
            snapshot: folder.map(|path| SnapshotLink { id: sidecar.id.to_string(), path }),
            text: String::new(),
        };
        message.text = message.to_string();
        message
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, target, pid, host, metric, value, threshold, unit, culprit, snapshot, .. } = self;
        let above = match Metric::ALL.iter().find(|known| known.name() == metric) {
            Some(known) => known.above(*value, *threshold),
            None => format!("{value:.1} above {threshold} {unit}"),
        };
        write!(f, "{rule}: {target} (pid {pid} on {host}): {metric} {above}")?;
        if !culprit.is_empty() {
            write!(f, ": {culprit}")?;
        }
        match snapshot {
            Some(SnapshotLink { id, path }) => write!(f, "; snapshot {id} in {}", path.display()),
            None => f.write_str("; the snapshot could not be stored yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::sidecar;

    #[test]
    fn the_text_says_what_who_and_where() {
        let sidecar = sidecar(ulid::Ulid::from_parts(1_700_000_035_000, 7));
        let message = Message::new(&sidecar, Some("/var/lib/probe/X".into()));
        assert_eq!(
            message.text,
            "checkout-cpu: checkout (pid 42 on node): cpu 97.5 above 80 percent of one core: match_rules went from 0 % to \
             88 % of the process; snapshot 01HF7YBW5R0000000000000007 in /var/lib/probe/X"
        );
        let without = Message::new(&sidecar, None);
        assert!(without.text.ends_with("; the snapshot could not be stored yet"), "{}", without.text);
        let json = serde_json::to_value(&message).expect("serializes");
        assert_eq!(json["snapshot"]["path"], "/var/lib/probe/X");
        assert_eq!(json["breached_at"], "2023-11-14T22:13:55.000Z");
    }
}
