//! What is asked by those who watch the daemon, and by those who write clients.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{Health, JSON};
use crate::control::StuckThread;
use crate::serve::answer;
use crate::serve::problem::Problem;
use crate::serve::server::Server;

/// How long the collector may take to say how it is; that it does not is no fault of the server.
const PATIENCE: Duration = Duration::from_secs(2);

/// Well is a server none of whose threads hangs, nor any of its collector's.
pub async fn healthz(State(server): State<Arc<Server>>) -> Result<Response, Problem> {
    let mut stuck = StuckThread::here("server");
    let status = server.ask(|collector| collector.status());
    if let Ok(Ok(status)) = tokio::time::timeout(PATIENCE, status).await {
        stuck.extend(status.stuck);
    }
    if stuck.is_empty() {
        return answer::fresh(StatusCode::OK, &Health { status: "ok" });
    }
    let each = |StuckThread { process, thread, seconds }| format!("{thread} of the {process} for {seconds} s");
    let all: Vec<String> = stuck.into_iter().map(each).collect();
    let detail = format!("threads that alerts need hang: {}", all.join(", "));
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
}

/// Ready is a server whose collector answers and whose store can be read.
pub async fn readyz(State(server): State<Arc<Server>>) -> Result<Response, Problem> {
    let unavailable = |problem: Problem| problem.with_status(StatusCode::SERVICE_UNAVAILABLE);
    server.ask(|collector| collector.status()).await.map_err(unavailable)?;
    server.look(|snapshots| snapshots.totals()).await.map_err(unavailable)?;
    answer::fresh(StatusCode::OK, &Health { status: "ok" })
}

pub async fn document(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    let tag = answer::tag(&[server.document.as_bytes()]);
    answer::not_modified(&headers, &tag).unwrap_or_else(|| answer::tagged(&tag, JSON, server.document.clone()))
}
