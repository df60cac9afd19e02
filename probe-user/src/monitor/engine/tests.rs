//! The engine by tables: one value a second, one letter for what it changed.

use super::*;
use crate::monitor::{Condition, Quiet};

const SECOND: u64 = 1_000_000_000;
const H: f64 = 95.0;
const L: f64 = 5.0;
/// Between the threshold and where it is clear.
const M: f64 = 70.0;

fn rule(for_s: u64, cooldown_s: u64) -> Rule {
    Rule { target: "app".into(), for_ns: for_s * SECOND, cooldown_ns: cooldown_s * SECOND, ..Rule::new("hot") }
}

fn engine(for_s: u64, cooldown_s: u64) -> Engine {
    Engine::new(vec![rule(for_s, cooldown_s)])
}

fn seen(rule: usize, pid: u32, at_s: u64, value: Option<f64>) -> Observation<'static> {
    Observation {
        rule,
        subject: Subject::Process(pid),
        pid,
        target: "app",
        from_ns: (at_s - 1) * SECOND,
        at_ns: at_s * SECOND,
        wall_ns: at_s * SECOND,
        started_ns: 0,
        value,
    }
}

fn step(engine: &mut Engine, pid: u32, at_s: u64, value: Option<f64>) -> Option<Transition> {
    engine.observe(&seen(0, pid, at_s, value))
}

/// Feeds one value a second from second 1 on; returns one letter a second: pending, Breach, Skipped, recovering, relapsed
/// (`b`), over, normal or nothing.
fn trace(engine: &mut Engine, values: &[f64]) -> String {
    let letter = |change| match change {
        None => '.',
        Some(Transition::Pending) => 'p',
        Some(Transition::Firing(_)) => 'B',
        Some(Transition::Skipped(_)) => 'S',
        Some(Transition::Recovering) => 'r',
        Some(Transition::Relapsed) => 'b',
        Some(Transition::Resolved(_)) => 'o',
        Some(Transition::Normal) => 'n',
    };
    (1..).zip(values).map(|(at, &value)| letter(step(engine, 1, at, Some(value)))).collect()
}

#[test]
fn a_level_that_lasts() {
    for (name, for_s, cooldown_s, values, expected) in [
        ("calm", 3, 60, &[L, L, L, L] as &[f64], "...."),
        ("at the threshold is not above it", 0, 0, &[80.0, 80.0], ".."),
        ("just above it is", 0, 0, &[80.0, 80.1], ".B"),
        ("for 3 s needs three seconds above", 3, 60, &[L, H, H, H, H, H], ".p.B.."),
        ("for 0 breaks at once", 0, 60, &[H, H], "B."),
        ("for up to one interval breaks at once too", 1, 60, &[H, H], "B."),
        ("a dip starts over", 3, 60, &[H, H, L, H, H, H, H], "p.np.B."),
        ("one breach while it stays hot, however long", 1, 2, &[H, H, H, H, H, H], "B....."),
        ("hot again within the cooldown waits for its end", 1, 5, &[H, L, H, H, H, H, L], "Bop..Bo"),
        ("cool again within the cooldown is no breach", 1, 5, &[H, L, H, H, L, L, L], "Bop.n.."),
        ("hot again at the very end of the cooldown", 1, 3, &[H, L, L, H], "Bo.B"),
        ("not a number is no value", 2, 0, &[H, f64::NAN, H, H], "pnpB"),
        ("a firing rule without a value is over", 1, 60, &[H, f64::NAN], "Bo"),
    ] {
        assert_eq!(trace(&mut engine(for_s, cooldown_s), values), expected, "{name}");
    }
}

