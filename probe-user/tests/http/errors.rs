//! Whatever goes wrong is a problem of the same shape.

use probe::control::EventKind;

use crate::Server;

#[tokio::test]
async fn what_is_not_there_and_what_cannot_be_done() {
    let server = Server::new();
    for path in [
        "/index.html",
        "/nothing",
        "/assets/nothing.js",
        "/snapshots/a/b",
        "/api",
        "/api/v1/",
        "/api/v1/snapshots/",
        "/api/v2/targets",
        "/..%2f..%2fetc/passwd",
    ] {
        let problem = server.get(path).await.problem(404);
        assert_eq!(problem["instance"], path);
    }
    for (method, path, allowed) in [
        ("POST", "/api/v1/snapshots", "GET,HEAD"),
        ("PATCH", "/api/v1/rules/hot", "DELETE,GET,HEAD,PUT"),
        ("GET", "/api/v1/targets/checkout/record", "POST"),
        ("BREW", "/healthz", "GET,HEAD"),
    ] {
        let answer = server.send(method, path, &[], "").await;
        let problem = answer.problem(405);
        assert_eq!(problem["detail"], format!("{path} does not know this method"));
        let mut words: Vec<&str> = answer.header("allow").split(',').collect();
        words.sort_unstable();
        assert_eq!(words.join(","), allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_taken() {
    let server = Server::new();
    let path = "/api/v1/rules/x";
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(65 << 10));
    assert!(server.json("PUT", path, &large).await.problem(413)["detail"].as_str().unwrap().contains("64 KiB"));
    for kind in ["text/plain", "application/xml", "application/jsonx"] {
        let problem = server.send("PUT", path, &[("content-type", kind)], "{}").await.problem(415);
        assert_eq!(problem["hint"], "send `Content-Type: application/json`");
    }
    for body in ["{", "nonsense", "\u{0}"] {
        server.json("PUT", path, body).await.problem(400);
    }
}

#[tokio::test]
async fn a_page_elsewhere_can_neither_read_nor_change_anything() {
    let server = Server::new();
    for host in ["evil.example", "evil.example:7117", "10.0.0.1", ""] {
        for path in ["/api/v1/snapshots", "/metrics", "/healthz", "/nothing"] {
            server.send("GET", path, &[("host", host)], "").await.problem(403);
        }
    }
    let path = "/api/v1/targets/checkout/dump";
    let problem = server.send("POST", path, &[], "").await.problem(403);
    assert!(problem["hint"].as_str().unwrap().contains("X-Requested-With"), "{problem}");
    for headers in [
        &[("content-type", "text/plain")] as &[_],
        &[("content-type", "application/json"), ("origin", "http://evil.example")],
        &[("content-type", "application/json"), ("sec-fetch-site", "cross-site")],
    ] {
        server.send("POST", path, headers, "{}").await.problem(403);
    }
    let own = [("origin", "http://localhost:7117"), ("sec-fetch-site", "same-origin")];
    assert_eq!(server.send("POST", path, &own, "").await.status, 200);
    let foreign = [("origin", "http://evil.example")];
    server.send("DELETE", "/api/v1/rules/hot", &foreign, "").await.problem(403);
    server.get("/api/v1/rules/hot").await.ok();
}

#[tokio::test]
async fn every_answer_has_the_strict_headers() {
    let server = Server::new();
    server.fake.happen(EventKind::Pending, "hot");
    for path in ["/api/v1/snapshots", "/nothing", "/metrics", "/healthz"] {
        let answer = server.get(path).await;
        assert!(answer.header("content-security-policy").starts_with("default-src 'none';"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert!(["no-store", "private, no-cache"].contains(&answer.header("cache-control")), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}
