//! Server-sent events: what happens to rules, as it happens. A client that comes back says by `Last-Event-ID` where it
//! was; where events are forgotten since, it gets an event `missed`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use schemars::JsonSchema;
use serde::Deserialize;

use super::parameters::Parameters;
use crate::control::Cursor;
pub use crate::control::Event;
use crate::serve::hub::{Item, Listener};
use crate::serve::problem::Problem;
use crate::serve::server::{Server, blocking};

/// How often a comment is sent when nothing else is, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a browser is to come back after the connection broke.
const RETRY: Duration = Duration::from_secs(3);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Of this target only.
    target: Option<String>,
    /// Of this rule only.
    rule: Option<String>,
}

pub async fn events(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Parameters(query): Parameters<Query>,
) -> Result<Response, Problem> {
    let after = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default().parse::<Cursor>());
    let after = after.transpose().map_err(|reason| Problem::parameter("Last-Event-ID", reason))?;
    let listener = blocking(move || {
        server.hub.listen(after).ok_or_else(|| {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many clients listen to events").retry_after(30)
        })
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    let mut response = Sse::new(stream(listener.await?, query)).keep_alive(keep_alive).into_response();
    // Proxies would keep events until there are enough of them.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

fn stream(listener: Listener, query: Query) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let hello = Some(sse::Event::default().comment("connected").retry(RETRY));
    unfold((hello, listener, query), |(hello, mut listener, query)| async move {
        if let Some(hello) = hello {
            return Some((Ok(hello), (None, listener, query)));
        }
        loop {
            let event = match listener.next().await? {
                Item::Missed => Some(sse::Event::default().event("missed").data("{}")),
                Item::Event(event) => written(&event, &query),
            };
            if let Some(event) = event {
                return Some((Ok(event), (None, listener, query)));
            }
        }
    })
}

/// The event as it is sent; `None` if the client has not asked for it.
fn written(event: &Event, query: &Query) -> Option<sse::Event> {
    let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    if !(is(&query.target, &event.target) && is(&query.rule, &event.rule)) {
        return None;
    }
    let json = serde_json::to_string(event).ok()?;
    Some(sse::Event::default().id(event.id.to_string()).event(event.kind.name()).data(json))
}
