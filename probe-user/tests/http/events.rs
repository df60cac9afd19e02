//! Server-sent events.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt as _;
use probe::control::EventKind;
use probe::serve::{Access, Limits};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::Server;

/// A client that listens.
struct Client {
    stream: BodyDataStream,
    text: String,
}

impl Client {
    async fn listen(server: &Server, query: &str, last: &str) -> Self {
        let request = Request::builder().uri(format!("/api/v1/events?{query}")).header("host", "localhost");
        let request = if last.is_empty() { request } else { request.header("last-event-id", last) };
        let response = server.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let mut client = Self { stream: response.into_body().into_data_stream(), text: String::new() };
        assert_eq!(client.next().await, ":connected\nretry:3000");
        client
    }

    /// The next block, without blanks after colons.
    async fn next(&mut self) -> String {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.replace(": ", ":");
                self.text = rest.to_owned();
                return block;
            }
            let more = tokio::time::timeout(Duration::from_secs(10), self.stream.next()).await.expect("in time");
            self.text.push_str(std::str::from_utf8(&more.unwrap().unwrap()).unwrap());
        }
    }

    /// Kind, id and rule of the next event.
    async fn event(&mut self) -> (String, String, String) {
        let block = self.next().await;
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        let data: Value = serde_json::from_str(&field("data:")).unwrap_or_default();
        (field("event:"), field("id:"), data["rule"].as_str().unwrap_or_default().to_owned())
    }
}

fn event(kind: &str, id: &str, rule: &str) -> (String, String, String) {
    (kind.into(), id.into(), rule.into())
}

/// Until the thread that asks the collector has begun to.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test]
async fn what_happens_is_told_to_all_who_listen_and_only_what_they_asked_for() {
    let server = Server::new();
    server.fake.happen(EventKind::Pending, "before anyone listened");
    settled().await;
    let mut all = Client::listen(&server, "", "").await;
    let mut some = Client::listen(&server, "rule=other&target=checkout", "").await;
    server.fake.happen(EventKind::Pending, "hot");
    server.fake.happen(EventKind::Firing, "other");
    let first = all.next().await;
    assert!(first.contains("\"value\":97.5") && first.contains("\"unit\":\"percent of one core\""), "{first}");
    assert_eq!(all.event().await, event("firing", "abc-3", "other"));
    assert_eq!(some.event().await, event("firing", "abc-3", "other"));
}

#[tokio::test]
async fn who_comes_back_goes_on_where_it_was() {
    let server = Server::new();
    for rule in ["1", "2", "3"] {
        server.fake.happen(EventKind::Firing, rule);
    }
    settled().await;
    // These are older than the server, which has to ask for them.
    let mut client = Client::listen(&server, "", "abc-1").await;
    assert_eq!(client.event().await, event("firing", "abc-2", "2"));
    assert_eq!(client.event().await, event("firing", "abc-3", "3"));
    server.fake.happen(EventKind::Resolved, "4");
    assert_eq!(client.event().await, event("resolved", "abc-4", "4"), "and none twice");
    server.fake.happen(EventKind::Resolved, "5");
    assert_eq!(client.event().await, event("resolved", "abc-5", "5"));
    // This one the server has itself.
    let mut again = Client::listen(&server, "", "abc-4").await;
    assert_eq!(again.event().await, event("resolved", "abc-5", "5"));
}

#[tokio::test]
async fn what_is_forgotten_is_said_to_be_missed() {
    let server = Server::new();
    server.fake.happen(EventKind::Firing, "1");
    settled().await;
    let mut client = Client::listen(&server, "", "bad-7").await;
    assert_eq!(client.event().await.0, "missed", "of an earlier life of the collector");
    assert_eq!(client.event().await, event("firing", "abc-1", "1"));
    let mut slow = Client::listen(&server, "", "").await;
    for number in 0..1500 {
        server.fake.happen(EventKind::Pending, &number.to_string());
    }
    let number = |id: &str| id.strip_prefix("abc-").and_then(|id| id.parse::<u64>().ok()).unwrap_or_default();
    let end = async {
        let (mut last, mut is_told) = (1, false);
        while last < 1501 {
            let (kind, id, _) = slow.event().await;
            if kind == "missed" {
                is_told = true;
                continue;
            }
            assert!(number(&id) == last + 1 || is_told && number(&id) > last, "{id} after abc-{last}");
            (last, is_told) = (number(&id), false);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), end).await.unwrap();
}

#[tokio::test]
async fn there_are_only_so_many_listeners() {
    let server = Server::with(Access::loopback(), Limits { listeners: 2, ..Limits::default() });
    let (one, two) = (Client::listen(&server, "", "").await, Client::listen(&server, "", "").await);
    let refused = server.get("/api/v1/events").await;
    refused.problem(429);
    assert_eq!(refused.header("retry-after"), "30");
    drop(one);
    let three = Client::listen(&server, "", "").await;
    drop((two, three));
    let problem = server.send("GET", "/api/v1/events", &[("last-event-id", "seven")], "").await.problem(400);
    assert_eq!(problem["errors"][0]["field"], "Last-Event-ID");
}
