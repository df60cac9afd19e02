//! The whole daemon on real processes, with a scene that is made up; and that scene, for the tests of the parts.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::alert::{Channel, Endpoint, Kind, Notice, Policy, Secret, Webhook};
use crate::config::{Evidence, Rule, Sampling, Target};
use crate::kernel::Newcomer;
use crate::monitor::{Condition, Side};
use crate::record::{RecordedProcess, Stretch};
use crate::supervise::Heart;
use crate::symbolize::{Line, Location, ProcessInfo, Sample, Stack, ThreadInfo};
use crate::target::{Matcher, On, ThreadState};

const SECOND: u64 = 1_000_000_000;

/// A profile of a process from (thread, function, samples of 10 ms); thread ids follow the pid.
pub(crate) fn profile(pid: u32, seconds: u64, samples: &[(&str, &str, u64)]) -> Profile {
    let mut profile = Profile::default();
    profile.header.event = "cpu".into();
    profile.header.unit = "nanoseconds".into();
    profile.header.period = 10_000_000;
    profile.header.duration_ns = seconds * SECOND;
    profile.processes.push(ProcessInfo { pid, name: "app".into(), ..ProcessInfo::default() });
    for (index, &(thread, function, count)) in (0..).zip(samples) {
        profile.threads.push(ThreadInfo { process: 0, tid: pid + index, name: thread.into() });
        let line = Line { function: function.into(), file: "app.c".into(), line: 41 };
        profile.locations.push(Location { address: u64::from(index), lines: vec![line], ..Location::default() });
        profile.stacks.push(Stack { locations: vec![index], truncated: None });
        let value = count * profile.header.period;
        profile.samples.push(Sample { thread: index, stack: index, time_ns: 0, count, value, ..Sample::default() });
    }
    profile
}

/// A scene whose breaches are always the same: `match_rules` gets hot in the thread `matcher`.
pub(super) struct Fake {
    /// Nanoseconds; 0 for the real clock.
    pub(super) now: AtomicU64,
    /// (pid, from, to) of each profile that was asked for.
    pub(super) asked: Mutex<Vec<(u32, u64, u64)>>,
    /// Processes that are sampled.
    pub(super) watched: Mutex<BTreeMap<u32, String>>,
    /// Processes whose allocations are followed.
    pub(super) followed: Mutex<BTreeSet<u32>>,
    /// Processes that were to be sampled faster, or no longer.
    pub(super) hurried: Mutex<Vec<(u32, bool)>>,
    /// Does asking for profiles fail?
    pub(super) is_broken: AtomicBool,
    start: Instant,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(0),
            asked: Mutex::default(),
            watched: Mutex::default(),
            followed: Mutex::default(),
            hurried: Mutex::default(),
            is_broken: AtomicBool::new(false),
            start: Instant::now(),
        })
    }
}

impl Scene for Fake {
    fn watch(&self, pid: u32, name: &str, _: Waits) -> Result<()> {
        self.watched.lock().expect("no panic").insert(pid, name.to_owned());
        Ok(())
    }

    fn unwatch(&self, pid: u32) -> Result<()> {
        self.watched.lock().expect("no panic").remove(&pid);
        Ok(())
    }

    fn hurry(&self, pid: u32, is_hurried: bool) -> Result<()> {
        self.hurried.lock().expect("no panic").push((pid, is_hurried));
        Ok(())
    }

    fn profile(&self, pid: u32, from_ns: u64, to_ns: u64) -> Result<Profile> {
        anyhow::ensure!(!self.is_broken.load(Ordering::Relaxed), "the scene is broken");
        anyhow::ensure!(self.watched.lock().expect("no panic").contains_key(&pid), "pid {pid} is not sampled");
        let mut asked = self.asked.lock().expect("no panic");
        asked.push((pid, from_ns, to_ns));
        Ok(if asked.len() % 2 == 1 {
            profile(pid, 30, &[("main", "serve", 30), ("matcher", "serve", 5), ("spare", "poll", 2)])
        } else {
            profile(pid, 10, &[("main", "serve", 10), ("matcher", "match_rules", 880), ("spare", "poll", 1)])
        })
    }

