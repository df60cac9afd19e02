//! Lanes without a network: what is sent, when, in what company, and what is left after each end.

mod lasting;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, channel};

use super::*;
use crate::alert::notice::tests::notice;
use crate::alert::{Failure, NoticeKind, SnapshotLink};

struct Bench {
    folder: tempfile::TempDir,
    lane: Lane,
    go: AtomicBool,
}

fn policy() -> Policy {
    Policy { group_wait: Duration::ZERO, rate: 6000, burst: 1000, ..Policy::of_type("webhook") }
}

impl Bench {
    fn new(policy: Policy, group: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lane = Lane::open(folder.path(), "ops", policy, group).expect("opens");
        Self { folder, lane, go: AtomicBool::new(false) }
    }

    /// The lane as it is found after a crash.
    fn again(&self) -> Lane {
        Lane::open(self.folder.path(), "ops", policy(), 10).expect("opens again")
    }

    fn next(&self) -> Vec<Entry> {
        self.next_of(&self.lane)
    }

    /// What a lane sends next; it fails if that is nothing.
    fn next_of(&self, lane: &Lane) -> Vec<Entry> {
        let (done, is_done) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if is_done.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
                    self.go.store(true, Ordering::Relaxed);
                    lane.wake();
                }
            });
            let batch = lane.next(&self.go);
            drop(done);
            batch.expect("something is sent")
        })
    }

    fn deliver(&self) -> Vec<u32> {
        let batch = self.next();
        self.lane.settle(&batch, Ok(()));
        batch.iter().map(|entry| entry.notice.process.pid).collect()
    }

    fn files(&self, part: &str) -> usize {
        disk::ids(&self.folder.path().join("ops").join(part)).expect("listed").len()
    }

    fn deduplicated(&self) -> u64 {
        self.lane.counts.deduplicated.load(Ordering::Relaxed)
    }
}

/// A notice as it comes out of a journal.
fn fresh(pid: u32) -> Notice {
    Notice { id: Ulid::new(), ..notice(pid, &["ops"]) }
}

fn over(pid: u32) -> Notice {
    std::thread::sleep(Duration::from_millis(2));
    Notice { kind: NoticeKind::Resolved, ..fresh(pid) }
}

#[test]
fn what_is_accepted_outlives_the_process_until_it_is_delivered() {
    let bench = Bench::new(policy(), 10);
    for pid in 1..=3 {
        bench.lane.accept(&fresh(pid));
    }
    assert!(bench.lane.flush());
    let after = bench.again();
    assert_eq!((after.queued().0, bench.files("queue")), (3, 3));
    assert_eq!(bench.deliver().len(), 3);
    assert_eq!((bench.again().queued().0, bench.lane.queued().0), (0, 0));
    // A crash before the cursor of the journal was saved gives the same notices again.
    let known = fresh(4);
    bench.lane.accept(&known);
    bench.deliver();
    let after = bench.again();
    after.accept(&known);
    assert_eq!(after.queued().0, 0);
}

#[test]
fn a_breach_is_told_once_and_its_end_to_those_who_know_it() {
    let bench = Bench::new(policy(), 1);
    bench.lane.accept(&over(1));
    assert_eq!((bench.lane.queued().0, bench.deduplicated()), (0, 1), "nobody knew it");
    bench.lane.accept(&fresh(1));
    bench.lane.accept(&fresh(1));
    assert_eq!((bench.lane.queued().0, bench.deduplicated()), (1, 2), "twice the same");
    bench.lane.accept(&over(1));
    bench.lane.accept(&over(1));
    assert_eq!((bench.lane.queued().0, bench.deduplicated()), (2, 3));
    // In their order, never both in one message.
    assert!(!bench.next()[0].notice.is_resolved());
    let mut later = fresh(1);
    later.started_at.0 += 60_000_000_000;
    bench.lane.accept(&later);
    assert_eq!(bench.lane.queued().0, 3, "another breach of the same process");
}

