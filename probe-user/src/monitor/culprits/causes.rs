//! Culprits of what is not CPU time: of waits, of slow calls, of threads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Charges, Culprit, charge, charge_chains, charged_chain, charged_most, describe, rank};
use crate::symbolize::{Profile, Sample};

/// Of what a culprit's shares are shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Samples of the process on the CPU.
    #[default]
    Cpu,
    /// Bytes that it took, or keeps.
    Memory,
    /// Time that its threads waited.
    Waits,
    /// Time in calls of this function, at work and waiting.
    Calls(String),
    /// Its threads.
    Threads,
}

/// Who waits longer than in the baseline. Threads that wait for work do so in both.
pub fn wait_culprits(breach: &Profile, baseline: &Profile) -> Vec<Culprit> {
    compared(&charge(breach, waiting), &charge(baseline, waiting), &Of::Waits)
}

/// Where the time goes in calls of a function, at work and waiting, compared with the baseline: the function itself, or what
/// it calls. `name` is for people, `is_meant` knows the function by its demangled name.
pub fn call_culprits(
    name: &str,
    is_meant: impl Fn(&str) -> bool,
    breach: &Profile,
    baseline: &Profile,
) -> Vec<Culprit> {
    let charges = |profile| charge_calls(profile, &is_meant);
    compared(&charges(breach), &charges(baseline), &Of::Calls(name.to_owned()))
}

/// What most threads do, by the first function of the program that each of them runs. `dump` has every thread once.
pub fn thread_culprits(dump: &Profile) -> Vec<Culprit> {
    let first = |stack| charged_chain(&dump.frames(stack)).pop().map(|function| vec![function]);
    let (charges, nothing) = (charge_chains(dump, |_| 1, first), Charges::default());
    let described = charged_most(&charges).into_iter().map(|(function, _)| describe(function, &charges, &nothing));
    described.map(|culprit| Culprit { of: Of::Threads, ..culprit }).collect()
}

fn compared(now: &Charges, calm: &Charges, of: &Of) -> Vec<Culprit> {
    let without_baseline = calm.count == 0;
    rank(now, calm).into_iter().map(|culprit| Culprit { of: of.clone(), without_baseline, ..culprit }).collect()
}

fn waiting(sample: &Sample) -> u64 {
    if sample.is_on_cpu() { 0 } else { time(sample) }
}

fn time(sample: &Sample) -> u64 {
    if sample.measure.is_memory() { 0 } else { sample.value }
}

fn charge_calls(profile: &Profile, is_meant: impl Fn(&str) -> bool) -> Charges {
    charge_chains(profile, time, |stack| {
        let frames = profile.frames(stack);
        // Of calls in calls the outermost is measured.
        let call = frames.iter().position(|frame| is_meant(&frame.function))?;
        Some(charged_chain(&frames[call..]))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::profile;
    use super::*;
    use crate::target::ThreadState;

    const SECOND: u64 = 1_000_000_000;

    /// A profile of a second: (thread, stack from the root, milliseconds, whether it waits).
    fn times(parts: &[(&str, &str, u64, bool)]) -> Profile {
        let samples: Vec<_> = parts.iter().map(|&(thread, stack, _, _)| (thread, stack, 1)).collect();
        let mut profile = profile(1, &samples);
        for (sample, (_, _, milliseconds, waits)) in profile.samples.iter_mut().zip(parts) {
            sample.value = milliseconds * SECOND / 1000;
            sample.state = if *waits { ThreadState::Sleeping } else { ThreadState::Running };
        }
        profile
    }

    #[test]
    fn a_lock_is_blamed_and_not_the_threads_that_wait_for_work() {
        let idle = ("idle", "main take_job /usr/lib/libc.so.6!pthread_cond_wait", 990, true);
        let calm = times(&[idle, ("w", "main count /usr/lib/libc.so.6!__lll_lock_wait", 5, true)]);
        let convoy = times(&[
            idle,
            ("w", "main count /usr/lib/libc.so.6!__lll_lock_wait", 900, true),
            ("x", "main compute", 400, false),
        ]);
        let culprits = wait_culprits(&convoy, &calm);
        assert_eq!(culprits[0].function, "count", "{culprits:?}");
        assert_eq!(culprits.len(), 1, "who works does not wait");
        let sentence = culprits[0].sentence();
        assert_eq!(sentence, "count (app.c:1) went from 1 % to 48 % of the time that threads wait, in thread w");
    }

    #[test]
    fn only_the_time_within_the_calls_counts() {
        let calm = times(&[
            ("t", "main handle parse", 80, false),
            ("t", "main handle ask_backend /usr/lib/libc.so.6!recv", 20, true),
            ("t", "main rest", 10, false),
        ]);
        let slow = times(&[
            ("t", "main handle parse", 10, false),
            ("t", "main handle ask_backend /usr/lib/libc.so.6!recv", 190, true),
            ("t", "main rest", 700, false),
        ]);
        let culprits = call_culprits("handle", |name| name == "handle", &slow, &calm);
        assert_eq!(culprits[0].function, "ask_backend");
        assert_eq!((culprits[0].baseline_share, culprits[0].share), (20.0, 95.0));
        assert!(!culprits.iter().any(|culprit| culprit.function == "rest"), "{culprits:?}");
        assert!(culprits[0].sentence().ends_with("from 20 % to 95 % of the time in handle, in thread t"));
        // Slow from the start on: nobody knows how it was before.
        let first = &call_culprits("handle", |name| name == "handle", &slow, &times(&[]))[0];
        assert_eq!((first.without_baseline, first.share), (true, 95.0));
        assert_eq!(first.sentence(), "ask_backend (app.c:1) is 95 % of the time in handle, in thread t");
    }

    #[test]
    fn threads_are_known_by_what_they_were_started_for() {
        let parts: Vec<_> = (0..9).map(|_| ("t", "/usr/lib/libc.so.6!clone3 serve take", 1, true)).collect();
        let dump = times(&[&parts[..], &[("main", "main join", 1, true)]].concat());
        let culprits = thread_culprits(&dump);
        assert_eq!((culprits[0].function.as_str(), culprits[0].share), ("serve", 90.0));
        assert_eq!(culprits[0].sentence(), "serve (app.c:1) is what 90 % of the threads do");
    }
}
