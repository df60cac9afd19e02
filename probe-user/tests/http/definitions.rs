//! Functions and rules: read, put and removed.

use serde_json::json;

use crate::Server;

#[tokio::test]
async fn they_are_listed_with_how_they_are() {
    let server = Server::new();
    let functions = server.get("/api/v1/functions").await.ok();
    assert_eq!(functions["functions"][0]["definition"]["threshold"], "20ms");
    let push = server.get("/api/v1/functions/push").await.ok();
    assert_eq!(push, functions["functions"][0]);
    assert_eq!((&push["figures"][0]["p99_ns"], &push["unattached"][0]["pid"]), (&json!(40_000_000), &json!(43)));
    let hot = server.get("/api/v1/rules/hot").await.ok();
    assert_eq!((&hot["processes"][0]["state"], &hot["origin"]), (&json!("firing"), &json!("file")));
    let problem = server.get("/api/v1/rules/cold").await.problem(404);
    assert_eq!(
        (&problem["detail"], &problem["hint"]),
        (&json!("there is no rule named `cold`"), &json!("`GET /api/v1/rules` lists them"))
    );
}

#[tokio::test]
async fn what_is_put_is_there_until_it_is_removed() {
    let server = Server::new();
    let (path, body) = ("/api/v1/rules/slow%20push", r#"{"target": "checkout", "metric": "cpu", "above": 50}"#);
    let made = server.json("PUT", path, body).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (201, path));
    assert_eq!(made.ok()["definition"]["name"], "slow push");
    let body = r#"{"target": "checkout", "metric": "cpu", "above": 60}"#;
    assert_eq!(server.json("PUT", path, body).await.status, 200);
    assert_eq!(server.get(path).await.ok()["definition"]["above"], 60);
    let gone = server.send("DELETE", path, &[], "").await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
    server.get(path).await.problem(404);
    server.send("DELETE", path, &[], "").await.problem(404);
}

#[tokio::test]
async fn what_is_wrong_changes_nothing_and_says_where() {
    let server = Server::new();
    let problem = server.json("PUT", "/api/v1/functions/new", r#"{"target": "checkout"}"#).await.problem(422);
    assert_eq!(problem["errors"], json!([{"field": "symbol", "reason": "[[function]] needs `symbol`"}]));
    server.json("PUT", "/api/v1/functions/new", "[1]").await.problem(422);
    server.get("/api/v1/functions/new").await.problem(404);
    let problem = server.send("DELETE", "/api/v1/functions/push", &[], "").await.problem(409);
    assert_eq!(problem["detail"], "the rule `slow` is about the function `push`");
}
