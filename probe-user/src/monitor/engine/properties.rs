//! What holds of the engine whatever it is fed.

use proptest::prelude::*;

use super::*;
use crate::monitor::{Condition, Quiet};

const SECOND: u64 = 1_000_000_000;

/// Seconds between values, and the value.
fn values() -> impl Strategy<Value = Vec<(u64, Option<f64>)>> {
    let value = prop_oneof![
        1 => Just(None),
        1 => Just(Some(f64::NAN)),
        12 => (0.0..120.0).prop_map(Some),
    ];
    prop::collection::vec((1..4u64, value), 1..200)
}

fn rules() -> impl Strategy<Value = Rule> {
    let condition = prop_oneof![
        (any::<bool>(), 40.0..80.0).prop_map(|(above, threshold)| Condition::Level {
            side: if above { Side::Above } else { Side::Below },
            threshold,
        }),
        (-90.0..200.0, 1..10usize, 0.0..20.0).prop_map(|(percent, windows, min)| Condition::Change {
            percent,
            windows,
            min
        }),
    ];
    let times = (0..6u64, 0..6u64, 0..30u64, 0..20u64);
    (condition, any::<bool>(), prop::option::of(90.0..110.0), times, any::<bool>()).prop_map(
        |(condition, has_clear, max, (for_s, keep_s, cooldown_s, warm_up_s), is_quiet)| {
            let clear = match condition {
                Condition::Level { side: Side::Above, threshold } if has_clear => Some(threshold - 20.0),
                Condition::Level { side: Side::Below, threshold } if has_clear => Some(threshold + 20.0),
                _ => None,
            };
            Rule {
                condition,
                clear,
                max,
                for_ns: for_s * SECOND,
                keep_firing_for_ns: keep_s * SECOND,
                cooldown_ns: cooldown_s * SECOND,
                warm_up_ns: warm_up_s * SECOND,
                quiet: Quiet::parse(is_quiet.then_some("00:01-00:02"), None).expect("right"),
                ..Rule::new("any")
            }
        },
    )
}

/// The states that a value may lead to.
fn allowed(from: State, to: State) -> bool {
    use State::*;
    match from {
        Normal => matches!(to, Normal | Pending | Firing),
        Pending => matches!(to, Normal | Pending | Firing),
        Firing => matches!(to, Firing | Recovering | Resolved | Normal),
        Recovering => matches!(to, Firing | Recovering | Resolved | Normal),
        Resolved => matches!(to, Resolved | Normal | Pending | Firing),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn breaches_begin_and_end_as_they_should(rule in rules(), values in values()) {
        let mut engine = Engine::new(vec![rule.clone()]);
        let subject = Subject::Process(1);
        let (mut at_s, mut before) = (0, State::Normal);
        // Since when the value has been beyond what it is compared with, as far as that can be told from outside.
        let (mut broken_since, mut last_breach, mut open) = (None, None, None);
        let (mut last_loud_ns, mut began, mut ended) = (0, 0, 0);
        for (seconds, value) in values {
            let from_ns = at_s * SECOND;
            at_s += seconds;
            let at_ns = at_s * SECOND;
            let change = engine.observe(&Observation {
                rule: 0, subject: subject.clone(), pid: 1, target: "app",
                from_ns, at_ns, wall_ns: at_ns, started_ns: 0, value,
            });
            let after = engine.state(&subject, 0);
            prop_assert!(allowed(before, after), "{:?} to {:?}", before, after);
            let is_number = value.is_some_and(f64::is_finite);
            if let Condition::Level { side, threshold } = rule.condition {
                let is_broken = value.is_some_and(|value| side.is_broken(value, threshold));
                broken_since = is_broken.then(|| broken_since.unwrap_or(from_ns));
            }
            match &change {
                Some(Transition::Firing(breach) | Transition::Skipped(breach)) => {
                    prop_assert!(matches!(before, State::Normal | State::Pending | State::Resolved));
                    prop_assert_eq!(after, State::Firing);
                    prop_assert!(is_number && breach.side.is_broken(breach.value, breach.threshold));
                    prop_assert!(at_ns - breach.exceeded_since_ns >= rule.for_ns, "too early");
                    prop_assert!(last_breach.is_none_or(|last| at_ns - last >= rule.cooldown_ns), "too soon after");
                    prop_assert!(at_ns >= rule.warm_up_ns && !rule.quiet.covers(at_ns));
                    if let Condition::Level { .. } = rule.condition {
                        prop_assert!(broken_since.is_some_and(|since| since <= breach.exceeded_since_ns), "a break");
                    }
                    let is_too_hot = rule.max.is_some_and(|max| value > Some(max));
                    prop_assert_eq!(is_too_hot, matches!(change, Some(Transition::Skipped(_))));
                    (last_breach, open) = (Some(at_ns), Some(breach.clone()));
                    began += 1;
                }
                Some(Transition::Resolved(over)) => {
                    prop_assert!(matches!(before, State::Firing | State::Recovering));
                    prop_assert_eq!(Some(&over.breach), open.as_ref());
                    prop_assert_eq!((Some(over.since_ns), over.until_ns), (last_breach, at_ns));
                    prop_assert!(at_ns - last_loud_ns >= rule.keep_firing_for_ns, "it was not calm for long enough");
                    open = None;
                    ended += 1;
                }
                Some(Transition::Pending) => prop_assert_eq!(after, State::Pending),
                Some(Transition::Normal) => prop_assert_eq!((before, after), (State::Pending, State::Normal)),
                Some(Transition::Recovering) => prop_assert_eq!((before, after), (State::Firing, State::Recovering)),
                Some(Transition::Relapsed) => prop_assert_eq!((before, after), (State::Recovering, State::Firing)),
                None => prop_assert!(
                    before == after || (before, after) == (State::Resolved, State::Normal),
                    "{:?} to {:?} in silence", before, after
                ),
            }
            if after == State::Firing {
                last_loud_ns = at_ns;
            }
            let may_be_hot = matches!(after, State::Pending | State::Firing | State::Recovering);
            prop_assert!(may_be_hot || engine.hot().is_empty());
            prop_assert!(!may_be_hot || rule.max.is_some() || engine.hot() == [1].into());
            before = after;
        }
        let over = engine.forget(1, at_s * SECOND);
        prop_assert_eq!(began, ended + over.len(), "one end for each breach");
    }
}