#[test]
fn a_breach_ends_when_it_is_calm_for_long_enough() {
    for (name, clear, keep_s, values, expected) in [
        ("without either at once", None, 0, &[H, M, H, M] as &[f64], "BoBo"),
        ("below the clearing threshold only", Some(60.0), 0, &[H, M, M, H, L, L], "B...o."),
        ("at the clearing threshold is not below it", Some(60.0), 0, &[H, 60.0, 59.9], "B.o"),
        ("only after so many calm seconds", None, 3, &[H, L, L, L, L], "Br.o."),
        ("one calm interval may be enough", None, 1, &[H, L], "Bo"),
        ("what breaks again goes on", None, 3, &[H, L, H, L, L, L], "Brbr.o"),
        ("both together", Some(60.0), 2, &[H, L, M, L, L, L], "Brbro."),
    ] {
        let rule = Rule { clear, keep_firing_for_ns: keep_s * SECOND, ..rule(1, 0) };
        assert_eq!(trace(&mut Engine::new(vec![rule]), values), expected, "{name}");
    }
}

#[test]
fn a_change_is_compared_with_the_average_before() {
    let change = |percent, windows, min| Condition::Change { percent, windows, min };
    for (name, condition, for_s, values, expected) in [
        ("too few values", change(50.0, 3, 0.0), 1, &[10.0, 10.0, 90.0] as &[f64], "..."),
        ("half as much again is not more than that", change(50.0, 3, 0.0), 1, &[10.0, 10.0, 10.0, 15.0], "...."),
        ("more is", change(50.0, 3, 0.0), 1, &[10.0, 10.0, 10.0, 15.1], "...B"),
        (
            "the average stands still while it is pending",
            change(50.0, 3, 0.0),
            3,
            &[10.0, 10.0, 10.0, 16.0, 16.0, 16.0],
            "...p.B",
        ),
        ("what stays becomes normal", change(50.0, 3, 0.0), 1, &[10.0, 10.0, 10.0, 20.0, 20.0, 20.0, 20.0], "...Bo.."),
        ("little is soon twice as much", change(50.0, 2, 5.0), 1, &[1.0, 1.0, 4.9, 1.0, 1.0, 5.1], ".....B"),
        ("not less than half", change(-50.0, 2, 0.0), 1, &[10.0, 10.0, 5.0], "..."),
        ("less", change(-50.0, 2, 0.0), 1, &[10.0, 10.0, 4.9], "..B"),
        ("less of little", change(-50.0, 2, 10.0), 1, &[9.0, 9.0, 0.0], "..."),
        ("from nothing", change(50.0, 2, 0.0), 1, &[0.0, 0.0, 0.0, 0.1], "...B"),
    ] {
        let rule = Rule { condition, ..rule(for_s, 0) };
        assert_eq!(trace(&mut Engine::new(vec![rule]), values), expected, "{name}");
    }
    let mut engine = Engine::new(vec![Rule { condition: change(50.0, 2, 0.0), ..rule(1, 0) }]);
    assert_eq!(trace(&mut engine, &[10.0, 20.0]), "..");
    let Some(Transition::Firing(breach)) = step(&mut engine, 1, 3, Some(60.0)) else { panic!("no breach") };
    assert_eq!((breach.value, breach.threshold, breach.side), (60.0, 22.5, Side::Above), "in the metric's unit");
}

#[test]
fn what_is_too_hot_is_told_of_but_not_looked_at() {
    let mut engine = Engine::new(vec![Rule { max: Some(90.0), ..rule(2, 0) }]);
    assert_eq!(trace(&mut engine, &[H, H, L]), "pSo");
    assert_eq!(trace(&mut engine, &[85.0]), "p");
    assert_eq!(engine.hot(), [1].into());
    assert_eq!(step(&mut engine, 1, 2, Some(H)).map(|change| matches!(change, Transition::Skipped(_))), Some(true));
    assert!(engine.hot().is_empty());
    let Some(Transition::Resolved(over)) = step(&mut engine, 1, 3, Some(L)) else { panic!("not over") };
    assert!(over.was_skipped && over.since_ns == 2 * SECOND && over.until_ns == 3 * SECOND);
}

