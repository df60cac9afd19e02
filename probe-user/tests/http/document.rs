//! The OpenAPI document: it has every route, and what is really answered is as it says.

use serde_json::{Value, json};

use crate::fake::id;
use crate::{Answer, Server};

/// The document, with what is needed to check values by its schemas.
struct Document(Value);

impl Document {
    async fn of(server: &Server) -> Self {
        Self(server.get("/api/v1/openapi.json").await.ok())
    }

    /// Checks a body by the schema at a place of the document.
    fn check(&self, place: &[&str], body: &Value) {
        let mut schema = &self.0;
        for key in place {
            schema = schema.get(key).unwrap_or_else(|| panic!("no {key} of {place:?} in {schema}"));
        }
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{place:?}: {errors:?} in {body}");
    }

    fn check_answer(&self, method: &str, path: &str, answer: &Answer) {
        let status = answer.status.as_u16().to_string();
        let content = ["responses", &status, "content", "application/json", "schema"];
        let place: Vec<&str> = ["paths", path, method].into_iter().chain(content).collect();
        self.check(&place, &answer.ok());
    }
}

/// The pages are checked against types that are made of this file.
#[tokio::test]
async fn the_schemas_are_those_that_the_pages_are_made_for() {
    let mut document = Document::of(&Server::new()).await.0;
    document["paths"] = json!({});
    document["info"]["version"] = json!("0");
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ui/openapi.json");
    if std::env::var_os("PROBE_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == text,
        "ui/openapi.json is not current: `PROBE_BLESS=1 cargo test -p probe-user --test http schemas`, then `cargo xtask ui`"
    );
}

#[tokio::test]
async fn every_route_is_in_it() {
    let document = Document::of(&Server::new()).await.0;
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            found.push(format!("{} {path}", method.to_uppercase()));
            assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with(['.', '?'])), "{path}");
            assert!(!operation["responses"].as_object().unwrap().is_empty());
        }
    }
    found.sort();
    let expected = [
        "DELETE /api/v1/functions/{name}",
        "DELETE /api/v1/rules/{name}",
        "DELETE /api/v1/snapshots/{id}",
        "GET /api/v1/alerts",
        "GET /api/v1/diff",
        "GET /api/v1/events",
        "GET /api/v1/functions",
        "GET /api/v1/functions/{name}",
        "GET /api/v1/openapi.json",
        "GET /api/v1/rules",
        "GET /api/v1/rules/{name}",
        "GET /api/v1/snapshots",
        "GET /api/v1/snapshots/{id}",
        "GET /api/v1/snapshots/{id}/profile",
        "GET /api/v1/status",
        "GET /api/v1/targets",
        "GET /api/v1/targets/{name}/threads",
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "POST /api/v1/targets/{name}/dump",
        "POST /api/v1/targets/{name}/record",
        "PUT /api/v1/functions/{name}",
        "PUT /api/v1/rules/{name}",
    ];
    assert_eq!(found, expected);
    let ids = document["paths"].as_object().unwrap().values().flat_map(|methods| methods.as_object().unwrap().values());
    let ids: std::collections::BTreeSet<_> = ids.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), expected.len(), "operations have names of their own");
    let parameters = &document["paths"]["/api/v1/snapshots/{id}/profile"]["get"]["parameters"];
    let names: Vec<&str> = parameters.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["id", "event", "format", "thread", "threads", "times", "window"]);
}

#[tokio::test]
async fn it_holds_together() {
    let document = Document::of(&Server::new()).await.0;
    let mut references = Vec::new();
    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                references.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| collect(value, references));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
    collect(&document, &mut references);
    assert!(references.len() > 30);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads elsewhere"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::meta::is_valid(schema), "{name}: {schema}");
    }
}

#[tokio::test]
async fn what_is_answered_is_as_it_says() {
    let server = Server::new();
    let document = Document::of(&server).await;
    for (path, asked) in [
        ("/api/v1/snapshots", "/api/v1/snapshots?limit=2".to_owned()),
        ("/api/v1/snapshots/{id}", format!("/api/v1/snapshots/{}", id(1))),
        ("/api/v1/snapshots/{id}/profile", format!("/api/v1/snapshots/{}/profile?format=flamegraph", id(1))),
        ("/api/v1/diff", format!("/api/v1/diff?a={}:before&b={}", id(1), id(2))),
        ("/api/v1/alerts", "/api/v1/alerts?limit=5".into()),
        ("/api/v1/status", "/api/v1/status".into()),
        ("/api/v1/targets", "/api/v1/targets".into()),
        ("/api/v1/targets/{name}/threads", "/api/v1/targets/checkout/threads".into()),
        ("/api/v1/functions", "/api/v1/functions".into()),
        ("/api/v1/functions/{name}", "/api/v1/functions/push".into()),
        ("/api/v1/rules", "/api/v1/rules".into()),
        ("/api/v1/rules/{name}", "/api/v1/rules/hot".into()),
        ("/healthz", "/healthz".into()),
        ("/readyz", "/readyz".into()),
    ] {
        document.check_answer("get", path, &server.get(&asked).await);
    }
    let rule = json!({"target": "checkout", "metric": "cpu", "above": "95%", "snapshot": {"threads": 3}});
    let path = "/api/v1/rules/{name}";
    document.check(&["paths", path, "put", "requestBody", "content", "application/json", "schema"], &rule);
    document.check_answer("put", path, &server.json("PUT", "/api/v1/rules/new", &rule.to_string()).await);
    document.check_answer("put", path, &server.json("PUT", "/api/v1/rules/new", &rule.to_string()).await);
    let record = json!({"duration": "1s", "frequency": 99});
    let path = "/api/v1/targets/{name}/record";
    document.check(&["paths", path, "post", "requestBody", "content", "application/json", "schema"], &record);
}

#[tokio::test]
async fn what_is_refused_is_as_it_says() {
    let server = Server::new();
    let document = Document::of(&server).await;
    let schema =
        ["paths", "/api/v1/snapshots", "get", "responses", "default", "content", "application/problem+json", "schema"];
    for answer in [
        server.get("/nothing").await,
        server.get("/api/v1/snapshots?limit=0").await,
        server.json("PUT", "/api/v1/functions/x", "{}").await,
    ] {
        document.check(&schema, &answer.problem(answer.status.as_u16()));
    }
}
