//! Alerts that last: how they are repeated, and that their ends are told.

use std::time::SystemTime;

use super::*;

/// A notice of a breach that began days ago.
fn old(pid: u32) -> Notice {
    let days = Duration::from_secs(10 * 86_400);
    Notice { id: Ulid::from_datetime(SystemTime::now() - days), ..fresh(pid) }
}

#[test]
fn an_end_is_told_however_long_the_alert_has_lasted() {
    let bench = Bench::new(policy(), 1);
    bench.lane.accept(&old(1));
    assert_eq!(bench.deliver(), [1]);
    bench.lane.accept(&fresh(2));
    assert_eq!(bench.deliver(), [2]);
    let again = bench.again();
    for lane in [&bench.lane, &again] {
        lane.accept(&over(1));
        let batch = bench.next_of(lane);
        assert!(batch[0].notice.is_resolved() && batch[0].notice.process.pid == 1);
    }
}

#[test]
fn an_alert_is_repeated_however_long_it_has_lasted() {
    let policy = Policy { repeat_interval: Some(Duration::from_millis(50)), ..policy() };
    let bench = Bench::new(policy, 10);
    let alert = old(1);
    bench.lane.accept(&alert);
    let first = bench.next().remove(0);
    bench.lane.settle(std::slice::from_ref(&first), Ok(()));
    let second = bench.next().remove(0);
    assert_eq!((first.message(), &second.notice), (alert.clone(), &alert));
    assert_ne!(second.message().id, alert.id, "another message");
    bench.lane.settle(&[second], Ok(()));
    let after = Lane::open(bench.folder.path(), "ops", policy, 10).expect("opens again");
    assert_eq!(bench.next_of(&after)[0].notice.process.pid, 1);
}

#[test]
fn a_repetition_that_is_refused_waits_for_the_next() {
    let bench = Bench::new(Policy { repeat_interval: Some(Duration::from_millis(300)), ..policy() }, 10);
    bench.lane.accept(&fresh(1));
    bench.deliver();
    let batch = bench.next();
    let start = Instant::now();
    bench.lane.settle(&batch, Err(Failure::refused("bad request")));
    assert_eq!(bench.deliver(), [1]);
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
}

#[test]
fn of_too_many_the_end_of_the_oldest_is_told() {
    let bench = Bench::new(policy(), 1);
    bench.lane.state().active.max = 2;
    for pid in 1..=3 {
        bench.lane.accept(&Notice { id: Ulid::from_parts(u64::from(pid), 1), ..fresh(pid) });
        assert_eq!(bench.deliver(), [pid]);
    }
    let batch = bench.next();
    assert!(batch[0].notice.is_resolved() && batch[0].notice.process.pid == 1);
    bench.lane.settle(&batch, Ok(()));
    bench.lane.accept(&over(1));
    bench.lane.accept(&over(3));
    assert_eq!(bench.deliver(), [3]);
    assert_eq!(bench.lane.queued().0, 0);
}

#[test]
fn what_fires_no_longer_by_the_journal_is_ended() {
    let bench = Bench::new(policy(), 1);
    for pid in 1..=2 {
        bench.lane.accept(&fresh(pid));
        assert_eq!(bench.deliver(), [pid]);
    }
    bench.lane.end_all_but(&[fresh(2).fingerprint].into());
    let batch = bench.next();
    let notice = batch[0].message();
    assert_eq!((notice.kind, notice.process.pid, notice.id), (NoticeKind::Resolved, 1, batch[0].id));
    assert_eq!(notice.compared, "no longer 97.5 above 80 percent of one core");
    bench.lane.settle(&batch, Ok(()));
    assert_eq!((bench.lane.queued().0, bench.files("queue")), (0, 0));
    assert!(bench.lane.state().active.contains(&fresh(2).fingerprint));
}

#[test]
fn repetitions_leave_room_the_longest_untold_first() {
    let bench = Bench::new(policy(), 1);
    for pid in [3, 1, 2] {
        bench.lane.accept(&fresh(pid));
        assert_eq!(bench.deliver(), [pid]);
        std::thread::sleep(Duration::from_millis(2));
    }
    let due = |waits: &[&str], room| {
        let waits = waits.iter().copied().collect();
        let (due, _) = bench.lane.state().active.to_repeat(Duration::ZERO, room, &waits);
        due.iter().map(|notice| notice.process.pid).collect::<Vec<_>>()
    };
    assert_eq!(due(&[], 2), [3, 1]);
    assert_eq!(due(&[&fresh(3).fingerprint], 9), [1, 2]);
}

#[test]
fn a_culprit_that_comes_later_goes_with_the_alert_or_follows_it() {
    let bench = Bench::new(policy(), 10);
    let unnamed = |pid| Notice { culprit: String::new(), note: "not yet".into(), ..fresh(pid) };
    let named = |pid| Notice { id: Ulid::new(), is_completion: true, ..fresh(pid) };
    bench.lane.accept(&unnamed(1));
    bench.lane.accept(&named(1));
    let one = bench.next();
    let told: Vec<_> = one.iter().map(|entry| (entry.notice.is_completion, &*entry.notice.note)).collect();
    assert_eq!((told, one[0].notice.culprit.is_empty()), (vec![(false, "")], false), "in one message");
    bench.lane.settle(&one, Ok(()));
    bench.lane.accept(&unnamed(2));
    bench.deliver();
    for _ in 0..2 {
        bench.lane.accept(&named(2));
    }
    let second = bench.next();
    assert!(second.len() == 1 && second[0].notice.is_completion, "{second:?}");
    bench.lane.settle(&second, Ok(()));
    assert_eq!(bench.lane.queued().0, 0, "once");
    // Its end is that of the alert.
    bench.lane.accept(&over(2));
    assert!(bench.next()[0].notice.is_resolved());
}
