//! What is live: targets, their threads, and profiles on demand.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parameters::Parameters;
use super::snapshots::shown;
use crate::control::{Collector, DumpRequest, RecordRequest, Refusal, TargetState, Thread};
use crate::serve::answer;
use crate::serve::body::Json;
use crate::serve::on_demand::Permit;
use crate::serve::problem::Problem;
use crate::serve::render::{self, ProfileFormat, View};
use crate::serve::server::Server;

/// Longest recording.
const MAX_RECORDING: Duration = Duration::from_secs(300);
/// How much longer than it is to take a recording may take, with the names of everything that was seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The targets.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TargetList")]
pub struct List {
    /// In the order of the configuration.
    targets: Vec<TargetState>,
}

/// The threads of a target.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ThreadList")]
pub struct Threads {
    /// The busiest first.
    threads: Vec<Thread>,
}

pub async fn status(State(server): State<Arc<Server>>) -> Result<Response, Problem> {
    answer::fresh(StatusCode::OK, &server.ask(|collector| collector.status()).await?)
}

pub async fn list(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Response, Problem> {
    answer::json(&headers, &List { targets: server.ask(|collector| collector.targets()).await? })
}

pub async fn threads(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    answer::json(&headers, &Threads { threads: server.ask(move |collector| collector.threads(&name)).await? })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormatQuery {
    /// `pprof` if it is left out.
    #[serde(default)]
    format: ProfileFormat,
    /// A frame for each thread, in the formats that merge them.
    #[serde(default)]
    threads: bool,
}

pub async fn record(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<FormatQuery>,
    Json(request): Json<RecordRequest>,
) -> Result<Response, Problem> {
    let duration = request.duration.0;
    if duration.is_zero() || duration > MAX_RECORDING {
        let reason = format!("it is above 0 and at most {} seconds", MAX_RECORDING.as_secs());
        return Err(
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("duration: {reason}")).field("duration", reason)
        );
    }
    let permit = server.recordings.begin(duration)?;
    let file = format!("{name}-{}", request.event);
    // Gone with this call, which ends when its client leaves.
    let waiting = Arc::new(());
    let waits = Arc::downgrade(&waiting);
    let is_wanted = move || waits.strong_count() > 0;
    let measured = measure(&server, permit, move |collector| collector.record(&name, &request, &is_wanted));
    let bytes = tokio::time::timeout(duration + PATIENCE, measured)
        .await
        .unwrap_or_else(|_| Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "the recording did not end in time")))?;
    drop(waiting);
    answer_with(&server, bytes, "the recording", query, &file).await
}

pub async fn dump(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<FormatQuery>,
    Json(request): Json<DumpRequest>,
) -> Result<Response, Problem> {
    let permit = server.dumps.begin(Duration::from_secs(1))?;
    let file = format!("{name}-dump");
    let bytes = measure(&server, permit, move |collector| collector.dump(&name, &request)).await?;
    answer_with(&server, bytes, "the dump", query, &file).await
}

/// The permit is given back when the collector is done, even if the client has not waited for it.
async fn measure(
    server: &Server,
    permit: Permit,
    ask: impl FnOnce(&dyn Collector) -> Result<Vec<u8>, Refusal> + Send + 'static,
) -> Result<Vec<u8>, Problem> {
    server
        .ask(move |collector| {
            let _permit = permit;
            ask(collector)
        })
        .await
}

async fn answer_with(
    server: &Server,
    pprof: Vec<u8>,
    what: &'static str,
    FormatQuery { format, threads }: FormatQuery,
    file: &str,
) -> Result<Response, Problem> {
    let view = View { format, threads, ..View::default() };
    let bytes = server.work(move |_| render::render(pprof, what, view)).await?;
    // Names of targets may hold what a header cannot.
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.,".contains(c) { c } else { '_' };
    let file: String = file.chars().map(safe).collect();
    let response = ([(header::CONTENT_TYPE, format.media_type())], bytes).into_response();
    Ok(shown(response, format, &format!("{file}{}", format.extension())))
}