#[test]
fn a_breach_that_is_over_already_is_one_message_and_fires_no_more() {
    let bench = Bench::new(policy(), 1);
    let now = std::time::SystemTime::now().into();
    let brief = Notice { resolved_at: Some(now), ..fresh(1) };
    bench.lane.accept(&brief);
    assert_eq!((bench.lane.queued().0, bench.files("active")), (1, 0));
    let named = Notice { id: Ulid::new(), is_completion: true, kind: NoticeKind::Resolved, ..brief.clone() };
    bench.lane.accept(&named);
    let one = bench.next();
    assert!(one[0].notice.is_brief() && !one[0].notice.is_completion, "in one message: {one:?}");
    bench.lane.settle(&one, Ok(()));
    // For whoever keeps in mind what fires it is two.
    for part in (Notice { id: Ulid::new(), ..brief }).split() {
        bench.lane.accept(&part);
    }
    let kinds = [(); 2].map(|()| {
        let batch = bench.next();
        bench.lane.settle(&batch, Ok(()));
        batch[0].notice.kind
    });
    assert_eq!((kinds, bench.files("active")), ([NoticeKind::Firing, NoticeKind::Resolved], 0));
}

#[test]
fn a_snapshot_that_comes_later_is_news_once() {
    let bench = Bench::new(policy(), 1);
    let without = Notice { snapshot: None, ..fresh(1) };
    bench.lane.accept(&without);
    assert_eq!(bench.deliver(), [1]);
    for _ in 0..2 {
        let snapshot = Some(SnapshotLink { id: Ulid::new(), path: "/x".into() });
        bench.lane.accept(&Notice { snapshot, ..fresh(1) });
    }
    assert_eq!((bench.lane.queued().0, bench.deduplicated()), (1, 1));
}

#[test]
fn ends_are_not_told_to_those_who_do_not_want_them() {
    let bench = Bench::new(Policy { send_resolved: false, ..policy() }, 1);
    bench.lane.accept(&fresh(1));
    bench.lane.accept(&over(1));
    assert_eq!(bench.lane.queued().0, 1);
    assert_eq!(bench.files("active"), 0);
}

#[test]
fn those_that_come_within_the_wait_go_together() {
    let bench = Bench::new(Policy { group_wait: Duration::from_millis(300), ..policy() }, 3);
    let start = Instant::now();
    for pid in 1..=5 {
        bench.lane.accept(&fresh(pid));
    }
    assert_eq!(bench.deliver().len(), 3);
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
    assert_eq!(bench.deliver().len(), 2);
}

#[test]
fn failures_wait_and_come_back() {
    let bench = Bench::new(policy(), 10);
    bench.lane.accept(&fresh(1));
    let batch = bench.next();
    let start = Instant::now();
    bench.lane.settle(&batch, Err(Failure::later("no route")));
    assert_eq!(bench.files("queue"), 1);
    assert_eq!(bench.deliver(), [1]);
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    bench.lane.accept(&fresh(2));
    let batch = bench.next();
    let start = Instant::now();
    bench.lane.settle(&batch, Err(Failure::after("too many", Duration::from_secs(2))));
    assert_eq!(bench.deliver(), [2]);
    assert!(start.elapsed() >= Duration::from_millis(1990), "as long as it was asked: {:?}", start.elapsed());
    let counts = &bench.lane.counts;
    let [failed, retried, sent] = [&counts.failed, &counts.retried, &counts.sent].map(|n| n.load(Ordering::Relaxed));
    assert_eq!((failed, retried, sent), (2, 2, 2));
}

#[test]
fn one_that_is_to_blame_goes_alone_and_the_others_are_delivered() {
    let bench = Bench::new(policy(), 10);
    for pid in 1..=3 {
        bench.lane.accept(&fresh(pid));
    }
    let together = bench.next();
    assert_eq!(together.len(), 3);
    bench.lane.settle(&together, Err(Failure::refused("bad request")));
    for _ in 0..3 {
        let batch = bench.next();
        assert_eq!(batch.len(), 1);
        let is_bad = batch[0].notice.process.pid == 2;
        bench.lane.settle(&batch, if is_bad { Err(Failure::refused("bad request")) } else { Ok(()) });
    }
    assert_eq!((bench.lane.queued().0, bench.files("dead")), (0, 1));
    assert_eq!(bench.lane.counts.dead.load(Ordering::Relaxed), 1);
}

