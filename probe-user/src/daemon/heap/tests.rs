//! Who is followed when, on a scene that is made up.

use std::sync::atomic::Ordering;

use super::*;
use crate::daemon::tests::Fake;
use crate::monitor::{Breach, Metric, Side};

/// How long the thread may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn begin() -> (Arc<Fake>, Heaps) {
    let scene = Fake::new();
    (scene.clone(), Heaps::start(scene, 0.01).expect("starts"))
}

fn expect_followed(scene: &Fake, pids: &[u32]) {
    let end = Instant::now() + PATIENCE;
    let wanted: BTreeSet<u32> = pids.iter().copied().collect();
    while *scene.followed.lock().expect("no panic") != wanted {
        assert!(Instant::now() < end, "{:?} are followed, not {pids:?}", scene.followed.lock());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn breach(pid: u32) -> Transition {
    Transition::Firing(Breach {
        rule: "leak".into(),
        target: "app".into(),
        pid,
        metric: Metric::MemoryRss,
        function: None,
        value: 2.0,
        threshold: 1.0,
        side: Side::Above,
        exceeded_since_ns: 1,
        breached_at_ns: 2,
    })
}

#[test]
fn a_process_is_followed_from_pending_to_the_snapshot() {
    let (scene, heaps) = begin();
    heaps.hear(7, "leak", &Subject::Process(7), &Transition::Pending);
    expect_followed(&scene, &[7]);
    heaps.hear(7, "leak", &Subject::Process(7), &breach(7));
    let hold = heaps.hold(7, "leak", &Subject::Process(7));
    let in_use = hold.in_use().expect("followed");
    assert_eq!((in_use.attached_share, in_use.sample_bytes), (0.25, 32 << 10));
    heaps.leave(7);
    std::thread::sleep(Duration::from_millis(20));
    expect_followed(&scene, &[7]);
    assert!(hold.in_use().is_ok(), "it is gone, and its snapshot is not taken yet");
    drop(hold);
    expect_followed(&scene, &[]);
}

#[test]
fn a_rule_that_breaks_at_once_is_followed_from_there() {
    let (scene, heaps) = begin();
    let hold = heaps.hold(7, "leak", &Subject::Process(7));
    expect_followed(&scene, &[7]);
    drop(heaps);
    expect_followed(&scene, &[]);
    assert!(hold.in_use().is_err());
}

#[test]
fn a_rule_that_is_normal_again_is_given_some_seconds() {
    let mut state = State::default();
    let [leak, big] = ["leak", "big"].map(|rule| (rule.to_owned(), Subject::Process(7)));
    let mut want = Want { causes: [leak.clone(), big.clone()].into(), ..Want::default() };
    want.calm(&leak);
    assert_eq!(want.until, None, "another one is pending");
    want.calm(&big);
    state.wants.insert(7, want);
    let now = Instant::now();
    assert_eq!(state.next(now), Step::Start(7));
    state.started(7, Ok(()));
    let Step::Wait(Some(left)) = state.next(now) else { panic!("something to do") };
    assert!(left > LINGER / 2 && left <= LINGER + Duration::from_millis(1), "{left:?}");
    assert_eq!(state.next(now + 2 * LINGER), Step::Stop(7));
    assert_eq!(state.next(now + 2 * LINGER), Step::Wait(None));
    assert!(state.wants.is_empty());
}

#[test]
fn there_is_room_for_four_and_of_these_one_for_a_breach() {
    let (scene, heaps) = begin();
    for pid in 1..=5 {
        heaps.always(pid, true);
    }
    expect_followed(&scene, &[1, 2, 3]);
    heaps.hear(8, "leak", &Subject::Process(8), &Transition::Pending);
    expect_followed(&scene, &[1, 2, 3, 8]);
    let hold = heaps.hold(9, "leak", &Subject::Process(9));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(hold.in_use().map(|_| ()), Err("4 processes are followed already".to_owned()));
    heaps.leave(8);
    expect_followed(&scene, &[1, 2, 3, 9]);
    assert!(hold.in_use().is_ok());
    drop(hold);
    heaps.always(2, false);
    expect_followed(&scene, &[1, 3, 4]);
}

#[test]
fn what_cannot_be_followed_says_why_and_another_program_is_another_try() {
    let (scene, heaps) = begin();
    scene.is_broken.store(true, Ordering::Relaxed);
    let hold = heaps.hold(7, "leak", &Subject::Process(7));
    let end = Instant::now() + PATIENCE;
    while hold.in_use().map(|_| ()) != Err("it has no allocator".to_owned()) {
        assert!(Instant::now() < end, "{:?}", hold.in_use());
        std::thread::sleep(Duration::from_millis(2));
    }
    scene.is_broken.store(false, Ordering::Relaxed);
    heaps.executed(7);
    expect_followed(&scene, &[7]);
}

#[test]
fn rules_that_have_changed_are_forgotten() {
    let (scene, heaps) = begin();
    heaps.hear(7, "leak", &Subject::Process(7), &Transition::Pending);
    heaps.hear(8, "big", &Subject::Process(8), &Transition::Pending);
    expect_followed(&scene, &[7, 8]);
    heaps.keep(|rule, _| rule == "big");
    expect_followed(&scene, &[8]);
}

#[test]
fn of_a_service_another_process_may_have_most_part_in_it_by_then() {
    let (scene, heaps) = begin();
    let service = Subject::Service("app".into());
    heaps.hear(7, "leak", &service, &Transition::Pending);
    heaps.hear(8, "other", &service, &Transition::Pending);
    expect_followed(&scene, &[7, 8]);
    let hold = heaps.hold(9, "leak", &service);
    heaps.hear(9, "other", &service, &Transition::Normal);
    // They linger, and then nobody is followed but the one that the snapshot is of.
    let end = Instant::now() + PATIENCE;
    while heaps.shared.lock().wants.values().any(|want| !want.causes.is_empty()) {
        assert!(Instant::now() < end, "{:?}", heaps.shared.lock().wants);
        std::thread::sleep(Duration::from_millis(2));
    }
    expect_followed(&scene, &[9]);
    drop(hold);
    expect_followed(&scene, &[]);
}
