//! What `probe view` serves: the application on one profile, or on the store of a snapshot, and downloads next to it.

use std::sync::{Arc, LazyLock};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};
use ulid::Ulid;

use super::api::{Parameters, check_stretch, shown};
use super::app::{self, Mode};
use super::problem::{self, Problem};
use super::render::{self, EventName, PACKED, ProfileFormat, View};
use super::server::{Definitions, Limits, Setup, blocking};
use super::{Access, answer, compression, guard, with_mode};
use crate::control::Absent;
use crate::export::{self, Format, Options};
use crate::snapshot::Store;
use crate::symbolize::{PAGE_FAULT, Profile};

/// What is served.
#[derive(Clone, Debug)]
pub struct Page {
    /// What it is called: the name of its file.
    pub name: String,
    /// The profile; shared, because each request renders it for itself.
    pub profile: Arc<Profile>,
    /// How to render it.
    pub options: Options,
}

/// What is known of the profile before it is drawn.
#[derive(Serialize)]
struct About<'a> {
    name: &'a str,
    /// The events that it can be shown for, the one that is asked for first.
    events: Vec<&'a str>,
    losses: Vec<(&'a str, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default)]
    format: ProfileFormat,
    thread: Option<u32>,
    event: Option<EventName>,
    #[serde(default)]
    threads: bool,
    times: Option<u32>,
}

/// The application on a profile. `/` leads to it; `/profile` with the ending of a format (`/profile.pb.gz`) is a download.
/// Requests that do not name a loopback host are refused. What the page asks for first is made at once, on a thread of
/// its own.
pub fn view(page: Page) -> Router {
    let served = Served::new(page);
    let first = Arc::clone(&served.first);
    // Where no thread can be had, the first request makes it.
    let _ = std::thread::Builder::new().name("first-view".into()).spawn(move || LazyLock::force(&first).is_ok());
    let routes = Router::new()
        .route("/", get(|| async { Redirect::temporary("/view") }))
        .route("/api/v1/view", get(about))
        .route("/api/v1/view/profile", get(profile))
        .fallback(|request: Request| async move {
            app::serve(Mode::Profile, &request).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
        });
    guarded(downloads(routes).with_state(served))
}

/// A page that shows itself: a flamegraph in one file. It may run its own script, and nothing else.
pub fn view_html(html: Vec<u8>) -> Router {
    const POLICY: &str =
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
    let html = Bytes::from(html);
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    guarded(Router::new().route("/", get(move || async move { (headers, html) })))
}

/// The application on a store without a collector; `/` leads to a snapshot of it, in the window and event of the query
/// `shown`.
pub fn view_snapshot(page: Page, store: Store, id: Ulid, shown: &str) -> Result<Router> {
    let first = format!("/snapshots/{id}{shown}");
    let setup = Setup {
        collector: Arc::new(Absent),
        journal: store.path().join("journal"),
        store,
        access: Access::loopback(),
        limits: Limits::default(),
        definitions: Definitions { function: serde_json::json!({}), rule: serde_json::json!({}) },
        metrics: Vec::new(),
    };
    let routes = Router::new().route("/", get(move || async move { Redirect::temporary(&first) }));
    Ok(guarded(downloads(routes).with_state(Served::new(page))).fallback_service(with_mode(setup, Mode::Store)?))
}

/// What requests are answered from.
#[derive(Clone)]
struct Served {
    page: Page,
    first: Arc<LazyLock<Result<Rendered, Problem>, Render>>,
}

type Render = Box<dyn FnOnce() -> Result<Rendered, Problem> + Send>;

/// An answer, with its tag.
#[derive(Clone)]
struct Rendered {
    tag: String,
    bytes: Bytes,
}

impl Served {
    fn new(page: Page) -> Self {
        let (profile, view) = (Arc::clone(&page.profile), View::first(&page));
        let render: Render = Box::new(move || rendered(&profile, view));
        Self { page, first: Arc::new(LazyLock::new(render)) }
    }
}

impl View {
    /// What the page asks for when it is opened.
    fn first(page: &Page) -> Self {
        Self { format: ProfileFormat::Packed, memory: page.options.memory, ..Self::default() }
    }
}

fn rendered(profile: &Profile, view: View) -> Result<Rendered, Problem> {
    let bytes = render::render_profile(profile, "the profile", view)?;
    Ok(Rendered { tag: answer::tag(&[&bytes]), bytes: bytes.into() })
}

fn downloads(mut router: Router<Served>) -> Router<Served> {
    for format in Format::ALL {
        let path = format!("/profile{}", format.extension());
        router = router.route(&path, get(move |page| download(page, format)));
    }
    router
}

fn guarded(router: Router) -> Router {
    router
        .layer(from_fn(guard::loopback_only))
        .layer(from_fn(problem::problems))
        .layer(compression().compress_when(DefaultPredicate::new().and(NotForContentType::const_new(PACKED))))
        .layer(from_fn(guard::strict_headers))
}

async fn about(State(Served { page, .. }): State<Served>, headers: HeaderMap) -> Result<Response, Problem> {
    let header = &page.profile.header;
    let mut events: Vec<&str> = header.event.split(',').collect();
    let shows_memory = page.options.memory == Some(true);
    events.sort_by_key(|event| (*event == PAGE_FAULT) != shows_memory);
    let losses = page.profile.losses.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    answer::json(&headers, &About { name: &page.name, events, losses })
}

