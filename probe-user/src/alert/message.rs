//! What an alert says.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// The function that was measured; `None` for metrics of processes.
    #[serde(default)]
    pub function: Option<String>,
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
            function: sidecar.function.as_ref().map(|function| function.name.clone()),
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
        message.text = message.sentence(sidecar);
        message
    }

    fn sentence(&self, sidecar: &Sidecar) -> String {
        let Self { rule, target, pid, host, metric, culprit, snapshot, .. } = self;
        let compared = sidecar.metric.compare(sidecar.value, sidecar.side, sidecar.threshold);
        let of = sidecar.function.as_ref().map_or(String::new(), |function| format!(" of {}", function.name));
        let culprit = if culprit.is_empty() { String::new() } else { format!(": {culprit}") };
        let snapshot = match snapshot {
            Some(SnapshotLink { id, path }) => format!("snapshot {id} in {}", path.display()),
            None => "the snapshot could not be stored yet".to_owned(),
        };
        format!("{rule}: {target} (pid {pid} on {host}): {metric}{of} {compared}{culprit}; {snapshot}")
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Metric;
    use crate::snapshot::Function;
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
        let mut slow = sidecar.clone();
        (slow.metric, slow.value, slow.threshold) = (Metric::FunctionP99, 20_300_000.0, 10_000_000.0);
        slow.function = Some(Function { name: "push".into(), ..Function::default() });
        let text = Message::new(&slow, None).text;
        assert!(text.contains("(pid 42 on node): function.p99 of push 20.3ms above 10.0ms: match_rules"), "{text}");
        let without = Message::new(&sidecar, None);
        assert!(without.text.ends_with("; the snapshot could not be stored yet"), "{}", without.text);
        let json = serde_json::to_value(&message).expect("serializes");
        assert_eq!(json["snapshot"]["path"], "/var/lib/probe/X");
        assert_eq!(json["breached_at"], "2023-11-14T22:13:55.000Z");
    }
}
