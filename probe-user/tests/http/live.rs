//! Targets and threads, profiles on demand, and health.

use std::time::{Duration, Instant};

use probe::export;
use probe::serve::{Access, Allowance, Limits};

use crate::Server;

#[tokio::test]
async fn targets_and_threads_are_listed() {
    let server = Server::new();
    let targets = server.get("/api/v1/targets").await.ok();
    assert_eq!(targets["targets"][0]["processes"][0]["container"], "c0ffee");
    let threads = server.get("/api/v1/targets/checkout/threads").await.ok();
    assert_eq!(threads["threads"][0]["state"], "running");
    let problem = server.get("/api/v1/targets/a%20b/threads").await.problem(404);
    assert_eq!(problem["detail"], "there is no target named `a b`");
    assert_eq!(server.get("/api/v1/status").await.ok()["firing"][0]["rule"], "hot");
}

#[tokio::test]
async fn a_recording_takes_its_time_and_comes_in_the_format_one_asks_for() {
    let server = Server::new();
    let path = "/api/v1/targets/checkout/record";
    let start = Instant::now();
    let answer = server.json("POST", path, r#"{"duration": "300ms", "frequency": 99}"#).await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"checkout-cpu.pb.gz\"");
    assert!(!export::read(&answer.body, "answer").unwrap().samples.is_empty());
    let folded = server.json("POST", &format!("{path}?format=folded&threads=true"), r#"{"duration": 0.01}"#).await;
    assert!(folded.text().contains("push worker 1-4250;"));
    let recorded = server.fake.recorded.lock().unwrap().clone();
    assert_eq!(recorded[0].1.frequency, Some(99));
    assert_eq!(recorded.len(), 2);
}

#[tokio::test]
async fn a_wrong_recording_says_what_is_wrong() {
    let server = Server::new();
    let path = "/api/v1/targets/checkout/record";
    for (body, status, words) in [
        (r#"{"duration": "10m"}"#, 422, "at most 300 seconds"),
        (r#"{"duration": 0}"#, 422, "above 0"),
        (r#"{"duration": "soon"}"#, 422, "`soon` is not a duration"),
        (r#"{"durations": "1s"}"#, 422, "unknown field `durations`"),
        (r#"{"event": "weather", "duration": 1}"#, 422, "there is no event `weather`"),
        (r#"{"duration": "#, 400, "cannot read the body"),
    ] {
        let problem = server.json("POST", path, body).await.problem(status);
        assert!(problem["detail"].as_str().unwrap().contains(words), "{body}: {problem}");
    }
    let problem = server.json("POST", path, r#"{"event": "weather", "duration": 1}"#).await.problem(422);
    assert_eq!((&problem["errors"][0]["field"], &problem["hint"]), (&"event".into(), &"try cpu".into()));
    assert_eq!(server.json("POST", "/api/v1/targets/x/record", r#"{"duration": 1}"#).await.problem(404)["status"], 404);
}

#[tokio::test]
async fn only_so_many_recordings_run_at_once_and_others_are_told_when_to_come_back() {
    let server = Server::new();
    let path = "/api/v1/targets/checkout/record";
    let slow = r#"{"duration": "1s"}"#;
    let (first, second, third) =
        tokio::join!(server.json("POST", path, slow), server.json("POST", path, slow), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.json("POST", path, slow).await
        });
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(third.problem(429)["detail"], "2 recordings are running, no more at once");
    assert_eq!(third.header("retry-after"), "1");
    assert_eq!(server.json("POST", path, r#"{"duration": 0.01}"#).await.status, 200, "then there is room again");
}

#[tokio::test]
async fn only_so_many_dumps_a_minute() {
    let limits = Limits { dumps: Allowance { at_once: 1, a_minute: 2 }, ..Limits::default() };
    let server = Server::with(Access::loopback(), limits);
    let path = "/api/v1/targets/checkout/dump?format=flamegraph";
    for _ in 0..2 {
        let tree = server.json("POST", path, "{}").await.ok();
        assert!(tree["strings"].as_array().unwrap().iter().any(|name| name == "handle_request"));
    }
    let refused = server.json("POST", path, "").await;
    refused.problem(429);
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&after), "{after}");
}

#[tokio::test]
async fn a_recording_that_nobody_waits_for_ends() {
    let limits = Limits { recordings: Allowance { at_once: 1, a_minute: 9 }, ..Limits::default() };
    let server = Server::with(Access::loopback(), limits);
    let path = "/api/v1/targets/checkout/record";
    let gone = server.json("POST", path, r#"{"duration": "300s"}"#);
    assert!(tokio::time::timeout(Duration::from_millis(200), gone).await.is_err());
    let end = Instant::now() + Duration::from_secs(10);
    // As long as it is under way it counts.
    while server.json("POST", path, r#"{"duration": "10ms"}"#).await.status != 200 {
        assert!(Instant::now() < end, "it goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn health_is_of_the_server_and_readiness_of_what_it_needs() {
    let server = Server::new();
    assert_eq!(server.get("/healthz").await.ok()["status"], "ok");
    assert_eq!(server.get("/readyz").await.ok()["status"], "ok");
    *server.fake.is_down.lock().unwrap() = true;
    assert_eq!(server.get("/healthz").await.ok()["status"], "ok");
    let problem = server.get("/readyz").await.problem(503);
    assert_eq!(problem["detail"], "nobody answers at the socket");
    let targets = server.get("/api/v1/targets").await;
    targets.problem(503);
    assert_eq!(targets.header("retry-after"), "5");
    assert_eq!(server.get("/api/v1/snapshots").await.status, 200, "the store is there");
}
