//! Stored snapshots: lists, sidecars, profiles and comparisons.

use probe::export;
use serde_json::Value;

use crate::Server;
use crate::fake::id;

fn ids(list: &Value) -> Vec<String> {
    list["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn seconds(range: impl IntoIterator<Item = u64>) -> Vec<String> {
    range.into_iter().map(|second| id(second).to_string()).collect()
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let server = Server::new();
    let all = server.get("/api/v1/snapshots").await;
    assert_eq!(ids(&all.ok()), seconds([4, 3, 2, 1, 0]));
    assert_eq!((all.ok()["next"].clone(), all.header("link")), (Value::Null, ""));
    let first = &all.ok()["snapshots"][0];
    assert_eq!(first["culprit"], "match_rules (rules.c:41) went from 0 % to 88 % of the process, in thread matcher");
    assert_eq!(first["windows"], serde_json::json!(["before", "breach"]));

    let mut path = "/api/v1/snapshots?limit=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = server.get(&path).await;
        pages.push(ids(&page.ok()));
        let Some(next) = page.ok()["next"].as_str().map(str::to_owned) else { break };
        let link = page.header("link");
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert_eq!(path, format!("/api/v1/snapshots?limit=2&cursor={next}"));
    }
    assert_eq!(pages, [seconds([4, 3]), seconds([2, 1]), seconds([0])]);
}

#[tokio::test]
async fn a_list_can_be_narrowed() {
    let server = Server::new();
    let list = async |query: &str| ids(&server.get(&format!("/api/v1/snapshots?{query}")).await.ok());
    assert_eq!(list("target=search").await, seconds([3, 1]));
    assert_eq!(list("rule=cold").await, seconds([]));
    assert_eq!(list("host=other").await, seconds([]));
    assert_eq!(list("host=node&target=search").await, seconds([3, 1]));
    let first = server.get("/api/v1/snapshots?host=node&limit=2").await.ok();
    assert_eq!(ids(&first), seconds([4, 3]));
    let next = first["next"].as_str().unwrap();
    assert_eq!(list(&format!("host=node&limit=3&cursor={next}")).await, seconds([2, 1, 0]));
    assert_eq!(list("since=2023-11-14T22:13:22Z").await, seconds([4, 3, 2]));
    assert_eq!(list("since=1700000001&until=1700000003").await, seconds([2, 1]));
    assert_eq!(list("since=1h").await, seconds([]));
    assert_eq!(list("until=1h").await, seconds([4, 3, 2, 1, 0]));
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("since=soon", "since"),
        ("cursor=../../etc", "cursor"),
    ] {
        let problem = server.get(&format!("/api/v1/snapshots?{query}")).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    let problem = server.get("/api/v1/snapshots?targett=x").await.problem(400);
    assert!(problem["detail"].as_str().unwrap().contains("unknown field `targett`"), "{problem}");
}

#[tokio::test]
async fn a_sidecar_is_what_was_stored() {
    let server = Server::new();
    let sidecar = server.get(&format!("/api/v1/snapshots/{}", id(3))).await.ok();
    assert_eq!((&sidecar["target"], &sidecar["losses"]["ring buffer full"]), (&"search".into(), &2.into()));
    assert_eq!(sidecar["profiles"][1]["window"], "breach");
    let problem = server.get(&format!("/api/v1/snapshots/{}", id(9))).await.problem(404);
    assert!(problem["detail"].as_str().unwrap().contains(&id(9).to_string()), "{problem}");
    assert_eq!(server.get("/api/v1/snapshots/..%2f..%2fetc").await.problem(400)["errors"][0]["field"], "id");
}

