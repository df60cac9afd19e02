//! The keeper at its worst: full disks, dying processes, broken scenes. Its clock is made up.

use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use super::*;
use crate::alert::{Journal, NoticeKind, Reader};
use crate::daemon::announce::Announcer;
use crate::daemon::evidence::headline;
use crate::daemon::heap::Heaps;
use crate::daemon::tests::Fake;
use crate::export;
use crate::monitor::{Metric, Over, Side, Subject};
use crate::snapshot::{Limits, OtherThreads, Window};
use crate::target::ThreadState;

const SECOND: u64 = 1_000_000_000;

struct Bench {
    _folder: tempfile::TempDir,
    scene: Arc<Fake>,
    keeper: Keeper,
    announcer: Announcer,
    news: Receiver<News>,
    holds: Arc<Holds>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let scene = Fake::new();
        scene.now.store(105 * SECOND, Ordering::Relaxed);
        let holds = Arc::new(Holds::new(scene.clone()));
        let store = Store::open(&folder.path().join("store"), Limits::default()).expect("opens");
        let journal = Arc::new(Journal::open(&folder.path().join("journal"), None).expect("opens"));
        let (inform, news) = channel();
        let mut keeper = Keeper::new(scene.clone(), Arc::clone(&holds), store, inform, Arc::default());
        keeper.retry = Duration::ZERO;
        let announcer = Announcer::new(scene.clone(), journal, Arc::default(), folder.path().join("standing.json"));
        Self { _folder: folder, scene, keeper, announcer, news, holds }
    }

    fn breach(&mut self, pid: u32) {
        self.breach_of(Metric::Cpu, pid, None);
    }

    fn breach_of(&mut self, metric: Metric, pid: u32, heap: Option<Hold>) {
        self.holds.watch(pid, "app", crate::daemon::Waits::None).expect("watched");
        self.holds.begin(pid);
        let job = self.job(metric, pid, heap);
        self.announce(&job);
        self.keeper.hear(Told::Breach(Box::new(job)));
        self.keeper.work();
        self.tell();
    }

    /// As the watcher does it.
    fn announce(&mut self, job: &Job) {
        let sidecar = headline(job, self.scene.now_ns()).expect("written");
        let notice = Notice::of_snapshot(&sidecar, Some(self.keeper.store.folder(job.id)), &job.notify);
        self.announcer.hear(News::Breach { notice: Box::new(notice), due_ns: job.end_ns() + 5 * SECOND });
    }

    fn over(&mut self, pid: u32) {
        let breach = self.job(Metric::Cpu, pid, None).breach;
        let (since_ns, until_ns) = (breach.breached_at_ns, 200 * SECOND);
        let over = Over { since_ns, until_ns, value: Some(12.25), was_skipped: true, breach };
        self.announcer.hear(News::Over(Box::new(over)));
        self.tell();
    }

    fn tell(&mut self) {
        self.news.try_iter().for_each(|news| self.announcer.hear(news));
        self.announcer.work();
    }

    /// All that was told, oldest first.
    fn told(&self) -> Vec<Notice> {
        let state = tempfile::tempdir().expect("a folder");
        let mut reader = Reader::open(self.announcer.journal.path(), state.path()).expect("opens");
        reader.read(100).into_iter().map(|(_, notice)| notice.expect("whole")).collect()
    }

    fn job(&self, metric: Metric, pid: u32, heap: Option<Hold>) -> Job {
        let breach = Breach {
            rule: "hot".into(),
            target: "app".into(),
            pid,
            metric,
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
        let (holdings, makings) = (None, Makings::default());
        Job {
            id: Ulid::new(),
            breach,
            evidence,
            notify,
            host,
            process,
            function: None,
            dump,
            heap,
            holdings,
            makings,
            gone_at_ns: None,
        }
    }

    fn at(&mut self, second: u64) {
        self.scene.now.store(second * SECOND, Ordering::Relaxed);
        self.keeper.work();
        self.tell();
    }

    /// How many snapshots were told to be stored, and to be lost.
    fn counted(&self) -> (u64, u64) {
        let (_, stored, lost) = self.keeper.chronicle.totals();
        (stored, lost)
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
    assert_eq!(bench.told().len(), 1);
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
fn a_full_disk_delays_the_snapshot_and_not_its_alert() {
    let mut bench = Bench::new();
    bench.keeper.store.set_full(true);
    bench.breach(7);
    bench.at(110);
    bench.at(120);
    assert_eq!((bench.stored().len(), bench.keeper.unstored.len(), bench.counted()), (0, 1, (0, 0)));
    let told = bench.told();
    let [alert] = &told[..] else { panic!("{told:?}") };
    assert!(!alert.culprit.is_empty() && alert.note.contains("not be stored yet"), "{alert:?}");
    bench.keeper.store.set_full(false);
    bench.at(130);
    assert_eq!((bench.stored().len(), bench.told().len(), bench.counted()), (1, 1, (1, 0)));
}

#[test]
fn an_alert_does_not_wait_for_names_and_is_completed_when_they_are_there() {
    let mut bench = Bench::new();
    let job = bench.job(Metric::Cpu, 7, None);
    bench.holds.watch(7, "app", crate::daemon::Waits::None).expect("watched");
    bench.holds.begin(7);
    bench.announce(&job);
    // The keeper hangs: only the announcer goes on.
    for (second, alerts) in [(109, 0), (114, 0), (115, 1), (130, 1)] {
        bench.scene.now.store(second * SECOND, Ordering::Relaxed);
        bench.tell();
        assert_eq!(bench.told().len(), alerts, "after {second} s");
    }
    bench.keeper.hear(Told::Breach(Box::new(job)));
    bench.at(140);
    bench.over(7);
    let told = bench.told();
    let [alert, whole, end] = &told[..] else { panic!("{told:?}") };
    assert!(alert.culprit.is_empty() && alert.note.contains("follows") && !alert.is_completion, "{alert:?}");
    assert_eq!(alert.snapshot.as_ref().map(|snapshot| snapshot.id), Some(bench.stored()[0].id));
    assert!(whole.is_completion && whole.culprit.starts_with("match_rules"), "{whole:?}");
    assert_eq!((&whole.snapshot, whole.kind), (&alert.snapshot, NoticeKind::Firing));
    assert!(end.is_resolved() && !end.is_completion && end.note.is_empty() && end.culprit == whole.culprit);
}

#[test]
fn a_breach_that_is_over_before_it_is_named_is_told_completed_and_ended_once() {
    let mut bench = Bench::new();
    let job = bench.job(Metric::Cpu, 7, None);
    bench.holds.watch(7, "app", crate::daemon::Waits::None).expect("watched");
    bench.holds.begin(7);
    bench.announce(&job);
    bench.over(7);
    assert!(bench.told().is_empty(), "its end is not told before its beginning");
    bench.scene.now.store(115 * SECOND, Ordering::Relaxed);
    bench.tell();
    bench.keeper.hear(Told::Breach(Box::new(job)));
    bench.at(140);
    let told = bench.told();
    let kinds: Vec<_> = told.iter().map(|notice| (notice.kind, notice.is_completion)).collect();
    let (firing, resolved) = (NoticeKind::Firing, NoticeKind::Resolved);
    assert_eq!(kinds, [(firing, false), (resolved, true)], "with its beginning, and with its culprit");
    assert!(told[0].is_brief() && told[0].note.contains("follows") && told[1].culprit.starts_with("match_rules"));
    assert!(bench.announcer.journal.firing().is_empty());
}

#[test]
fn a_breach_that_is_over_before_it_is_told_is_one_message() {
    let mut bench = Bench::new();
    bench.breach(7);
    bench.over(7);
    assert!(bench.told().is_empty(), "its end is not told before its beginning");
    bench.at(110);
    let told = bench.told();
    let [brief] = &told[..] else { panic!("{told:?}") };
    assert!(brief.is_brief() && brief.culprit.starts_with("match_rules"), "{brief:?}");
    assert!(brief.resolved_at >= Some(brief.breached_at));
    assert!(bench.announcer.journal.firing().is_empty(), "nothing is left that fires");
    bench.over(7);
    assert_eq!(bench.told().len(), 1, "its end was told");
}

#[test]
fn an_end_is_that_of_the_breach_before_it() {
    let mut bench = Bench::new();
    bench.breach(7);
    bench.at(110);
    // Both are heard at once: the first breach is over, and the rule is broken anew.
    let over = Over {
        since_ns: 105 * SECOND,
        until_ns: 130 * SECOND,
        value: None,
        was_skipped: false,
        breach: bench.job(Metric::Cpu, 7, None).breach,
    };
    bench.announcer.hear(News::Over(Box::new(over)));
    let mut second = bench.job(Metric::Cpu, 7, None);
    second.breach.exceeded_since_ns = 140 * SECOND;
    second.breach.breached_at_ns = 145 * SECOND;
    bench.announce(&second);
    bench.scene.now.store(160 * SECOND, Ordering::Relaxed);
    bench.announcer.work();
    let told = bench.told();
    let kinds: Vec<_> = told.iter().map(|notice| (notice.kind, notice.is_brief())).collect();
    let (firing, resolved) = (NoticeKind::Firing, NoticeKind::Resolved);
    assert_eq!(kinds, [(firing, false), (resolved, false), (firing, false)]);
    assert!(told[1].is_of_breach(&told[0]) && !told[1].is_of_breach(&told[2]));
    assert_eq!(bench.announcer.journal.firing().len(), 1);
}

#[test]
fn a_breach_that_ended_is_not_told_anew_by_the_next_daemon() {
    let mut bench = Bench::new();
    let job = bench.job(Metric::Cpu, 7, None);
    bench.announce(&job);
    bench.scene.now.store(120 * SECOND, Ordering::Relaxed);
    bench.tell();
    bench.over(7);
    let path = bench._folder.path().join("standing.json");
    let open = crate::daemon::Standings::read(&path).open;
    assert_eq!(open.len(), 1, "its evidence is not there");
    let journal = Arc::clone(&bench.announcer.journal);
    bench.announcer = Announcer::new(bench.scene.clone(), journal, Arc::default(), path);
    bench.announcer.catch_up(open, |_| None);
    bench.tell();
    let kinds: Vec<_> = bench.told().iter().map(|notice| (notice.kind, notice.is_completion)).collect();
    let (firing, resolved) = (NoticeKind::Firing, NoticeKind::Resolved);
    assert_eq!(kinds, [(firing, false), (resolved, false), (resolved, true)]);
    assert!(bench.announcer.journal.firing().is_empty());
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
    assert_eq!((bench.keeper.unstored.len(), bench.told().len()), (MAX_UNSTORED, 6));
    assert_eq!(bench.counted(), (0, 2));
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
    assert_eq!(bench.told().len(), 1);
}

#[test]
fn a_breach_of_memory_holds_what_is_in_use_or_says_why_not() {
    let mut bench = Bench::new();
    let heaps = Heaps::start(bench.scene.clone(), 0.01).expect("starts");
    heaps.always(7, true);
    let end = Instant::now() + Duration::from_secs(10);
    while bench.scene.followed.lock().expect("no panic").is_empty() {
        assert!(Instant::now() < end, "nobody follows it");
        std::thread::sleep(Duration::from_millis(2));
    }
    bench.breach_of(Metric::MemoryRss, 7, Some(heaps.hold(7, "hot", &Subject::Process(7))));
    bench.at(110);
    let stored = bench.stored();
    let live = stored[0].live.clone().expect("followed");
    assert_eq!((stored[0].ended_at.0 - live.since.0).div_ceil(SECOND), 15);
    assert_eq!((live.attached_share, live.sample_bytes, live.in_use_bytes), (0.25, 32 << 10, 30_000_000));
    let bytes = bench.keeper.store.profile(stored[0].id, Window::Live).expect("there");
    assert_eq!(export::read(&bytes, "stored").expect("a profile").threads.len(), 3, "of all threads");
    bench.scene.followed.lock().expect("no panic").clear();
    bench.breach_of(Metric::MemoryRss, 7, Some(heaps.hold(7, "hot", &Subject::Process(7))));
    let stored = bench.stored();
    let losses: Vec<_> = stored.iter().flat_map(|sidecar| sidecar.losses.keys()).collect();
    assert!(losses.contains(&&"allocations not followed: pid 7 is not followed".to_owned()), "{losses:?}");
    assert_eq!(stored.iter().filter(|sidecar| sidecar.live.is_none()).count(), 1);
}

#[test]
fn stopping_keeps_what_there_is() {
    let mut bench = Bench::new();
    bench.breach(7);
    let path = bench.keeper.store.path().to_owned();
    let (tell, told) = channel();
    drop(tell);
    bench.keeper.run(&told);
    assert_eq!(Store::read(&path, Limits::default()).list().expect("listed").snapshots.len(), 1);
    assert_eq!(bench.scene.asked.lock().expect("no panic")[1], (7, 100 * SECOND, 105 * SECOND));
}

#[test]
fn what_is_too_hot_to_be_looked_at_is_told_and_so_is_its_end() {
    let mut bench = Bench::new();
    let job = bench.job(Metric::Cpu, 7, None);
    let notice = Notice::of_snapshot(&headline(&job, 105 * SECOND).expect("written"), None, &job.notify);
    bench.announcer.hear(News::Notice(Box::new(Notice { kind: NoticeKind::Skipped, ..notice })));
    bench.tell();
    let [told] = &bench.announcer.journal.firing()[..] else { panic!("nobody is told") };
    assert_eq!((told.kind, &told.snapshot, told.process.pid), (NoticeKind::Skipped, &None, 7));
    assert!(bench.keeper.store.list().expect("reads").snapshots.is_empty());
    bench.over(7);
    assert!(bench.announcer.journal.firing().is_empty(), "its end is told, too");
    let end = bench.told().pop().expect("there");
    assert_eq!((end.kind, end.value, end.threshold), (NoticeKind::Resolved, 12.25, 80.0));
    assert_eq!(end.compared, "12.2, no longer 97.0 above 80 percent of one core");
}
