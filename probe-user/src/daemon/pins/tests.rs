//! Alerts that fire, resolve, fire on and are left behind, and the limits of a store meanwhile.

use std::time::SystemTime;

use super::*;
use crate::monitor::{Metric, Side};
use crate::snapshot::tests::sidecar;
use crate::snapshot::{Limits, Profiles, Sidecar};

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    pins: Pins,
    upkeep: Upkeep,
    /// How long ago the next snapshot is.
    ago: u64,
}

const ONE: Limits = Limits { max_bytes: u64::MAX, max_age: Duration::from_secs(86_400), max_snapshots: 1 };

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), ONE).expect("opens");
        let pins = Pins::default();
        let upkeep = Upkeep::start(&pins, &store);
        Self { folder, store, pins, upkeep, ago: 1000 }
    }

    /// The daemon ends and another begins.
    fn restart(self) -> Self {
        let Self { folder, store, ago, .. } = self;
        drop(store);
        let store = Store::open(folder.path(), ONE).expect("opens");
        let pins = Pins::default();
        let upkeep = Upkeep::start(&pins, &store);
        Self { folder, store, pins, upkeep, ago }
    }

    /// The snapshot of a breach, stored as the keeper does it.
    fn store(&mut self, rule: &str, pid: u32) -> Ulid {
        self.ago -= 1;
        let id = Ulid::from_datetime(SystemTime::now() - Duration::from_secs(self.ago));
        let breach = Breach {
            rule: rule.into(),
            target: "app".into(),
            pid,
            metric: Metric::Cpu,
            function: None,
            value: 97.0,
            threshold: 80.0,
            side: Side::Above,
            exceeded_since_ns: 1,
            breached_at_ns: 2,
        };
        let mut sidecar = Sidecar { rule: rule.into(), ..sidecar(id) };
        sidecar.process.pid = pid;
        self.pins.attach(&self.store, &breach, id);
        self.store.put(&sidecar, &Profiles::default()).expect("stored");
        self.work();
        id
    }

    fn fire(&mut self, rule: &str, pid: u32) -> Ulid {
        self.pins.fire(rule, pid);
        self.store(rule, pid)
    }

    fn work(&mut self) {
        self.upkeep.work(&self.pins, &self.store);
    }

    /// What is left when the limits have been applied, oldest first.
    fn left(&mut self) -> Vec<Ulid> {
        self.upkeep.next = Instant::now();
        self.work();
        let mut ids: Vec<Ulid> = self.store.list().expect("listed").snapshots.iter().map(|s| s.id).collect();
        ids.reverse();
        ids
    }
}

#[test]
fn a_firing_alert_keeps_its_snapshot_until_it_resolves() {
    let mut bench = Bench::new();
    let firing = bench.fire("hot", 7);
    let others: Vec<Ulid> = (10..13)
        .map(|pid| {
            let id = bench.fire("hot", pid);
            bench.pins.resolve("hot", pid);
            id
        })
        .collect();
    assert_eq!(bench.left(), [firing, others[2]]);
    bench.pins.resolve("cold", 7);
    bench.pins.resolve("hot", 8);
    assert_eq!(bench.left(), [firing, others[2]], "others resolved");
    bench.pins.resolve("hot", 7);
    assert_eq!(bench.left(), [others[2]]);
}

#[test]
fn an_alert_that_resolves_before_its_snapshot_is_stored_keeps_nothing() {
    let mut bench = Bench::new();
    bench.pins.fire("hot", 7);
    bench.pins.resolve("hot", 7);
    bench.store("hot", 7);
    assert!(bench.store.pinned().expect("read").is_empty());
}

#[test]
fn the_end_of_a_rule_is_the_end_of_its_alerts() {
    let mut bench = Bench::new();
    let ids = [bench.fire("hot", 7), bench.fire("big", 7), bench.fire("hot", 8), bench.fire("big", 8)];
    assert_eq!(bench.left(), ids);
    bench.pins.keep_rules(|name| name == "hot");
    let last = bench.store("other", 9);
    assert_eq!(bench.left(), [ids[0], ids[2], last]);
}

#[test]
fn an_alert_that_fires_again_and_again_keeps_its_first_and_its_last_snapshot() {
    let mut bench = Bench::new();
    let ids: Vec<Ulid> = (0..4).map(|_| bench.fire("hot", 7)).collect();
    assert_eq!(bench.left(), [ids[0], ids[3]]);
    bench.pins.resolve("hot", 7);
    assert_eq!(bench.left(), [ids[3]]);
}

#[test]
fn pins_of_an_earlier_daemon_last_until_it_is_clear_that_nobody_needs_them() {
    let mut bench = Bench::new();
    let (again, forgotten) = (bench.fire("hot", 7), bench.fire("hot", 8));
    let mut bench = bench.restart();
    let other = bench.store("hot", 9);
    assert_eq!(bench.left(), [again, forgotten, other]);
    // One fires on, of the other nothing is heard.
    let later = bench.fire("hot", 7);
    bench.upkeep.started = Instant::now().checked_sub(GRACE).expect("up for longer");
    assert_eq!(bench.left(), [again, later]);
    let mut bench = bench.restart();
    assert_eq!(bench.left(), [again, later]);
    bench.pins.fire("hot", 7);
    bench.pins.resolve("hot", 7);
    assert_eq!(bench.left(), [later]);
}
