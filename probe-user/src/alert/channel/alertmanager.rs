//! Alertmanager: alerts of version 2 of its API, and the form in which it hands alerts on, which is the webhook's default.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::alert::http::{Call, Endpoint};
use crate::alert::story::{Style, compared, title};
use crate::alert::{Batch, Failure, Notice, NoticeKind};
use crate::snapshot::Timestamp;

/// Longest annotation, in bytes.
const MAX_ANNOTATION: usize = 4096;

/// The time that means none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// See the head of this file.
#[derive(Clone, Debug, PartialEq)]
pub struct Alertmanager {
    /// Its address, below which `/api/v2/alerts` is.
    pub endpoint: Endpoint,
    /// How long an alert holds unless it is told again.
    pub hold: Duration,
}

impl Alertmanager {
    pub(super) fn deliver(&self, batch: &Batch<'_>, now: SystemTime) -> Result<(), Failure> {
        let alerts = batch.notices.iter().map(|notice| {
            let ends = notice.resolved_at.filter(|_| notice.is_resolved());
            let ends = ends.unwrap_or_else(|| if notice.is_resolved() { now } else { now + self.hold }.into());
            json!({
                "labels": labels(notice),
                "annotations": annotations(notice, batch),
                "startsAt": notice.started_at.to_string(),
                "endsAt": ends.max(notice.started_at).to_string(),
                "generatorURL": generator(notice, batch),
            })
        });
        let body = serde_json::to_vec(&alerts.collect::<Vec<_>>()).map_err(Failure::refused)?;
        let url = self.endpoint.read_url()?;
        let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
        let call = Call { method: "POST", url, content_type: "application/json", body, secrets: Vec::new() };
        self.endpoint.send(call)?.expect_success().map(drop)
    }
}

/// A batch as Alertmanager's webhooks have it, version 4.
pub(super) fn webhook_body(batch: &Batch<'_>) -> Value {
    let alerts = batch.notices.iter().map(|notice| {
        let ends = notice.resolved_at.map(|at: Timestamp| at.to_string()).filter(|_| notice.is_resolved());
        json!({
            "status": status(notice.is_resolved()),
            "labels": labels(notice),
            "annotations": annotations(notice, batch),
            "startsAt": notice.started_at.to_string(),
            "endsAt": ends.unwrap_or_else(|| NO_TIME.to_owned()),
            "generatorURL": generator(notice, batch),
            "fingerprint": notice.fingerprint,
        })
    });
    let alerts: Vec<Value> = alerts.collect();
    let labels = common(&alerts, "labels");
    let group: Map<String, Value> = labels.iter().filter(|(name, _)| *name == "alertname").map(own).collect();
    let key: Vec<String> = group.iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{{}}}", key.join(", ")),
        "truncatedAlerts": 0,
        "status": status(batch.is_resolved()),
        "receiver": batch.channel,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": common(&alerts, "annotations"),
        "externalURL": batch.links.external_url.clone().unwrap_or_default(),
        "alerts": alerts,
    })
}

fn own((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// What all alerts have in common under a key.
fn common(alerts: &[Value], key: &str) -> Map<String, Value> {
    let Some(first) = alerts.first().and_then(|alert| alert[key].as_object()) else { return Map::new() };
    first.iter().filter(|(name, value)| alerts.iter().all(|alert| alert[key][*name] == **value)).map(own).collect()
}

fn status(is_resolved: bool) -> &'static str {
    if is_resolved { "resolved" } else { "firing" }
}

fn generator(notice: &Notice, batch: &Batch<'_>) -> String {
    batch.links.page(notice).or_else(|| batch.links.external_url.clone()).unwrap_or_default()
}

/// What tells alerts apart: the same for an alert and its end.
fn labels(notice: &Notice) -> Map<String, Value> {
    let own = notice.labels.iter().map(|(name, value)| (label_name(name), value.clone()));
    let Notice { rule, target, metric, host, process, function, .. } = notice;
    let fixed = [
        ("alertname", Some(rule)),
        ("service", Some(target)),
        ("metric", Some(metric)),
        ("function", function.as_ref()),
        ("instance", Some(&host.name)),
        ("container", process.container.as_ref()),
        ("pod", process.pod.as_ref()),
    ];
    let fixed = fixed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
    let pid = ("pid".to_owned(), process.pid.to_string());
    // Empty labels are none. What is ours comes last and wins.
    let labels = own.chain(fixed).chain([pid]).filter(|(_, value)| !value.is_empty());
    labels.map(|(name, value)| (name, value.into())).collect()
}

/// A name as Prometheus allows it.
fn label_name(name: &str) -> String {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let clean: String = name.chars().map(|c| if is_letter(c) { c } else { '_' }).collect();
    if clean.starts_with(|c: char| c.is_ascii_digit()) || clean.is_empty() { format!("_{clean}") } else { clean }
}

fn annotations(notice: &Notice, batch: &Batch<'_>) -> Map<String, Value> {
    let one = Batch { notices: std::slice::from_ref(notice), ..*batch };
    let Notice { host, process, .. } = notice;
    let fixed = [
        ("summary", format!("{}: {}", title(notice), compared(notice))),
        ("description", Style::PLAIN.compose(&one, MAX_ANNOTATION)),
        ("culprit", notice.culprit.clone()),
        ("note", notice.note.clone()),
        ("value", notice.value.to_string()),
        ("threshold", notice.threshold.to_string()),
        ("unit", notice.unit.clone()),
        ("host_ip", host.ip.clone()),
        ("host_cpu_percent", format!("{:.1}", host.cpu_percent)),
        ("exe", process.exe.clone()),
        ("process_cpu_percent", format!("{:.1}", process.cpu_percent)),
        ("process_cpu_percent_of_host", format!("{:.1}", process.cpu_percent_of_host)),
        ("snapshot", notice.snapshot.as_ref().map(|snapshot| snapshot.id.to_string()).unwrap_or_default()),
        ("snapshot_link", batch.links.place(notice)),
        ("skipped", if notice.kind == NoticeKind::Skipped { "true".to_owned() } else { String::new() }),
    ];
    let filled = fixed.into_iter().filter(|(_, value)| !value.is_empty());
    filled.map(|(name, value)| (name.to_owned(), value.into())).collect()
}
