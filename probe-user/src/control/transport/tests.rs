//! Both ends over a real socket, with peers of every kind.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::*;
use crate::control::{
    Collector, Cursor, Definition, DumpRequest, Events, FunctionState, IsWanted, Put, RecordRequest, Refusal,
    RuleState, Seconds, Status, TargetState, Thread,
};

/// Recordings that were ended because nobody waited for them.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// A collector whose answers can be told from each other.
struct Made;

impl Collector for Made {
    fn status(&self) -> Result<Status, Refusal> {
        Ok(Status { version: "7".into(), ..Status::default() })
    }

    fn targets(&self) -> Result<Vec<TargetState>, Refusal> {
        Ok((0..1000).map(|index| TargetState { name: format!("target {index}"), ..TargetState::default() }).collect())
    }

    fn threads(&self, target: &str) -> Result<Vec<Thread>, Refusal> {
        Err(Refusal::NotFound { what: format!("there is no target named `{target}`") })
    }

    fn record(&self, _: &str, request: &RecordRequest, is_wanted: IsWanted<'_>) -> Result<Vec<u8>, Refusal> {
        let end = Instant::now() + request.duration.0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            if !is_wanted() {
                LEFT.fetch_add(1, Ordering::Relaxed);
                return Err(Refusal::Failed { reason: "nobody waits".into() });
            }
        }
        Ok((0..3 << 20).map(|index: u32| index.to_le_bytes()[1]).collect())
    }

    fn dump(&self, _: &str, _: &DumpRequest) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }

    fn functions(&self, _: Option<&str>) -> Result<Vec<FunctionState>, Refusal> {
        Ok(Vec::new())
    }

    fn put_function(&self, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        Ok(if definition.0.contains_key(name) { Put::Replaced } else { Put::Created })
    }

    fn remove_function(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn rules(&self, _: Option<&str>) -> Result<Vec<RuleState>, Refusal> {
        Ok(Vec::new())
    }

    fn put_rule(&self, _: &str, _: &Definition) -> Result<Put, Refusal> {
        Err(Refusal::Invalid { field: Some("above".into()), reason: "wrong".into(), hint: String::new() })
    }

    fn remove_rule(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn events(&self, after: Option<Cursor>, _: Duration) -> Result<Events, Refusal> {
        Ok(Events { next: after.unwrap_or_default(), ..Events::default() })
    }

    fn remove_snapshot(&self, _: Ulid) -> Result<(), Refusal> {
        Err(Refusal::Conflict { reason: "it fires".into() })
    }
}

struct Both {
    listener: Option<Listener>,
    client: Client,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Both {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sock");
        let listener = Some(Listener::start(&path, Peers::default(), Arc::new(Made)).expect("listens"));
        Self { listener, client: Client::new(&path), path, _folder: folder }
    }

    fn expect_answers(&self) {
        assert_eq!(self.client.status().expect("answers").version, "7");
    }
}

#[test]
fn questions_and_answers_cross() {
    let both = Both::start();
    let client = &both.client;
    both.expect_answers();
    assert_eq!(client.targets().expect("answers").len(), 1000);
    assert_eq!(client.threads("x"), Err(Refusal::NotFound { what: "there is no target named `x`".into() }));
    let request = RecordRequest { duration: Seconds(Duration::from_millis(20)), ..RecordRequest::default() };
    let profile = client.record("x", &request, &|| true).expect("answers");
    assert!(profile == Made.record("x", &request, &|| true).expect("answers"), "{} bytes", profile.len());
    assert_eq!(client.dump("x", &DumpRequest::default()).expect("answers"), Vec::<u8>::new());
    let definition = Definition(serde_json::Map::from_iter([("push".to_owned(), 1.into())]));
    assert_eq!(client.put_function("push", &definition), Ok(Put::Replaced));
    assert!(matches!(client.put_rule("hot", &definition), Err(Refusal::Invalid { .. })));
    assert_eq!((client.remove_rule("hot"), client.remove_function("f")), (Ok(()), Ok(())));
    let cursor = Cursor { life: 3, number: 4 };
    assert_eq!(client.events(Some(cursor), Duration::ZERO).expect("answers").next, cursor);
    assert!(matches!(client.remove_snapshot(Ulid::nil()), Err(Refusal::Conflict { .. })));
}

#[test]
fn what_nobody_waits_for_is_not_gone_on_with() {
    let both = Both::start();
    both.expect_answers();
    let request = RecordRequest { duration: Seconds(Duration::from_secs(300)), ..RecordRequest::default() };
    let begin = Instant::now();
    let refusal = both.client.record("x", &request, &|| begin.elapsed() < Duration::from_millis(300));
    assert!(matches!(refusal, Err(Refusal::Unavailable { .. })), "{refusal:?}");
    while LEFT.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "the collector goes on");
        std::thread::yield_now();
    }
    both.expect_answers();
}

