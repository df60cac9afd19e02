//! What was told of breaches, from the journal of alerts.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::Parameters;
use crate::alert::{self, NoticeKind};
use crate::serve::answer;
use crate::serve::problem::Problem;
use crate::serve::server::{Server, blocking};
use crate::snapshot::Timestamp;

/// How many alerts a page has, and the most that it may have.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;

/// Which alerts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Most alerts of the page, at most 500.
    #[schemars(range(min = 1, max = 500), extend("default" = LIMIT))]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of alerts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct List {
    /// Newest first.
    alerts: Vec<Alert>,
    /// The `cursor` of the next page; `null` when this is the last.
    next: Option<String>,
}

/// What was told.
#[derive(Debug, Serialize, JsonSchema)]
struct Alert {
    /// Its id; it holds the time.
    id: String,
    /// When it was told.
    at: Timestamp,
    /// What: `firing`, `resolved`, `skipped` (too busy to be profiled), or `culprit`, where that was not known at first.
    kind: &'static str,
    /// Name of the rule.
    rule: String,
    /// Name of the target.
    target: String,
    /// The process.
    pid: u32,
    /// The value and the threshold in words.
    compared: String,
    /// Who did it, in one sentence; empty where that is not known.
    culprit: String,
    /// A further sentence; most often empty.
    note: String,
    /// The snapshot, if there is one.
    snapshot: Option<String>,
    /// Names of the channels that were to be told.
    channels: Vec<String>,
}

impl From<alert::Notice> for Alert {
    fn from(notice: alert::Notice) -> Self {
        let kind = match notice.kind {
            _ if notice.is_completion => "culprit",
            NoticeKind::Firing => "firing",
            NoticeKind::Skipped => "skipped",
            NoticeKind::Resolved => "resolved",
        };
        let notes = notice.brevity().into_iter().chain(Some(notice.note).filter(|note| !note.is_empty()));
        let note = notes.collect::<Vec<_>>().join("; ");
        Self {
            id: notice.id.to_string(),
            at: notice.id.datetime().into(),
            kind,
            rule: notice.rule,
            target: notice.target,
            pid: notice.process.pid,
            compared: format!("{} {}", notice.metric, notice.compared),
            culprit: notice.culprit,
            note,
            snapshot: notice.snapshot.map(|snapshot| snapshot.id.to_string()),
            channels: notice.channels,
        }
    }
}

pub async fn list(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Parameters(Query { limit, cursor }): Parameters<Query>,
) -> Result<Response, Problem> {
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::parameter("limit", format!("it is between 1 and {MAX_LIMIT}, not {limit}")));
    }
    let before = cursor.as_deref().map(Ulid::from_string).transpose();
    let before = before.map_err(|_| Problem::parameter("cursor", "it is not the `next` of a page"))?;
    let journal = server.journal.clone();
    let read =
        move || alert::history(&journal, before, limit).map_err(|error| Problem::from(anyhow::Error::new(error)));
    let notices = blocking(read).await?;
    let next = notices.last().filter(|_| notices.len() == limit).map(|last| last.id.to_string());
    answer::json(&headers, &List { alerts: notices.into_iter().map(Alert::from).collect(), next })
}
