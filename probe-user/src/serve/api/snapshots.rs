//! Stored snapshots.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::parameters::{Parameters, Stored, When, id};
use crate::monitor::{Metric, Side};
use crate::serve::answer;
use crate::serve::problem::Problem;
use crate::serve::render::{self, EventName, ProfileFormat, View};
use crate::serve::server::Server;
use crate::serve::snapshots::{Page, Query, Snapshots};
use crate::snapshot::{Sidecar, Timestamp, Window};

/// Snapshots on a page, unless the client says how many.
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Of this target.
    target: Option<String>,
    /// Of this rule.
    rule: Option<String>,
    /// Of the host of this name.
    host: Option<String>,
    /// Breached at this time or later.
    since: Option<When>,
    /// Breached before this time.
    until: Option<When>,
    /// Most snapshots of the page, at most 500.
    #[schemars(range(min = 1, max = 500), extend("default" = LIMIT))]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of snapshots.
#[derive(Debug, Serialize, JsonSchema)]
pub struct List {
    /// Newest first.
    snapshots: Vec<Summary>,
    /// The `cursor` of the next page; `null` when this is the last. The header `Link` has its address.
    next: Option<String>,
    /// How many snapshots cannot be read, and are not listed.
    damaged: usize,
}

/// The most important of a sidecar.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SnapshotSummary")]
struct Summary {
    #[schemars(with = "String", length(equal = 26))]
    id: Ulid,
    /// Name of the service.
    target: String,
    /// Name of the rule.
    rule: String,
    /// What was measured.
    metric: Metric,
    /// The function whose calls were measured, for metrics of functions.
    function: Option<String>,
    /// The value that broke the rule.
    value: f64,
    /// What it was compared with.
    threshold: f64,
    /// On which side of it the value was.
    side: Side,
    /// The unit of both.
    unit: String,
    started_at: Timestamp,
    breached_at: Timestamp,
    ended_at: Timestamp,
    /// Name of the host.
    host: String,
    /// Its address; empty without one.
    ip: String,
    /// The process.
    pid: u32,
    /// Who did it, in one sentence; empty when that is not known.
    culprit: String,
    /// The profiles that there are.
    windows: Vec<Window>,
    /// Bytes of these.
    bytes: u64,
}

impl From<&Sidecar> for Summary {
    fn from(sidecar: &Sidecar) -> Self {
        Self {
            id: sidecar.id,
            target: sidecar.target.clone(),
            rule: sidecar.rule.clone(),
            metric: sidecar.metric,
            function: sidecar.function.as_ref().map(|function| function.name.clone()),
            value: sidecar.value,
            threshold: sidecar.threshold,
            side: sidecar.side,
            unit: sidecar.unit.clone(),
            started_at: sidecar.started_at,
            breached_at: sidecar.breached_at,
            ended_at: sidecar.ended_at,
            host: sidecar.host.name.clone(),
            ip: sidecar.host.ip.clone(),
            pid: sidecar.process.pid,
            culprit: sidecar.cause(),
            windows: sidecar.profiles.iter().map(|profile| profile.window).collect(),
            bytes: sidecar.profiles.iter().map(|profile| profile.bytes).sum(),
        }
    }
}

pub async fn list(
    State(server): State<Arc<Server>>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, Problem> {
    let ListQuery { target, rule, host, since, until, limit, cursor } = query;
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::parameter("limit", format!("it is between 1 and {MAX_LIMIT}, not {limit}")));
    }
    let before = cursor.as_deref().map(Ulid::from_string).transpose();
    let before = before.map_err(|_| Problem::parameter("cursor", "it is not the `next` of a page"))?;
    let (since, until) = (since.map(|since| since.0), until.map(|until| until.0));
    let query = Query { target, rule, since, until, before, limit };
    let Page { snapshots, damaged, next } = server.look(move |snapshots| of_host(snapshots, query, host)).await?;
    let next = next.map(|next| next.to_string());
    let snapshots = snapshots.iter().map(Summary::from).collect();
    let list = List { snapshots, next, damaged: damaged.len() };
    let mut response = answer::json(&headers, &list)?;
    if let Some(next) = &list.next
        && let Ok(link) = HeaderValue::try_from(link(raw.as_deref().unwrap_or_default(), next))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// A page of a host's snapshots. The index does not know hosts, and a store is most often that of one: those of all are
/// looked through.
fn of_host(snapshots: &Snapshots, mut query: Query, host: Option<String>) -> Result<Page, Problem> {
    let Some(host) = host else { return snapshots.query(&query) };
    let limit = std::mem::replace(&mut query.limit, MAX_LIMIT);
    let mut found = Page { snapshots: Vec::new(), damaged: Vec::new(), next: None };
    loop {
        let page = snapshots.query(&query)?;
        found.damaged.extend(page.damaged);
        for sidecar in page.snapshots.into_iter().filter(|sidecar| sidecar.host.name == host) {
            if found.snapshots.len() == limit {
                found.next = found.snapshots.last().map(|last: &Sidecar| last.id);
                return Ok(found);
            }
            found.snapshots.push(sidecar);
        }
        query.before = page.next;
        if page.next.is_none() {
            return Ok(found);
        }
    }
}