#[test]
fn the_collector_may_come_and_go() {
    let mut both = Both::start();
    both.expect_answers();
    both.listener = None;
    assert!(!both.path.exists());
    // A connection that was open before is of no use; this one is still answered, as requests under way are.
    let _ = both.client.status();
    assert!(matches!(Client::new(&both.path).status(), Err(Refusal::Unavailable { .. })));
    both.listener = Some(Listener::start(&both.path, Peers::default(), Arc::new(Made)).expect("listens again"));
    both.expect_answers();
    // What a collector left that was killed is no obstacle.
    let second = Listener::start(&both.path, Peers::default(), Arc::new(Made)).expect("takes its place");
    both.expect_answers();
    drop(second);
}

#[test]
fn many_ask_at_once() {
    let both = Both::start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| both.expect_answers()));
        }
    });
}

#[test]
fn torn_and_hostile_frames_end_their_connection_only() {
    let both = Both::start();
    // The same in each run.
    let mut random = fastrand::Rng::with_seed(0x9e37_79b9_7f4a_7c15);
    let request = br#"{"ask":"status"}"#;
    let mut whole = [(request.len() as u32).to_be_bytes(), [0; 4]].concat();
    whole.extend_from_slice(request);
    for round in 0..400u32 {
        let mut bytes = whole.clone();
        match round % 5 {
            // Torn.
            0 => bytes.truncate(random.usize(..bytes.len())),
            // Changed.
            1 => {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u32(..8);
            }
            // Noise.
            2 => bytes = (0..random.u64(..200)).map(|_| random.u8(..)).collect(),
            // As long as can be.
            3 => bytes[..8].fill(0xff),
            // Deep.
            _ => {
                let deep = "[".repeat(100_000);
                bytes = [(deep.len() as u32).to_be_bytes(), [0; 4]].concat();
                bytes.extend_from_slice(deep.as_bytes());
            }
        }
        let mut peer = UnixStream::connect(&both.path).expect("connects");
        peer.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        // It may have been shown the door already.
        let _ = peer.write_all(&bytes);
        let _ = peer.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        // An answer or none, but an end. That there was more to read may reset the connection.
        if let Err(error) = peer.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "round {round}");
        }
    }
    both.expect_answers();
}

#[test]
fn more_connections_than_there_may_be_are_refused_with_a_reason() {
    let both = Both::start();
    let silent: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&both.path).expect("connects")).collect();
    let begin = Instant::now();
    let refusal = both.client.status().expect_err("there are too many");
    assert!(matches!(refusal, Refusal::Busy { .. }), "{refusal:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(silent);
    let end = Instant::now() + Duration::from_secs(5);
    while both.client.status().is_err() {
        assert!(Instant::now() < end, "they are gone, but still counted");
        std::thread::yield_now();
    }
}

#[test]
fn strangers_are_not_answered() {
    let nobody = 65_534;
    assert!(Peers { uid: Some(nobody), gid: None }.admits(nobody) && Peers::default().admits(0));
    assert!(!Peers { uid: Some(nobody - 1), gid: None }.admits(nobody));
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let both = Both::start();
    let folder = both.path.parent().expect("a folder");
    for path in [folder, &both.path] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("opened");
    }
    let path = both.path.clone();
    std::thread::spawn(move || {
        // Of this thread alone.
        rustix::thread::set_thread_res_uid(
            rustix::process::Uid::from_raw(nobody),
            rustix::process::Uid::from_raw(nobody),
            rustix::process::Uid::from_raw(nobody),
        )
        .expect("becomes nobody");
        assert!(matches!(Client::new(&path).status(), Err(Refusal::Unavailable { .. })));
    })
    .join()
    .expect("no panic");
    both.expect_answers();
}