    fn follow_waits(&self, _: u32, _: Waits) -> Result<()> {
        Ok(())
    }

    fn remember(&self, _: &BTreeSet<u32>, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn calm_stretches(&self, _: u32) -> usize {
        1
    }

    fn baseline(&self, pid: u32, _: &dyn Fn(&Stretch) -> f64) -> Option<(u64, Profile)> {
        Some((SECOND, profile(pid, 60, &[("main", "serve", 60), ("matcher", "serve", 10)])))
    }

    fn dump(&self, pid: u32) -> Result<Recording> {
        anyhow::ensure!(!self.is_broken.load(Ordering::Relaxed), "the scene is broken");
        let process = RecordedProcess { name: "app".into(), ..RecordedProcess::default() };
        Ok(Recording { processes: [(pid, process)].into(), ..Recording::default() })
    }

    fn name(&self, dump: &Recording) -> Profile {
        let pid = dump.processes.keys().next().copied().unwrap_or_default();
        let mut threads = profile(pid, 0, &[("main", "serve", 1), ("matcher", "match_rules", 1), ("spare", "poll", 1)]);
        threads.header.event = "threads".into();
        threads.samples[2].state = ThreadState::Sleeping;
        threads
    }

    fn follow(&self, pid: u32, _: f64) -> Result<()> {
        anyhow::ensure!(!self.is_broken.load(Ordering::Relaxed), "it has no allocator");
        let mut followed = self.followed.lock().expect("no panic");
        anyhow::ensure!(followed.len() < crate::record::MAX_FOLLOWED && followed.insert(pid), "too many, or twice");
        Ok(())
    }

    fn unfollow(&self, pid: u32) -> Result<()> {
        self.followed.lock().expect("no panic").remove(&pid);
        Ok(())
    }

    fn in_use(&self, pid: u32) -> Result<InUse> {
        anyhow::ensure!(self.followed.lock().expect("no panic").contains(&pid), "pid {pid} is not followed");
        let recording = self.dump(pid)?;
        Ok(InUse { recording, since_ns: 95 * SECOND, attached_share: 0.25, sample_bytes: 32 << 10 })
    }

    fn now_ns(&self) -> u64 {
        match self.now.load(Ordering::Relaxed) {
            0 => 100 * SECOND + u64::try_from(self.start.elapsed().as_nanos()).expect("short"),
            now => now,
        }
    }
}

pub(super) fn config(path: &std::path::Path, matcher: Matcher, url: &str) -> Config {
    let rule = crate::monitor::Rule {
        target: "app".into(),
        condition: Condition::Level { side: Side::Above, threshold: 15.0 },
        for_ns: SECOND,
        cooldown_ns: 300 * SECOND,
        ..crate::monitor::Rule::new("hot")
    };
    let evidence = Evidence { threads: 2, before: Duration::from_secs(30), after: Duration::from_secs(1) };
    Config {
        store: crate::config::Store { path: path.to_owned(), limits: crate::snapshot::Limits::default() },
        http: crate::config::Http::default(),
        collector: crate::config::Collector {
            socket: path.join("collector.sock"),
            host: None,
            address: None,
            culprit_wait: Duration::from_secs(5),
        },
        serve: crate::config::Serve { external_url: None, user: None, state: path.join("state") },
        limits: crate::config::Limits { cpu: 0.02, incident_overhead: 0.05, memory: 150 << 20 },
        log: crate::config::Log { is_json: false, level: tracing::Level::INFO },
        sampling: Sampling {
            frequency: 19,
            pending_frequency: 99,
            memory: 64 << 20,
            window: Duration::from_secs(60),
            max_overhead: 0.01,
        },
        targets: vec![Target { name: "app".into(), matcher, live: false }],
        functions: Vec::new(),
        rules: vec![Rule { rule, evidence, notify: vec!["ops".into()] }],
        channels: vec![Channel {
            name: "ops".into(),
            kind: Kind::Webhook(Webhook {
                endpoint: Endpoint::new(Secret::Text(url.into())),
                method: "POST".into(),
                template: None,
                success: None,
            }),
            policy: Policy::of_type("webhook"),
        }],
    }
}

/// A process that ends with the test, also if that fails.
pub(super) struct Killed(pub(super) std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn calm_then_hot_gives_one_snapshot_although_the_webhook_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let marker = format!("probe-daemon-test-{}", std::process::id());
    let matcher = Matcher::default().glob(On::Comm, "sh").and_then(|m| m.cmdline(&marker)).expect("valid");
    // Nothing listens on port 1.
    let config = config(&path, matcher, "http://127.0.0.1:1/");
    let scene = Fake::new();
    let control = Arc::new(Control::new(Heart::new(false), None));
    let (events, received) = channel();
    let daemon = std::thread::spawn({
        let (scene, control) = (Arc::clone(&scene), Arc::clone(&control));
        let functions = Arc::new(Registry::start(0.01).expect("starts"));
        move || run(&config, Peers::default(), scene, functions, received, &control)
    });
    // It starts later than the daemon, is calm at first, then hot.
    let script = format!("sleep 2.5; while :; do :; done # {marker}");
    let mut process = Killed(Command::new("sh").args(["-c", &script]).spawn().expect("sh runs"));
    let pid = process.0.id();
    std::thread::sleep(Duration::from_millis(300));
    events.send(Lifecycle::Newcomer(Newcomer { pid, parent: 0, passed_over: 0 })).expect("the daemon runs");
    let read = Store::read(&path, crate::snapshot::Limits::default());
    let end = Instant::now() + Duration::from_secs(30);
    while read.list().expect("listed").snapshots.is_empty() {
        assert!(Instant::now() < end, "no snapshot; watched: {:?}", scene.watched.lock());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.watched.lock().expect("no panic").get(&pid).map(String::as_str), Some("app"));
    assert_eq!(scene.hurried.lock().expect("no panic").first(), Some(&(pid, true)));
    process.0.kill().expect("ends");
    process.0.wait().expect("ends");
    events.send(Lifecycle::Exit { pid }).expect("the daemon runs");
    std::thread::sleep(Duration::from_millis(100));
    assert!(scene.watched.lock().expect("no panic").is_empty(), "let go");
    control.stop();
    let stopping = Instant::now();
    daemon.join().expect("no panic").expect("no error");
    assert!(stopping.elapsed() < Duration::from_secs(5));

    let listing = read.list().expect("listed");
    assert_eq!((listing.snapshots.len(), listing.damaged.len()), (1, 0));
    let snapshot = &listing.snapshots[0];
    assert_eq!((snapshot.target.as_str(), snapshot.process.pid), ("app", pid));
    assert!(snapshot.value > 15.0 && snapshot.process.cpu_percent > 15.0, "{snapshot:?}");
    assert!(snapshot.started_at < snapshot.exceeded_at && snapshot.exceeded_at < snapshot.breached_at);
    assert!(snapshot.process.cmdline.contains(&marker) && snapshot.host.cpus > 0);
    let asked = scene.asked.lock().expect("no panic").clone();
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].2 - asked[0].1, asked[0].2), (30 * SECOND, asked[1].1), "two windows that meet");
    assert!(asked[1].2 - asked[1].1 >= 2 * SECOND);
    // The alert is on the disk for whoever sends it, and its end if that was seen.
    let notices = Journal::open(&path.join(JOURNAL), None).expect("opens").count();
    assert!((1..=2).contains(&notices), "{notices}");
}

#[test]
fn alerts_of_processes_that_left_unseen_are_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path(), None).expect("opens");
    let mut process = Command::new("true").spawn().expect("runs");
    process.wait().expect("ends");
    for pid in [process.id(), std::process::id()] {
        let mut alert = Notice { rule: "hot".into(), ..Notice::default() };
        alert.process.pid = pid;
        journal.append(&alert.identify());
    }
    end_alerts_of_the_gone(&journal);
    let firing = journal.firing();
    assert_eq!(firing.iter().map(|alert| alert.process.pid).collect::<Vec<_>>(), [std::process::id()]);
    assert_eq!(journal.count(), 3);
}
