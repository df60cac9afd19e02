//! The API from outside: every route, its errors, who may use it, and the document that describes it. The collector is a
//! fake, everything else is real.

mod access;
mod alerts;
mod app;
mod definitions;
mod document;
mod errors;
mod events;
mod fake;
mod hostile;
mod live;
mod prometheus;
mod snapshots;
mod sockets;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use probe::serve::{Access, Limits, Setup, api};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

use fake::Fake;

/// A server with five snapshots.
pub(crate) struct Server {
    pub(crate) fake: Arc<Fake>,
    pub(crate) router: Router,
    pub(crate) folder: TempDir,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with(Access::loopback(), Limits::default())
    }

    pub(crate) fn with(access: Access, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::new());
        let setup = Setup {
            collector: fake.clone(),
            store: fake::store(folder.path()),
            journal: folder.path().join("journal"),
            access,
            limits,
            definitions: probe::config::definitions(),
            metrics: vec![Box::new(|text| {
                text.value("probe_test_total", probe::serve::Kind::Counter, "Of another part.", 1.0);
            })],
        };
        Self { fake, router: api(setup).unwrap(), folder }
    }

    /// Sends a request as from this host.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in [("host", "localhost:7117")].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 26).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body).await
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body of a success.
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body of a failure, which has the shape of all of them.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        for key in ["title", "detail", "instance"] {
            assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {problem}");
        }
        problem
    }
}
