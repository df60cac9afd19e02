//! The keeper at its worst: full disks, dying processes, broken scenes. Its clock is made up.

use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::daemon::tests::Fake;
use crate::export;
use crate::monitor::{Metric, Side};
use crate::snapshot::{Limits, OtherThreads, Window};
use crate::target::ThreadState;

const SECOND: u64 = 1_000_000_000;

struct Bench {
    _folder: tempfile::TempDir,
    scene: Arc<Fake>,
    keeper: Keeper,
    holds: Arc<Holds>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let scene = Fake::new();
        scene.now.store(105 * SECOND, Ordering::Relaxed);
        let holds = Arc::new(Holds::new(scene.clone()));
        let store = Store::open(&folder.path().join("store"), Limits::default()).expect("opens");
        let outbox = Arc::new(Outbox::open(&folder.path().join("outbox")));
        let mut keeper = Keeper::new(scene.clone(), Arc::clone(&holds), store, outbox);
        keeper.retry = Duration::ZERO;
        Self { _folder: folder, scene, keeper, holds }
    }

    fn breach(&mut self, pid: u32) {
        self.holds.watch(pid, "app").expect("watched");
        self.holds.begin(pid);
        let breach = Breach {
            rule: "hot".into(),
            target: "app".into(),
            pid,
            metric: Metric::Cpu,
            function: None,
            value: 97.0,
            threshold: 80.0,
            side: Side::Above,
            exceeded_since_ns: 100 * SECOND,
            breached_at_ns: 105 * SECOND,
        };
        let evidence = Evidence { threads: 2, before: Duration::from_secs(30), after: Duration::from_secs(5) };
        let (host, process) = (Host::default(), Process { pid, ..Process::default() });
        let (notify, dump) = (vec!["ops".into()], self.scene.dump(pid).ok());
        let job = Job { breach, evidence, notify, host, process, function: None, dump, gone_at_ns: None };
        self.keeper.hear(Told::Breach(Box::new(job)));
        self.keeper.work();
    }

    fn at(&mut self, second: u64) {
        self.scene.now.store(second * SECOND, Ordering::Relaxed);
        self.keeper.work();
    }

    fn stored(&self) -> Vec<Sidecar> {
        self.keeper.store.list().expect("listed").snapshots
    }
}

#[test]
fn the_snapshot_waits_for_its_end_and_names_the_culprit() {
    let mut bench = Bench::new();
    bench.breach(7);
    bench.at(109);
    assert!(bench.stored().is_empty());
    assert_eq!(bench.keeper.idle_time(), Duration::from_secs(1));
    bench.at(110);
    let stored = bench.stored();
    let [snapshot] = &stored[..] else { panic!("one snapshot") };
    assert_eq!(
        *bench.scene.asked.lock().expect("no panic"),
        [(7, 70 * SECOND, 100 * SECOND), (7, 100 * SECOND, 110 * SECOND)]
    );
    let threads: Vec<_> = snapshot.threads.iter().map(|t| (t.name.as_str(), t.samples, t.cpu_percent)).collect();
    assert_eq!(threads, [("matcher", 880, 88.0), ("main", 10, 1.0)]);
    assert_eq!(snapshot.other_threads, OtherThreads { threads: 1, before_samples: 2, breach_samples: 1 });
    assert_eq!(snapshot.culprits[0].function, "match_rules");
    let (started, ended) = (snapshot.started_at.0, snapshot.ended_at.0);
    assert_eq!((ended - started).div_ceil(SECOND), 40);
    assert_eq!(bench.keeper.outbox.waiting(), 1);
    for (window, samples) in [(Window::Before, 35), (Window::Breach, 890)] {
        let bytes = bench.keeper.store.profile(snapshot.id, window).expect("there");
        let profile = export::read(&bytes, "stored").expect("a profile");
        assert_eq!(profile.samples.iter().map(|sample| sample.count).sum::<u64>(), samples);
        assert_eq!(profile.threads.len(), 2);
    }
    let dump = bench.keeper.store.profile(snapshot.id, Window::Dump).expect("there");
    let dump = export::read(&dump, "stored").expect("a profile");
    let states: Vec<_> = dump.samples.iter().map(|sample| sample.state).collect();
    assert_eq!(states, [ThreadState::Running, ThreadState::Running, ThreadState::Sleeping], "all threads");
    assert_eq!(snapshot.threads[0].state, Some(ThreadState::Running));
}

