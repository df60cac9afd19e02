//! Two stored profiles compared.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;

use super::parameters::{Parameters, Stored};
use super::snapshots::{find, shows_memory};
use crate::export::Options;
use crate::export::flamegraph::{Shape, write_comparison};
use crate::serve::answer;
use crate::serve::problem::Problem;
use crate::serve::render::{EventName, PACKED, read};
use crate::serve::server::Server;
use crate::serve::snapshots::Snapshots;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The one to compare with.
    a: Stored,
    /// The one that is compared.
    b: Stored,
    /// Which samples. If it is left out: what the rule of `b` was about.
    event: Option<EventName>,
    /// `flamegraph` if it is left out.
    #[serde(default)]
    format: DiffFormat,
}

/// How a comparison is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum DiffFormat {
    /// A tree to draw, as JSON.
    #[default]
    Flamegraph,
    /// The same in binary, for pages.
    Packed,
}

pub async fn diff(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Parameters(Query { a, b, event, format }): Parameters<Query>,
) -> Result<Response, Problem> {
    let tag = answer::tag(&[env!("CARGO_PKG_VERSION").as_bytes(), format!("{a} {b} {event:?} {format:?}").as_bytes()]);
    let (first, second) = (find(&server, a).await?, find(&server, b).await?);
    if let Some(response) = answer::not_modified(&headers, &tag) {
        return Ok(response);
    }
    let (shape, media_type) = match format {
        DiffFormat::Flamegraph => (Shape::Json, "application/json"),
        DiffFormat::Packed => (Shape::Packed, PACKED),
    };
    let options = Options { memory: shows_memory(event, &second), ..Options::default() };
    let compare = move |snapshots: &Snapshots| {
        let profile = |sidecar, stored: Stored| read(&snapshots.profile(sidecar, stored.window)?, &stored.to_string());
        let (first, second) = (profile(&first, a)?, profile(&second, b)?);
        let mut bytes = Vec::new();
        write_comparison(&first, &second, &options, shape, &mut bytes).map_err(|error| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{a} and {b} cannot be compared: {error:#}"))
        })?;
        Ok(bytes)
    };
    Ok(answer::tagged(&tag, media_type, server.work(compare).await?))
}
