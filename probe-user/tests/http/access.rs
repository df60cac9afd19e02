//! Tokens, client certificates and scopes.

use std::io::Write as _;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use probe::serve::{Access, Limits, Peer};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tower::ServiceExt as _;

use crate::{Answer, Server};

const READ: &str = "r0123456789abcdef";
const CONTROL: &str = "c0123456789abcdef";

fn tokens(more: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, "# for Grafana\nread {READ}\n\ncontrol {CONTROL}\n{more}").unwrap();
    file
}

async fn ask(server: &Server, method: &str, path: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("host", "probe.example"), ("authorization", &authorization)];
    server.send(method, path, &headers[usize::from(token.is_empty()) * 2..], "").await
}

#[tokio::test]
async fn every_route_asks_for_its_scope() {
    let file = tokens("");
    let server = Server::with(Access::new(Some(file.path()), false).unwrap(), Limits::default());
    let document = server.get("/api/v1/openapi.json").await.ok();
    let (mut read, mut control, mut open) = (0, 0, 0);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scope = operation["security"][0]["token"][0].as_str();
            if path.ends_with("/events") {
                continue;
            }
            let path = path.replace("{id}", &crate::fake::id(0).to_string()).replace("{name}", "hot");
            let method = method.to_uppercase();
            let without = ask(&server, &method, &path, "").await;
            let Some(scope) = scope else {
                assert_eq!(without.status, 200, "{path}");
                open += 1;
                continue;
            };
            without.problem(401);
            assert_eq!(without.header("www-authenticate"), "Bearer realm=\"probe\"");
            let wrong = ask(&server, &method, &path, "x0123456789abcdef").await;
            wrong.problem(401);
            assert!(wrong.header("www-authenticate").ends_with("error=\"invalid_token\""));
            let reader = ask(&server, &method, &path, READ).await;
            match scope {
                "read" => {
                    read += 1;
                    assert!(![401, 403].contains(&reader.status.as_u16()), "{method} {path}");
                }
                "control" => {
                    control += 1;
                    assert_eq!(reader.problem(403)["hint"], "scopes are in [serve] token_file");
                }
                scope => panic!("{scope}"),
            }
            assert!(
                ![401, 403].contains(&ask(&server, &method, &path, CONTROL).await.status.as_u16()),
                "{method} {path}"
            );
        }
    }
    assert_eq!((read, control, open), (13, 7, 3));
    let basic = server.send("GET", "/metrics", &[("authorization", "Basic cjpy")], "").await;
    basic.problem(401);
}

#[tokio::test]
async fn a_token_that_is_taken_from_the_file_is_worth_nothing() {
    let mut file = tokens("");
    let server = Server::with(Access::new(Some(file.path()), false).unwrap(), Limits::default());
    assert_eq!(ask(&server, "GET", "/api/v1/targets", READ).await.status, 200);
    file.as_file_mut().set_len(0).unwrap();
    std::fs::write(file.path(), "read another-0123456789\n").unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while ask(&server, "GET", "/api/v1/targets", READ).await.status != 401 {
        assert!(Instant::now() < end, "the file is not read again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ask(&server, "GET", "/api/v1/targets", "another-0123456789").await.status, 200);
}

#[tokio::test]
async fn a_bad_token_file_is_refused_at_the_start() {
    assert!(Access::new(Some("/nowhere/tokens".as_ref()), false).is_err());
    for (text, words) in [("", "there is no token"), ("read short", "shorter"), ("write 0123456789abcdef", "the scope")]
    {
        let mut file = NamedTempFile::new().unwrap();
        writeln!(file, "{text}").unwrap();
        let error = format!("{:#}", Access::new(Some(file.path()), false).unwrap_err());
        assert!(error.contains(words) && !error.contains("0123456789abcdef"), "{error}");
    }
}

#[tokio::test]
async fn certificates_read_and_control_as_the_file_says() {
    let known: [u8; 32] = Sha256::digest("known").into();
    let hex: String = known.iter().map(|byte| format!("{byte:02X}:")).collect();
    let file = tokens(&format!("control sha256:{}", hex.trim_end_matches(':')));
    let both = Server::with(Access::new(Some(file.path()), true).unwrap(), Limits::default());
    let only = Server::with(Access::new(None, true).unwrap(), Limits::default());
    let send = async |server: &Server, method: &str, path: &str, certificate: Option<[u8; 32]>, origin: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "probe.example");
        let request = if origin.is_empty() { request } else { request.header("origin", origin) };
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer { certificate });
        server.router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let (list, rule) = ("/api/v1/targets", "/api/v1/rules/hot");
    assert_eq!(send(&both, "GET", list, Some([7; 32]), "").await, 200);
    assert_eq!(send(&both, "DELETE", rule, Some([7; 32]), "").await, 403, "not named in the file");
    assert_eq!(
        send(&both, "DELETE", rule, Some(known), "https://evil.example").await,
        403,
        "sent by the browser alone"
    );
    assert_eq!(send(&both, "DELETE", rule, Some(known), "").await, 204);
    assert_eq!(send(&both, "GET", list, None, "").await, 401);
    assert_eq!(send(&only, "DELETE", rule, Some([7; 32]), "").await, 204, "without a file it may do everything");
    assert_eq!(send(&only, "GET", list, None, "").await, 401);
}
