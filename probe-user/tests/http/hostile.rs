//! Whatever is sent to a route of the document, the answer is one that the document allows, and never that the server failed.

use axum::http::StatusCode;
use serde_json::Value;

use crate::Server;

/// Values that have broken servers: of parameters, as they stand in an address.
const VALUES: &[&str] = &[
    "",
    "0",
    "-1",
    "1e999",
    "18446744073709551616",
    "true",
    "null",
    "%00",
    "%ff%fe",
    "..%2f..%2fetc%2fpasswd",
    "%F0%9F%92%A5",
    "a%0d%0aSet-Cookie:%20x=1",
    "%7B%22a%22:%5B%5D%7D",
    "1970-01-01T00:00:00Z",
    "9999999999999-01-01",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
];

/// And of bodies.
const BODIES: &[&str] = &[
    "",
    "{",
    "null",
    "[]",
    "\"x\"",
    "{}",
    "{\"target\": 7}",
    "{\"duration\": \"1e30\"}",
    "{\"duration\": -1, \"pid\": 4294967296}",
    "{\"above\": {\"a\": [[[[]]]]}, \"metric\": null}",
    "{\"name\": \"\\u0000\", \"\\ud83d\\udca5\": 1}",
    "\u{feff}{}",
];

#[tokio::test]
async fn no_request_makes_the_server_fail() {
    let server = Server::new();
    let document = server.get("/api/v1/openapi.json").await.ok();
    let mut sent = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            // It goes on for ever where nothing is wrong.
            if path == "/api/v1/events" {
                continue;
            }
            for (round, value) in VALUES.iter().enumerate() {
                let body = BODIES[round % BODIES.len()];
                let (path, query) = address(path, operation, value, round);
                check(&server, method, &format!("{path}{query}"), body, operation).await;
                sent += 1;
            }
        }
    }
    assert!(sent > 300, "{sent}");
    server.get("/healthz").await.ok();
}

/// The path with a value in the place of its parameters, or of every other one of its query.
fn address(path: &str, operation: &Value, value: &str, round: usize) -> (String, String) {
    let mut address = path.to_owned();
    let mut query = Vec::new();
    for (index, parameter) in operation["parameters"].as_array().into_iter().flatten().enumerate() {
        let name = parameter["name"].as_str().unwrap();
        match parameter["in"].as_str() {
            Some("path") => {
                let value = if value.is_empty() { "%20" } else { value };
                address = address.replace(&format!("{{{name}}}"), value);
            }
            _ if (index + round).is_multiple_of(2) => query.push(format!("{name}={value}")),
            _ => {}
        }
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    (address, query)
}

async fn check(server: &Server, method: &str, address: &str, body: &str, operation: &Value) {
    let answer = server.json(&method.to_uppercase(), address, body).await;
    let what = format!("{method} {address} {body:?}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    // That something is not there or not allowed now is an answer, that it failed is none.
    assert!(!answer.status.is_server_error() || answer.status == StatusCode::SERVICE_UNAVAILABLE, "{what}");
    if answer.status.is_success() {
        let status = answer.status.as_u16().to_string();
        assert!(operation["responses"][&status].is_object(), "it is not in the document: {what}");
    } else if answer.status.as_u16() >= 400 {
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    }
}
