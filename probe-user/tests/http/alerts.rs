//! What was told before is listed, a page at a time; and a thread that hangs is a reason to be ill.

use std::time::Duration;

use probe::alert::{Journal, Notice};
use probe::supervise::Pulse;

use crate::Server;

#[tokio::test]
async fn alerts_are_listed_newest_first() {
    let server = Server::new();
    let journal = Journal::open(&server.folder.path().join("journal"), None).unwrap();
    for rule in ["one", "two"] {
        journal.append(&Notice { rule: rule.into(), ..Notice::default() }.identify());
    }
    let page = server.get("/api/v1/alerts?limit=1").await.ok();
    assert_eq!((&page["alerts"][0]["rule"], &page["alerts"][0]["kind"]), (&"two".into(), &"firing".into()));
    let next = page["next"].as_str().unwrap();
    let page = server.get(&format!("/api/v1/alerts?limit=1&cursor={next}")).await.ok();
    assert_eq!(page["alerts"][0]["rule"], "one");
    for wrong in ["limit=0", "limit=501", "cursor=x", "color=red"] {
        server.get(&format!("/api/v1/alerts?{wrong}")).await.problem(400);
    }
}

#[tokio::test]
async fn a_thread_that_hangs_is_seen() {
    let server = Server::new();
    assert_eq!(server.get("/healthz").await.status, 200);
    let pulse = Pulse::new("stuck for a test", Duration::ZERO);
    let busy = pulse.begin();
    std::thread::sleep(Duration::from_millis(2));
    let ill = server.get("/healthz").await.problem(503);
    assert!(ill["detail"].as_str().unwrap().contains("stuck for a test of the server"), "{ill}");
    drop(busy);
    assert_eq!(server.get("/healthz").await.status, 200);
}
