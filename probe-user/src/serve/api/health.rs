//! What is asked by those who watch the daemon, and by those who write clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{Health, JSON};
use crate::serve::answer;
use crate::serve::problem::Problem;
use crate::serve::server::Server;

pub async fn healthz() -> Result<Response, Problem> {
    answer::fresh(StatusCode::OK, &Health { status: "ok" })
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