#[tokio::test]
async fn a_profile_comes_in_every_format() {
    let server = Server::new();
    let path = format!("/api/v1/snapshots/{}/profile", id(1));
    let get = async |query: &str| server.get(&format!("{path}?{query}")).await;
    for (format, media_type, extension, kind, text) in [
        ("pprof", "application/octet-stream", ".pb.gz", "attachment", ""),
        ("folded", "text/plain; charset=utf-8", ".folded", "attachment", "handle_request"),
        ("svg", "image/svg+xml", ".svg", "inline", "handle_request"),
        ("html", "text/html; charset=utf-8", ".html", "inline", "handle_request"),
        ("speedscope", "application/json", ".speedscope.json", "attachment", "handle_request"),
        ("firefox", "application/json", ".firefox.json", "attachment", "handle_request"),
        ("flamegraph", "application/json", ".flamegraph.json", "inline", "handle_request"),
        ("packed", "application/vnd.probe.flamegraph", ".flamegraph", "inline", "handle_request"),
        ("json", "application/json", ".json", "attachment", "handle_request"),
    ] {
        let answer = get(&format!("format={format}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, media_type), "{format}");
        let file = format!("{kind}; filename=\"{}-breach{extension}\"", id(1));
        assert_eq!(answer.header("content-disposition"), file);
        assert!(String::from_utf8_lossy(&answer.body).contains(text), "{format}");
    }
    let count = |body: &[u8]| {
        let profile = export::read(body, "answer").unwrap();
        profile.samples.iter().map(|sample| sample.count).sum::<u64>()
    };
    assert_eq!(count(&get("").await.body), 100, "pprof of the breach unless one says otherwise");
    assert_eq!(count(&get("window=before&format=pprof").await.body), 23);
    let one = get("thread=4250&format=json").await;
    let profile = export::read(&one.body, "answer").unwrap();
    assert!(profile.threads.len() == 1 && profile.threads[0].tid == 4250 && count(&one.body) > 0);
    assert!(get("format=folded&threads=true").await.text().contains("push worker 1-4250;"));
    assert_eq!(get("thread=1").await.problem(404)["hint"], "the snapshot's `threads` are those that were kept");
    assert_eq!(get("window=dump").await.problem(404)["hint"], "it has before, breach");
    for wrong in ["format=png", "thread=x", "window=after-all", "times=9", "times=10001", "times=x"] {
        get(wrong).await.problem(400);
    }
    let policy = get("format=svg").await.header("content-security-policy").to_owned();
    assert!(policy.starts_with("sandbox allow-scripts;"), "{policy}");
}

#[tokio::test]
async fn a_flamegraph_is_a_tree_whose_weights_are_all_samples() {
    let server = Server::new();
    let tree = server.get(&format!("/api/v1/snapshots/{}/profile?format=flamegraph", id(0))).await.ok();
    let sum = |column: &Value| column.as_array().unwrap().iter().map(|weight| weight.as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum(&tree["weights"]["weight"]), &tree["unit"]), (100, &"samples".into()));
    let nodes = tree["nodes"]["parent"].as_array().unwrap();
    assert!(nodes.iter().enumerate().skip(1).all(|(node, parent)| parent.as_u64().unwrap() < node as u64));
    assert!(tree.get("times").is_none());
    let tree = server.get(&format!("/api/v1/snapshots/{}/profile?format=flamegraph&times=50", id(0))).await.ok();
    assert_eq!((sum(&tree["times"]["weight"]), &tree["times"]["bucket_ms"]), (100, &50.into()));
    assert!(tree["times"]["bucket"].as_array().unwrap().windows(2).all(|pair| pair[0].as_u64() <= pair[1].as_u64()));
}

#[tokio::test]
async fn two_profiles_are_compared() {
    let server = Server::new();
    let (a, b) = (id(0), id(1));
    let diff = server.get(&format!("/api/v1/diff?a={a}:before&b={b}")).await.ok();
    assert_eq!((&diff["a"]["total"], &diff["b"]["total"]), (&23.into(), &100.into()));
    let packed = server.get(&format!("/api/v1/diff?a={a}:before&b={b}&format=packed")).await;
    assert_eq!(packed.header("content-type"), "application/vnd.probe.flamegraph");
    assert!(packed.body.starts_with(b"probecol"));
    let first = &diff["changes"][0];
    assert!(first["self_b"].as_f64().unwrap() > first["self_a"].as_f64().unwrap() + 20.0, "{first}");
    assert_eq!(server.get(&format!("/api/v1/diff?a={a}&b={}", id(9))).await.problem(404)["status"], 404);
    assert_eq!(server.get(&format!("/api/v1/diff?a={a}")).await.problem(400)["status"], 400);
    assert_eq!(server.get(&format!("/api/v1/diff?a={a}:x&b={b}")).await.problem(400)["status"], 400);
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let server = Server::new();
    for path in [
        "/api/v1/snapshots".to_owned(),
        format!("/api/v1/snapshots/{}", id(1)),
        format!("/api/v1/snapshots/{}/profile?format=html", id(1)),
        format!("/api/v1/diff?a={}&b={}", id(1), id(2)),
        "/api/v1/targets".into(),
        "/api/v1/openapi.json".into(),
    ] {
        let first = server.get(&path).await;
        let tag = first.header("etag");
        assert!(tag.starts_with("W/\"") && first.header("cache-control") == "private, no-cache", "{path}");
        let again = server.send("GET", &path, &[("if-none-match", tag)], "").await;
        assert_eq!((again.status.as_u16(), again.body.len(), again.header("etag")), (304, 0, tag), "{path}");
        let other = server.send("GET", &path, &[("if-none-match", "\"other\"")], "").await;
        assert_eq!(other.body, first.body, "{path}");
    }
    let of = |format: &str| format!("/api/v1/snapshots/{}/profile?format={format}", id(1));
    let tags =
        [server.get(&of("svg")).await, server.get(&of("html")).await].map(|answer| answer.header("etag").to_owned());
    assert_ne!(tags[0], tags[1]);
}

#[tokio::test]
async fn what_can_be_compressed_is() {
    let server = Server::new();
    let path = |format: &str| format!("/api/v1/snapshots/{}/profile?format={format}", id(1));
    let encoded = async |format: &str, accepted: &str| {
        let answer = server.send("GET", &path(format), &[("accept-encoding", accepted)], "").await;
        (answer.header("content-encoding").to_owned(), answer.body)
    };
    let (_, plain) = encoded("flamegraph", "identity").await;
    for encoding in ["gzip", "br"] {
        let (used, body) = encoded("flamegraph", encoding).await;
        assert_eq!(used, encoding);
        assert!(body.len() * 2 < plain.len(), "{} of {}", body.len(), plain.len());
    }
    assert_eq!(encoded("svg", "br").await.0, "br");
    assert_eq!(encoded("pprof", "gzip, br").await.0, "", "it is compressed already");
    assert_eq!(encoded("packed", "gzip, br").await.0, "", "a client on this host waits for nothing else");
}

#[tokio::test]
async fn removing_is_the_collectors_work() {
    let server = Server::new();
    let path = format!("/api/v1/snapshots/{}", id(2));
    assert_eq!(server.send("DELETE", &path, &[], "").await.status, 204);
    assert_eq!(*server.fake.removed.lock().unwrap(), [id(2)]);
    *server.fake.is_down.lock().unwrap() = true;
    assert_eq!(server.send("DELETE", &path, &[], "").await.problem(503)["status"], 503);
}