async fn profile(
    State(Served { page, first }): State<Served>,
    headers: HeaderMap,
    Parameters(query): Parameters<Query>,
) -> Result<Response, Problem> {
    let Query { format, thread, event, threads, times } = query;
    check_stretch(times)?;
    let memory = event.map_or(page.options.memory, |event| Some(event == EventName::PageFault));
    let view = View { format, thread, threads, memory, stretch_ms: times };
    let work = move || {
        if view == View::first(&page) { LazyLock::force(&first).clone() } else { rendered(&page.profile, view) }
    };
    let Rendered { tag, bytes } = blocking(work).await?;
    let response = answer::not_modified(&headers, &tag);
    let response = response.unwrap_or_else(|| answer::tagged(&tag, format.media_type(), bytes));
    Ok(shown(response, format, &format!("profile{}", format.extension())))
}

async fn download(State(Served { page, .. }): State<Served>, format: Format) -> Result<Response, Problem> {
    // Large profiles take a while, which other requests need not wait for.
    let work = move || {
        let mut bytes = Vec::new();
        export::write(&page.profile, format, &page.options, &mut bytes)?;
        Ok(bytes)
    };
    let bytes = blocking(work).await?;
    let disposition = format!("attachment; filename=\"profile{}\"", format.extension());
    Ok(([(header::CONTENT_TYPE, format.media_type().to_owned()), (header::CONTENT_DISPOSITION, disposition)], bytes)
        .into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tower::ServiceExt;

    use super::*;

    fn page() -> Page {
        let profile = export::read(include_bytes!("../../tests/golden/profile.json"), "profile.json").unwrap();
        Page { name: "profile.json".into(), profile: Arc::new(profile), options: Options::default() }
    }

    fn send(method: Method, path: &str, host: &str) -> (Response, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).header("Host", host).body(Body::empty()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (parts, body) = view(page()).oneshot(request).await.unwrap().into_parts();
            let bytes = to_bytes(body, 1 << 24).await.unwrap();
            (Response::from_parts(parts, Body::empty()), bytes.to_vec())
        })
    }

    fn get(path: &str) -> (Response, Vec<u8>) {
        send(Method::GET, path, "127.0.0.1:7117")
    }

    #[test]
    fn the_page_and_every_download_are_served() {
        assert_eq!(get("/").0.headers()["location"], "/view");
        let (response, _) = get("/view");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        let (response, body) = get("/profile.html");
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(String::from_utf8(body).unwrap().contains("cpu of checkout"));
        for format in Format::ALL {
            let (response, body) = get(&format!("/profile{}", format.extension()));
            assert_eq!(response.status(), 200, "{format:?}");
            let mut expected = Vec::new();
            export::write(&page().profile, format, &Options::default(), &mut expected).unwrap();
            assert!(body == expected, "{format:?}");
            let disposition = response.headers()["content-disposition"].to_str().unwrap();
            assert_eq!(disposition, format!("attachment; filename=\"profile{}\"", format.extension()));
        }
    }

    #[test]
    fn what_the_page_asks_for_first_is_named_to_the_browser_and_may_be_kept() {
        let (page, _) = get("/view");
        let link = page.headers()["link"].to_str().unwrap();
        let mut named = link.split(['<', '>']).filter(|part| part.starts_with('/'));
        assert!(named.clone().all(|path| get(path).0.status() == 200));
        assert!(!get("/view?view=heat").0.headers().contains_key("link"), "it asks for something else");
        let path = named.next_back().unwrap();
        let (first, body) = get(path);
        assert_eq!(first.headers()["content-type"], PACKED);
        assert!(body.starts_with(b"probecol") && body == get(&format!("{path}&threads=false")).1);
        assert_ne!(body, get(&format!("{path}&threads=true")).1);
        let again = Request::builder().uri(path).header("Host", "localhost");
        let again = again.header("Accept-Encoding", "br").header("If-None-Match", &first.headers()["etag"]);
        let again = again.body(Body::empty()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(view(self::page()).oneshot(again)).unwrap().status(), 304);
    }

    #[test]
    fn every_answer_has_the_strict_headers() {
        for path in ["/", "/view", "/profile.html", "/profile.svg", "/nothing"] {
            let (response, _) = get(path);
            let header = |name: &str| response.headers()[name].to_str().unwrap();
            assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 's"));
            assert!(!header("content-security-policy").contains("unsafe"));
            assert!(header("content-security-policy").ends_with("frame-ancestors 'none'"));
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found_and_cannot_be_written() {
        for path in ["/nothing", "/profile", "/profile.png", "/..%2f..%2fetc/passwd"] {
            assert_eq!(get(path).0.status(), 404, "{path}");
        }
        assert_eq!(send(Method::POST, "/", "localhost").0.status(), 405);
    }

    #[test]
    fn a_foreign_host_is_refused_whatever_it_asks_for() {
        for path in ["/", "/profile.json", "/nothing"] {
            let (response, body) = send(Method::GET, path, "evil.example:7117");
            assert_eq!(response.status(), 403, "{path}");
            assert!(String::from_utf8(body).unwrap().contains("localhost only"));
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
}