#[test]
fn nothing_breaks_while_it_warms_up_or_is_quiet() {
    let mut engine = Engine::new(vec![Rule { warm_up_ns: 3 * SECOND, ..rule(1, 0) }]);
    assert_eq!(trace(&mut engine, &[H, H, H, H]), "..B.");
    // The epoch was a Thursday, at midnight.
    let quiet = Quiet::parse(["Thu 00:01-00:02"], None).expect("right");
    let mut engine = Engine::new(vec![Rule { quiet, ..rule(1, 0) }]);
    assert!(matches!(step(&mut engine, 1, 59, Some(H)), Some(Transition::Firing(_))));
    assert_eq!(step(&mut engine, 1, 60, Some(H)), None, "goes on");
    assert!(matches!(step(&mut engine, 1, 61, Some(L)), Some(Transition::Resolved(_))), "may end");
    assert_eq!(step(&mut engine, 1, 62, Some(H)), None, "does not begin");
    assert!(matches!(step(&mut engine, 1, 120, Some(H)), Some(Transition::Firing(_))));
    let quiet = Quiet::parse(["00:01-00:02"], None).expect("right");
    let mut engine = Engine::new(vec![Rule { quiet, ..rule(9, 0) }]);
    assert_eq!(step(&mut engine, 1, 59, Some(H)), Some(Transition::Pending));
    assert_eq!(step(&mut engine, 1, 60, Some(H)), Some(Transition::Normal));
}

#[test]
fn a_breach_says_since_when_and_how_much() {
    let mut engine = engine(3, 60);
    let mut last = None;
    for (at, value) in [(10, 85.0), (11, 120.0), (12, 90.0)] {
        last = step(&mut engine, 7, at, Some(value));
    }
    let expected = Breach {
        rule: "hot".into(),
        target: "app".into(),
        pid: 7,
        metric: Metric::Cpu,
        function: None,
        value: 120.0,
        threshold: 80.0,
        side: Side::Above,
        exceeded_since_ns: 9 * SECOND,
        breached_at_ns: 12 * SECOND,
    };
    assert_eq!(last, Some(Transition::Firing(expected.clone())));
    let over =
        Over { breach: expected, since_ns: 12 * SECOND, until_ns: 13 * SECOND, value: Some(1.0), was_skipped: false };
    assert_eq!(step(&mut engine, 7, 13, Some(1.0)), Some(Transition::Resolved(over)));
}

#[test]
fn a_rule_may_be_broken_from_below() {
    let condition = Condition::Level { side: Side::Below, threshold: 80.0 };
    let mut engine = Engine::new(vec![Rule { condition, clear: Some(90.0), ..rule(2, 60) }]);
    assert_eq!(trace(&mut engine, &[80.0, 79.0, 81.0, 60.0]), ".pnp");
    let Some(Transition::Firing(breach)) = step(&mut engine, 1, 5, Some(70.0)) else { panic!("no breach") };
    assert_eq!((breach.value, breach.side), (60.0, Side::Below), "the lowest value is the worst");
    assert_eq!(step(&mut engine, 1, 6, Some(85.0)), None, "not clear");
    assert!(matches!(step(&mut engine, 1, 7, Some(91.0)), Some(Transition::Resolved(_))));
}

#[test]
fn other_rules_leave_the_states_of_those_that_stay() {
    let other = |name: &str| Rule { name: name.into(), ..rule(1, 60) };
    let mut engine = Engine::new(vec![rule(1, 60), other("changed")]);
    let both = |engine: &mut Engine, at_s: u64| {
        [0, 1].map(|rule| matches!(engine.observe(&seen(rule, 1, at_s, Some(90.0))), Some(Transition::Firing(_))))
    };
    assert_eq!(both(&mut engine, 1), [true, true]);
    let condition = Condition::Level { side: Side::Above, threshold: 70.0 };
    let over = engine.replace(vec![Rule { condition, ..other("changed") }, rule(1, 60)], 2 * SECOND);
    assert_eq!(
        over.iter().map(|over| (over.breach.rule.as_str(), over.until_ns)).collect::<Vec<_>>(),
        [("changed", 2 * SECOND)]
    );
    assert_eq!(over[0].value, None, "nothing was measured");
    assert_eq!(both(&mut engine, 2), [true, false], "the second is the one that fires already");
    assert_eq!(engine.replace(Vec::new(), 3 * SECOND).len(), 2);
    assert!(engine.tracks.is_empty());
}