#[test]
fn a_process_that_dies_at_the_breach_is_kept_at_once_and_let_go_after() {
    let mut bench = Bench::new();
    bench.breach(7);
    bench.scene.now.store(106 * SECOND, Ordering::Relaxed);
    bench.keeper.hear(Told::Gone { pid: 8, at_ns: 106 * SECOND });
    bench.keeper.work();
    assert!(bench.stored().is_empty(), "it was another one");
    bench.holds.release(7);
    assert!(bench.scene.watched.lock().expect("no panic").contains_key(&7), "still needed");
    bench.keeper.hear(Told::Gone { pid: 7, at_ns: 106 * SECOND });
    bench.keeper.work();
    assert_eq!(bench.stored().len(), 1);
    assert_eq!(bench.scene.asked.lock().expect("no panic")[1], (7, 100 * SECOND, 106 * SECOND));
    assert!(bench.scene.watched.lock().expect("no panic").is_empty());
}

#[test]
fn a_full_disk_delays_the_snapshot_and_its_alert() {
    let mut bench = Bench::new();
    bench.keeper.store.set_full(true);
    bench.breach(7);
    bench.at(110);
    bench.at(120);
    assert_eq!((bench.stored().len(), bench.keeper.unstored.len(), bench.keeper.outbox.waiting()), (0, 1, 0));
    bench.keeper.store.set_full(false);
    bench.at(130);
    assert_eq!((bench.stored().len(), bench.keeper.unstored.len(), bench.keeper.outbox.waiting()), (1, 0, 1));
}

#[test]
fn an_alert_does_not_wait_for_ever_and_is_sent_once() {
    let mut bench = Bench::new();
    bench.keeper.patience = Duration::ZERO;
    bench.keeper.store.set_full(true);
    bench.breach(7);
    bench.at(110);
    bench.at(120);
    assert_eq!(bench.keeper.outbox.waiting(), 1);
    bench.keeper.store.set_full(false);
    bench.at(130);
    assert_eq!((bench.stored().len(), bench.keeper.outbox.waiting()), (1, 1));
}

#[test]
fn what_cannot_be_stored_is_bounded_and_never_silent() {
    let mut bench = Bench::new();
    bench.keeper.store.set_full(true);
    bench.keeper.retry = Duration::from_secs(3600);
    for pid in 1..=6 {
        bench.breach(pid);
    }
    bench.at(110);
    assert_eq!((bench.keeper.unstored.len(), bench.keeper.outbox.waiting()), (MAX_UNSTORED, 2));
}

#[test]
fn a_broken_scene_still_gives_an_alert_and_says_what_is_missing() {
    let mut bench = Bench::new();
    bench.scene.is_broken.store(true, Ordering::Relaxed);
    bench.breach(7);
    bench.at(110);
    let stored = bench.stored();
    let windows = ["before", "breach", "dump"].map(|window| format!("window `{window}` could not be read"));
    assert_eq!(stored[0].losses.keys().cloned().collect::<Vec<_>>(), windows);
    assert_eq!(bench.keeper.outbox.waiting(), 1);
}

#[test]
fn stopping_keeps_what_there_is() {
    let mut bench = Bench::new();
    bench.breach(7);
    let path = bench.keeper.store.path().to_owned();
    let (tell, told) = sync_channel(1);
    drop(tell);
    bench.keeper.run(&told);
    assert_eq!(Store::read(&path, Limits::default()).list().expect("listed").snapshots.len(), 1);
    assert_eq!(bench.scene.asked.lock().expect("no panic")[1], (7, 100 * SECOND, 105 * SECOND));
}