#[test]
fn one_that_always_fails_does_not_hold_up_the_others_for_ever() {
    let bench = Bench::new(policy(), 1);
    bench.lane.accept(&fresh(1));
    bench.lane.accept(&fresh(2));
    {
        let mut state = bench.lane.state();
        state.waiting.values_mut().next().expect("there").attempts = 4;
    }
    assert_eq!(bench.deliver(), [2]);
    assert_eq!(bench.deliver(), [1]);
}

#[test]
fn what_is_too_old_or_too_much_becomes_a_dead_letter() {
    let bench = Bench::new(Policy { retry_for: Duration::ZERO, ..policy() }, 1);
    bench.lane.accept(&fresh(1));
    std::thread::sleep(Duration::from_millis(5));
    let batch = bench.next();
    bench.lane.settle(&batch, Err(Failure::later("no route")));
    assert_eq!((bench.lane.queued().0, bench.files("dead")), (0, 1));
    let letters = bench.folder.path().join("ops/dead");
    let letter = std::fs::read_dir(letters).expect("there").next().expect("one").expect("read").path();
    let letter: serde_json::Value = disk::read(&letter).expect("JSON");
    assert_eq!((letter["error"].as_str(), &letter["notice"]["process"]["pid"]), (Some("no route"), &1.into()));
    {
        let mut state = bench.lane.state();
        for pid in 0..MAX_QUEUED as u32 {
            let entry = Entry { id: Ulid::new(), notice: fresh(pid + 10) };
            let due = Instant::now();
            let waiting = Waiting { entry, attempts: 0, due, is_busy: false, is_alone: false, is_saved: true };
            state.waiting.insert(waiting.entry.id, waiting);
        }
    }
    bench.lane.accept(&fresh(5));
    assert_eq!((bench.lane.queued().0, bench.files("dead")), (MAX_QUEUED, 2));
    let mut dead = DeadLetters::open(&bench.folder.path().join("ops/dead")).expect("opens");
    for _ in 0..dead::MAX_DEAD + 5 {
        dead.add(&Entry { id: Ulid::new(), notice: fresh(1) }, 1, "no route");
    }
    assert_eq!(bench.files("dead"), dead::MAX_DEAD);
}

#[test]
fn what_goes_on_is_repeated_until_it_is_over() {
    let bench = Bench::new(Policy { repeat_interval: Some(Duration::from_millis(200)), ..policy() }, 10);
    bench.lane.accept(&fresh(1));
    let start = Instant::now();
    assert_eq!(bench.deliver(), [1]);
    assert_eq!(bench.deliver(), [1]);
    assert_eq!(bench.deliver(), [1]);
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
    bench.lane.accept(&over(1));
    assert!(bench.next()[0].notice.is_resolved());
    assert_eq!(bench.lane.queued().0, 1);
}

#[test]
fn what_the_disk_refuses_waits_in_memory_and_is_written_later() {
    let bench = Bench::new(policy(), 10);
    let queue = bench.folder.path().join("ops/queue");
    std::fs::remove_dir(&queue).expect("removed");
    bench.lane.accept(&fresh(1));
    assert!(!bench.lane.flush());
    std::fs::create_dir(&queue).expect("made");
    assert!(bench.lane.flush());
    assert_eq!((bench.again().queued().0, bench.deliver()), (1, vec![1]));
}

#[test]
fn a_name_of_any_kind_has_a_folder_of_its_own() {
    assert_eq!(folder_name("ops-team_1"), "ops-team_1");
    let names = ["../etc", "..", ".", "a/b", "a.b", "运维", "运 维", &"x".repeat(200), ""].map(folder_name);
    for name in &names[..names.len() - 1] {
        assert!(!name.contains('/') && name.len() < 100 && name.len() > 2, "{name}");
    }
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}