#[test]
fn processes_are_apart_and_the_breaches_of_the_gone_are_over() {
    let mut engine = engine(1, 60);
    let is_breach = |change: Option<Transition>| matches!(change, Some(Transition::Firing(_)));
    assert!(is_breach(step(&mut engine, 1, 1, Some(90.0))));
    assert!(is_breach(step(&mut engine, 2, 1, Some(90.0))), "the cooldown is of the other process");
    assert_eq!(engine.hot(), [1, 2].into());
    let over = engine.forget(1, 2 * SECOND);
    assert_eq!(over.iter().map(|over| (over.breach.pid, over.until_ns)).collect::<Vec<_>>(), [(1, 2 * SECOND)]);
    assert!(engine.forget(1, 2 * SECOND).is_empty());
    assert!(is_breach(step(&mut engine, 1, 3, Some(90.0))), "another process under the same pid");
    assert_eq!(step(&mut engine, 2, 2, Some(90.0)), None);
    assert_eq!(
        engine.states().map(|(rule, _, state)| (rule.name.as_str(), state)).collect::<Vec<_>>(),
        [("hot", State::Firing); 2]
    );
}

#[test]
fn a_service_outlives_its_processes() {
    let mut engine = engine(1, 0);
    let of_service =
        |pid, at_s, value| Observation { subject: Subject::Service("app".into()), ..seen(0, pid, at_s, value) };
    assert!(matches!(engine.observe(&of_service(7, 1, Some(H))), Some(Transition::Firing(breach)) if breach.pid == 7));
    assert!(engine.forget(7, SECOND).is_empty());
    assert_eq!(engine.observe(&of_service(8, 2, Some(H))), None);
    assert_eq!(engine.hot(), [8].into(), "the one that is to be looked at now");
    assert!(matches!(engine.observe(&of_service(0, 3, None)), Some(Transition::Resolved(_))));
}

#[test]
fn an_unknown_rule_changes_nothing() {
    assert_eq!(engine(0, 0).observe(&seen(5, 1, 1, Some(1e9))), None);
}

#[test]
fn another_process_goes_on_from_where_one_was() {
    let mut first = engine(1, 300);
    assert_eq!(trace(&mut first, &[H, H, H]), "B..");
    assert!(step(&mut first, 2, 3, Some(H)).is_some() && step(&mut first, 3, 3, Some(L)).is_none());
    let kept = first.standings();
    assert_eq!(kept.len(), 2, "of what was never hot there is nothing to keep: {kept:?}");
    let mut second = engine(1, 300);
    assert!(kept.iter().all(|standing| second.resume(standing)));
    assert_eq!(second.hot(), BTreeSet::from([1, 2]));
    // It is not measured at once, and nothing is told again.
    assert_eq!(step(&mut second, 1, 10, None), None);
    assert_eq!(step(&mut second, 1, 11, Some(H)), None);
    assert!(matches!(step(&mut second, 1, 12, Some(L)), Some(Transition::Resolved(_))));
    assert_eq!(step(&mut second, 1, 13, Some(H)), Some(Transition::Pending), "the cooldown goes on");
    assert_eq!(step(&mut second, 1, 14, Some(H)), None);
    // What cannot be measured for long is over, as ever.
    assert_eq!(step(&mut second, 2, 20, None), None);
    assert!(matches!(step(&mut second, 2, 90, None), Some(Transition::Resolved(_))));
    assert!(!engine(2, 300).resume(&kept[0]), "it is another rule");
}