/// The same query for the next page.
fn link(query: &str, next: &str) -> String {
    let kept = query.split('&').filter(|part| !part.is_empty() && !part.starts_with("cursor="));
    let query: Vec<&str> = kept.collect();
    let separator = if query.is_empty() { "" } else { "&" };
    format!("</api/v1/snapshots?{}{separator}cursor={next}>; rel=\"next\"", query.join("&"))
}

pub async fn get(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id(&name)?;
    let sidecar = server.look(move |snapshots| snapshots.sidecar(id)).await?;
    answer::json(&headers, &sidecar)
}

pub async fn remove(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let id = id(&name)?;
    server.ask(move |collector| collector.remove_snapshot(id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileQuery {
    /// `pprof` if it is left out.
    #[serde(default)]
    format: ProfileFormat,
    /// The id of a thread: its samples only.
    thread: Option<u32>,
    /// Which of the sidecar's `profiles`; `breach` if it is left out.
    window: Option<Window>,
    /// Which samples, in the formats that show one unit. If it is left out: what the rule was about.
    event: Option<EventName>,
    /// A frame for each thread, in the formats that merge them.
    #[serde(default)]
    threads: bool,
    /// In `flamegraph`: weights by stretches of so many milliseconds as well, from 10 to 10000.
    #[schemars(range(min = 10, max = 10000))]
    times: Option<u32>,
}

/// Lengths of stretches of time, in milliseconds.
const STRETCHES: std::ops::RangeInclusive<u32> = 10..=10_000;

/// Stretches of time are of lengths that pages can draw.
pub fn check_stretch(times: Option<u32>) -> Result<(), Problem> {
    if times.is_some_and(|times| !STRETCHES.contains(&times)) {
        let wrong = format!("it is between {} and {} milliseconds", STRETCHES.start(), STRETCHES.end());
        return Err(Problem::parameter("times", wrong));
    }
    Ok(())
}

pub async fn profile(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Parameters(query): Parameters<ProfileQuery>,
) -> Result<Response, Problem> {
    let ProfileQuery { format, thread, window, event, threads, times } = query;
    check_stretch(times)?;
    let stored = Stored { id: id(&name)?, window: window.unwrap_or(Window::Breach) };
    // A snapshot never changes, so that what is made of it depends on the program only.
    let tag = answer::tag(&[
        env!("CARGO_PKG_VERSION").as_bytes(),
        format!("{stored} {format:?} {thread:?} {event:?} {threads} {times:?}").as_bytes(),
    ]);
    let sidecar = find(&server, stored).await?;
    if let Some(response) = answer::not_modified(&headers, &tag) {
        return Ok(response);
    }
    let view = View { format, thread, threads, memory: shows_memory(event, &sidecar), stretch_ms: times };
    let work = move |snapshots: &Snapshots| {
        render::render(snapshots.profile(&sidecar, stored.window)?, &stored.to_string(), view)
    };
    let bytes = server.work(work).await?;
    let file = format!("{}-{}{}", stored.id, stored.window.name(), format.extension());
    Ok(shown(answer::tagged(&tag, format.media_type(), bytes), format, &file))
}

/// What is known of the breach, of which this profile was stored.
pub async fn find(server: &Server, stored: Stored) -> Result<Sidecar, Problem> {
    let sidecar = server.look(move |snapshots| snapshots.sidecar(stored.id)).await?;
    if sidecar.profiles.iter().any(|profile| profile.window == stored.window) {
        return Ok(sidecar);
    }
    let names: Vec<&str> = sidecar.profiles.iter().map(|profile| profile.window.name()).collect();
    Err(Problem::not_found(format!("there is not {stored}")).hint(format!("it has {}", names.join(", "))))
}

/// Whether memory is shown: as asked for, else what the snapshot is about.
pub fn shows_memory(asked: Option<EventName>, sidecar: &Sidecar) -> Option<bool> {
    asked.map(|event| event == EventName::PageFault).or_else(|| sidecar.metric.is_memory().then_some(true))
}

/// Adds the headers of a profile: a name for the file, and for images a policy that lets their own script run, but not
/// as a part of this site.
pub fn shown(mut response: Response, format: ProfileFormat, file: &str) -> Response {
    let kind = if format.is_shown() { "inline" } else { "attachment" };
    if let Ok(value) = HeaderValue::try_from(format!("{kind}; filename=\"{file}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    if format == ProfileFormat::Svg {
        let policy = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_same_query_with_another_cursor() {
        assert_eq!(link("", "N"), "</api/v1/snapshots?cursor=N>; rel=\"next\"");
        let link = link("limit=2&cursor=OLD&target=a%20b", "N");
        assert_eq!(link, "</api/v1/snapshots?limit=2&target=a%20b&cursor=N>; rel=\"next\"");
    }
}
