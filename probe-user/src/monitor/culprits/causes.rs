//! Culprits of waits and of threads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::own::is_application;
use super::{Charges, Culprit, charge_chains, charged_chain, charged_most, describe, rank};
use crate::symbolize::{Frame, Profile, Sample};

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
    /// What it has open.
    Descriptors,
}

/// Who waits longer than in the baseline. Threads that wait for work do so in both; where there is no baseline, they are known
/// by how they wait, and named only if nobody else waits.
pub fn wait_culprits(breach: &Profile, baseline: &Profile) -> Vec<Culprit> {
    let charges =
        |profile: &Profile| charge_chains(profile, waiting, |stack| Some(charged_chain(&profile.frames(stack))));
    let calm = charges(baseline);
    let mut now = charges(breach);
    if calm.count == 0 {
        let busy = charge_chains(breach, waiting, |stack| {
            let frames = breach.frames(stack);
            (!waits_for_work(&frames)).then(|| charged_chain(&frames))
        });
        if busy.count > 0 {
            now = busy;
        }
    }
    rank(&now, &calm).into_iter().map(|culprit| Culprit { of: Of::Waits, ..culprit }).collect()
}

/// Does a thread wait for its next work: for an event or a condition, in no more than its own loop?
fn waits_for_work(frames: &[Frame<'_>]) -> bool {
    const EVENTS: [&str; 10] = [
        "cond_wait",
        "cond_timedwait",
        "cond_clockwait",
        "epoll_wait",
        "poll",
        "select",
        "accept",
        "sem_wait",
        "sem_clockwait",
        "io_getevents",
    ];
    /// A loop, and what it takes work with.
    const LOOP: usize = 2;
    let own = frames.iter().filter(|frame| is_application(frame) && frame.function != "main").count();
    own <= LOOP
        && frames
            .iter()
            .any(|frame| !is_application(frame) && EVENTS.iter().any(|event| frame.function.contains(event)))
}

/// What most threads do, by the first function of the application that each of them runs: what starts threads is none. Threads
/// without one tell nothing. `dump` has every thread once.
pub fn thread_culprits(dump: &Profile) -> Vec<Culprit> {
    let first = |stack| {
        let frames = dump.frames(stack);
        let own: Vec<Frame<'_>> = frames.into_iter().filter(is_application).collect();
        charged_chain(&own).pop().map(|function| vec![function])
    };
    let (charges, nothing) = (charge_chains(dump, |_| 1, first), Charges::default());
    let all = dump.samples.len().max(1) as f64;
    let described = charged_most(&charges).into_iter().map(|(function, threads)| {
        let share = super::tenth(100.0 * threads as f64 / all);
        Culprit { of: Of::Threads, share, change: share, ..describe(function, &charges, &nothing) }
    });
    described.collect()
}

fn waiting(sample: &Sample) -> u64 {
    if sample.is_on_cpu() { 0 } else { time(sample) }
}

pub(super) fn time(sample: &Sample) -> u64 {
    if sample.measure.is_memory() { 0 } else { sample.value }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::profile;
    use super::*;
    use crate::target::ThreadState;

    const SECOND: u64 = 1_000_000_000;

    /// A profile of a second: (thread, stack from the root, milliseconds, whether it waits).
    pub(in super::super) fn times(parts: &[(&str, &str, u64, bool)]) -> Profile {
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
    fn without_a_baseline_whoever_waits_for_work_gives_way() {
        let pool = "run take_job /usr/lib/libc.so.6!pthread_cond_wait";
        let idle = [("p", pool, 7000, true), ("q", pool, 7000, true)];
        let lock = ("w", "run handle count /usr/lib/libc.so.6!__lll_lock_wait", 300, true);
        let found = wait_culprits(&times(&[&idle[..], &[lock]].concat()), &times(&[]));
        assert_eq!((found.len(), found[0].function.as_str()), (1, "count"), "{found:?}");
        assert_eq!(wait_culprits(&times(&idle), &times(&[]))[0].function, "take_job", "nobody else waits");
    }

    #[test]
    fn threads_are_known_by_what_they_were_started_for() {
        let parts: Vec<_> = (0..9).map(|_| ("t", "/usr/lib/libc.so.6!clone3 serve take", 1, true)).collect();
        let dump = times(&[&parts[..], &[("main", "main join", 1, true)]].concat());
        let culprits = thread_culprits(&dump);
        assert_eq!((culprits[0].function.as_str(), culprits[0].share), ("serve", 90.0));
        assert_eq!(culprits[0].sentence(), "serve (app.c:1) is what 90 % of the threads do");
        let python = "/usr/lib/libc.so.6!start_thread /usr/bin/python3.12!pythread_wrapper /usr/bin/python3.12!_PyEval_EvalFrameDefault";
        assert_eq!(thread_culprits(&times(&[("t", python, 1, true)])), [], "an interpreter is no application");
    }
}
