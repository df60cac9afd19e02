//! Breaches under another configuration, of a process that is real.

use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::daemon::Waits;
use crate::daemon::announce::News;
use crate::daemon::chronicle::Chronicle;
use crate::daemon::heap::Heaps;
use crate::daemon::holds::Holds;
use crate::daemon::keeper::Told;
use crate::daemon::tests::{Fake, Killed, config};
use crate::monitor::{Observation, Per, State};
use crate::target::Matcher;

const SECOND: u64 = 1_000_000_000;

struct Bench {
    folder: tempfile::TempDir,
    process: Killed,
    watcher: Watcher,
    told: Receiver<Told>,
    news: Receiver<News>,
}

impl Bench {
    /// A daemon that watches a process as `app`, with a rule on it that may be another than the usual one.
    fn new(rule: impl FnOnce(&mut monitor::Rule)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let process = Killed(Command::new("sleep").arg("100").spawn().expect("sleep runs"));
        let mut config = config(folder.path(), by_pid(&process), "http://127.0.0.1:1/");
        rule(&mut config.rules[0].rule);
        let scene = Fake::new();
        let holds = Arc::new(Holds::new(scene.clone()));
        let heaps = Arc::new(Heaps::start(scene.clone(), 0.01).expect("starts"));
        let functions = Arc::new(Registry::start(0.01).expect("starts"));
        let (tell, told) = channel();
        let (inform, news) = channel();
        let chronicle = Arc::new(Chronicle::new());
        let mut watcher = Watcher::new(&config, scene, holds, heaps, functions, (tell, inform), chronicle);
        watcher.rescan();
        let mut bench = Self { folder, process, watcher, told, news };
        assert_eq!(bench.watcher.roster.targets_of(bench.pid()), ["app"]);
        bench.breaks();
        bench
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Its rule breaks.
    fn breaks(&mut self) {
        let pid = self.pid();
        let is_of_service = self.watcher.rules[0].rule.per == Per::Service;
        let subject = if is_of_service { Subject::Service("app".into()) } else { Subject::Process(pid) };
        for second in 1..=5 {
            let (from_ns, at_ns) = (second * SECOND, (second + 1) * SECOND);
            let (subject, value) = (subject.clone(), Some(99.0));
            let wall_ns = at_ns;
            let seen =
                Observation { rule: 0, subject, pid, target: "app", from_ns, at_ns, wall_ns, started_ns: 0, value };
            self.watcher.observe(&seen);
        }
        assert_eq!(self.firing(), 1);
        assert!(matches!(self.told.try_recv(), Ok(Told::Breach(_))));
        assert!(matches!(self.news.try_recv(), Ok(News::Breach { .. })));
    }

    fn firing(&self) -> usize {
        self.watcher.chronicle.totals().0.len()
    }

    /// Goes on with another target and another rule. Whether the end of the breach is told.
    fn reload(&mut self, name: &str, rule: impl FnOnce(&mut monitor::Rule)) -> bool {
        let mut other = config(self.folder.path(), by_pid(&self.process), "http://127.0.0.1:1/");
        other.targets[0].name = name.into();
        other.rules[0].rule = self.watcher.rules[0].rule.clone();
        rule(&mut other.rules[0].rule);
        self.watcher.reload(other);
        self.news.try_iter().any(|news| matches!(news, News::Over(_)))
    }
}

fn by_pid(process: &Killed) -> Matcher {
    Matcher::default().pid(process.0.id()).expect("valid")
}

#[test]
fn the_same_rules_go_on_and_others_begin_anew() {
    let mut bench = Bench::new(|_| {});
    assert!(!bench.reload("app", |_| {}));
    assert_eq!(bench.firing(), 1);
    assert!(bench.reload("app", |rule| rule.for_ns = 7 * SECOND));
    assert_eq!(bench.firing(), 0, "nothing says that it still fires");
    assert!(bench.watcher.engine.states().all(|(_, _, state)| state == State::Normal));
}

#[test]
fn a_process_that_moves_to_another_target_breaks_its_old_rules_no_longer() {
    let mut bench = Bench::new(|_| {});
    assert!(bench.reload("other", |_| {}));
    assert_eq!(bench.watcher.roster.targets_of(bench.pid()), ["other"]);
    assert_eq!((bench.firing(), bench.watcher.engine.hot().len()), (0, 0));
    // A rule on all targets looks at it as before.
    let mut bench = Bench::new(|rule| rule.target = "*".into());
    assert!(!bench.reload("other", |_| {}));
    assert_eq!(bench.firing(), 1);
}

#[test]
fn a_service_that_is_gone_breaks_no_rule() {
    let mut bench = Bench::new(|rule| (rule.target, rule.per) = ("*".into(), Per::Service));
    assert!(bench.reload("other", |_| {}));
    assert_eq!((bench.firing(), bench.watcher.engine.hot().len()), (0, 0));
}

#[test]
fn the_end_of_a_process_is_told_to_the_keeper_if_it_has_evidence_of_it() {
    let mut bench = Bench::new(|_| {});
    let pid = bench.pid();
    bench.watcher.let_go(pid);
    let told: Vec<Told> = bench.told.try_iter().collect();
    assert!(matches!(&told[..], [Told::Gone { .. }]), "{told:?}");
    assert!(matches!(bench.news.try_recv(), Ok(News::Over(_))));
    bench.watcher.holds.end(pid);
    bench.watcher.holds.watch(pid, "app", Waits::None).expect("watched");
    bench.watcher.let_go(pid);
    assert!(bench.told.try_recv().is_err());
}
