//! PagerDuty: events of version 2. An alert and its end have the same key, by which an incident is opened and resolved.

use serde_json::{Value, json};

use crate::alert::fit::{Measure, cut, plain};
use crate::alert::http::{Call, Endpoint};
use crate::alert::story::{compared, lines, title};
use crate::alert::{Batch, Failure, Notice, NoticeKind, Secret};

/// Where events go.
pub const URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// Longest summary, in characters.
const MAX_SUMMARY: usize = 1024;

/// Longest of the other texts, so that an event is far below 512 KB.
const MAX_DETAIL: usize = 4096;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq)]
pub struct PagerDuty {
    /// Where events go; see [`URL`].
    pub endpoint: Endpoint,
    /// The key of the service's integration.
    pub routing_key: Secret,
    /// `critical`, `error`, `warning` or `info`.
    pub severity: String,
}

impl PagerDuty {
    pub(super) fn deliver(&self, batch: &Batch<'_>) -> Result<(), Failure> {
        let key = self.routing_key.read()?;
        for notice in batch.notices {
            let mut event = self.event(notice, batch);
            event["routing_key"] = key.as_str().into();
            let body = serde_json::to_vec(&event).map_err(Failure::refused)?;
            let (url, secrets) = (self.endpoint.read_url()?, vec![key.clone()]);
            let call = Call { method: "POST", url, content_type: "application/json", body, secrets };
            self.endpoint.send(call)?.expect_success()?;
        }
        Ok(())
    }

    fn event(&self, notice: &Notice, batch: &Batch<'_>) -> Value {
        if notice.is_resolved() {
            return json!({"event_action": "resolve", "dedup_key": notice.fingerprint});
        }
        let limited = |text: &str| cut(text, MAX_DETAIL, Measure::Bytes, plain);
        let mut details: serde_json::Map<String, Value> =
            lines(notice).into_iter().map(|(name, value)| (name.to_lowercase(), limited(&value).into())).collect();
        let place = batch.links.place(notice);
        if !place.is_empty() {
            details.insert("snapshot".into(), limited(&place).into());
        }
        let culprit = if notice.culprit.is_empty() { String::new() } else { format!(": {}", notice.culprit) };
        let summary = format!("{}: {}{culprit}", title(notice), compared(notice));
        let severity = if notice.kind == NoticeKind::Skipped { "warning" } else { &self.severity };
        let mut event = json!({
            "event_action": "trigger",
            "dedup_key": notice.fingerprint,
            "client": "probe",
            "payload": {
                "summary": cut(&summary, MAX_SUMMARY, Measure::Characters, plain),
                "source": limited(&notice.host.name),
                "severity": severity,
                "timestamp": notice.breached_at.to_string(),
                "component": limited(&notice.target),
                "group": limited(&notice.rule),
                "class": limited(&notice.metric),
                "custom_details": details,
            },
        });
        if let Some(page) = batch.links.page(notice) {
            event["client_url"] = page.as_str().into();
            event["links"] = json!([{"href": page, "text": "Snapshot"}]);
        }
        event
    }
}
