//! Culprits of slow calls: how long a call takes before and now, and which function in it takes what came on top. Time is
//! compared per call, because the shares of a call that takes 2 ms and of one that takes 93 ms may be the same.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::causes::{Of, time};
use super::own::is_application;
use super::{Charges, Culprit, Function, Open, added, charge_chains, charged_chain, charged_most, describe, tenth};
use crate::symbolize::{Frame, Kind, Profile, Sample};
use crate::target::ThreadState;
use crate::text::short_time;

/// What a thread does in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum What {
    /// It computes.
    #[serde(rename = "at work")]
    AtWork,
    /// It asked to sleep for a time.
    #[serde(rename = "asleep")]
    Asleep,
    /// It wants a lock that another thread has.
    #[serde(rename = "waiting for a lock")]
    ForLock,
    /// It could run, but others do.
    #[serde(rename = "waiting for a CPU")]
    ForCpu,
    /// It cannot be interrupted: it waits for storage mostly.
    #[serde(rename = "waiting for a disk")]
    ForDisk,
    /// It waits for something else: an answer, an event.
    #[serde(rename = "waiting")]
    Waiting,
}

impl What {
    fn words(self) -> &'static str {
        match self {
            Self::AtWork => "at work",
            Self::Asleep => "asleep",
            Self::ForLock => "waiting for a lock",
            Self::ForCpu => "waiting for a CPU",
            Self::ForDisk => "waiting for a disk",
            Self::Waiting => "waiting",
        }
    }
}

/// The calls of a function that is timed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls<'a> {
    /// Its name, for people.
    pub name: &'a str,
    /// How long a call takes now, on average, in nanoseconds; `None` where that is not known.
    pub time_ns: Option<u64>,
    /// How long one took in the baseline.
    pub calm_ns: Option<u64>,
    /// How long the oldest call that has not returned takes.
    pub oldest_ns: Option<u64>,
}

/// What takes more time in calls of a function than in the baseline, at work and waiting: what it calls, or its own code.
/// `is_meant` knows the function by its demangled name.
pub fn call_culprits(
    calls: &Calls<'_>,
    is_meant: impl Fn(&str) -> bool,
    breach: &Profile,
    baseline: &Profile,
) -> Vec<Culprit> {
    let [mut now, mut calm] = [breach, baseline].map(|profile| charge_calls(profile, &is_meant));
    // As many calls as take all that time. Where that is not known, each is taken to be one: shares are compared.
    let number = |charges: &Charges, time_ns: Option<u64>| charges.count as f64 / time_ns.unwrap_or(1).max(1) as f64;
    let is_known = calls.time_ns.is_some() && calls.calm_ns.is_some();
    let known = |time_ns: Option<u64>| time_ns.filter(|_| is_known);
    (now.seconds, calm.seconds) = (number(&now, known(calls.time_ns)), number(&calm, known(calls.calm_ns)));
    let mut found = added(&now, &calm);
    if found.is_empty() {
        // Nothing takes longer than before: what there is takes the most.
        found = charged_most(&now).into_iter().map(|(function, _)| describe(function, &now, &calm)).collect();
    }
    let deeds = Deeds::of(breach, &is_meant);
    let named = found.into_iter().map(|mut culprit| {
        // All of the time is below the function itself: what it does besides calling others counts.
        let is_itself = is_meant(&culprit.function);
        if is_itself {
            let function = Function { function: culprit.function.clone(), module: culprit.module.clone() };
            let [share, before] = [now.share(now.own(&function)), calm.share(calm.own(&function))];
            culprit = Culprit {
                share: tenth(share),
                baseline_share: tenth(before),
                change: tenth(share - before),
                ..culprit
            };
        }
        let (callee, what, time) = deeds.most(&culprit.function, is_itself);
        let part = time as f64 / now.count.max(1) as f64;
        Culprit {
            of: Of::Calls(calls.name.to_owned()),
            without_baseline: calm.count == 0,
            was_idle: false,
            time_per_call_ns: calls.time_ns,
            baseline_time_per_call_ns: calls.calm_ns,
            part_ns: calls.time_ns.map(|time_ns| (part * time_ns as f64) as u64),
            callee,
            what,
            ..culprit
        }
    });
    named.collect()
}

/// Where the threads are that have called a function and are in it still. `dump` has every thread once.
pub fn open_culprits(calls: &Calls<'_>, is_meant: impl Fn(&str) -> bool, dump: &Profile) -> Vec<Culprit> {
    let (charges, nothing) = (charge_open(dump, &is_meant), Charges::default());
    let deeds = Deeds::of(dump, &is_meant);
    let described = charged_most(&charges).into_iter().map(|(function, threads)| {
        let culprit = describe(function, &charges, &nothing);
        let (callee, what, _) = deeds.most(&culprit.function, is_meant(&culprit.function));
        let open = Some(Open { calls: threads, oldest_ns: calls.oldest_ns });
        Culprit { of: Of::Calls(calls.name.to_owned()), without_baseline: true, open, callee, what, ..culprit }
    });
    described.collect()
}

/// What is said of a culprit of calls, but for the thread; `None` for others. `place` is " (FILE:LINE)".
pub(super) fn sentence(culprit: &Culprit, place: &str) -> Option<String> {
    let Culprit { of: Of::Calls(timed), function, callee, what, open, .. } = culprit else { return None };
    let is_itself = |function: &str| function == timed;
    let what = what.map_or("spent", What::words);
    let from = match callee.as_str() {
        "" if is_itself(function) => format!("{what} in {function} itself{place}"),
        "" => format!("{what} in {function}{place}"),
        callee => format!("{what} in `{callee}` from {function}{place}"),
    };
    if let Some(Open { calls, oldest_ns }) = open {
        let have = if *calls == 1 { "1 call of {} has" } else { "{n} calls of {} have" };
        let have = have.replace("{n}", &calls.to_string()).replace("{}", timed);
        let oldest = oldest_ns.map_or(String::new(), |age| format!(" for up to {}", spell(age)));
        return Some(format!("{have} not returned{oldest}: {from}"));
    }
    let (share, before) = (culprit.share.round(), culprit.baseline_share.round());
    let Some(time_ns) = culprit.time_per_call_ns else {
        let change = match () {
            () if culprit.without_baseline || before > share => String::new(),
            () if before == share => ", as before".to_owned(),
            () => format!(" instead of {before:.0} %"),
        };
        return Some(format!("{share:.0} % of the time in {timed}{change} is {from}"));
    };
    let instead = match culprit.baseline_time_per_call_ns {
        None => " (how long it took before is not known)".to_owned(),
        Some(before) if spell(before) == spell(time_ns) => ", as before".to_owned(),
        Some(before) => format!(" instead of {}", spell(before)),
    };
    let part = spell(culprit.part_ns.unwrap_or_default());
    Some(format!("{timed} takes {}{instead}: {part} of it {from}", spell(time_ns)))
}

/// `93 ms`, `2.4 s`.
fn spell(time_ns: u64) -> String {
    let short = short_time(time_ns);
    let unit = short.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(short.len());
    let (figures, unit) = short.split_at(unit);
    let value: f64 = figures.parse().unwrap_or_default();
    let value = if value < 9.95 { tenth(value) } else { value.round() };
    format!("{value} {}", if unit == "us" { "µs" } else { unit })
}

/// The frames of a call of the function: of calls in calls the outermost is measured.
fn call<'a, 'f>(frames: &'a [Frame<'f>], is_meant: &impl Fn(&str) -> bool) -> Option<&'a [Frame<'f>]> {
    let call = frames.iter().position(|frame| is_meant(&frame.function))?;
    Some(&frames[call..])
}

fn charge_calls(profile: &Profile, is_meant: &impl Fn(&str) -> bool) -> Charges {
    charge_chains(profile, time, |stack| call(&profile.frames(stack), is_meant).map(charged_chain))
}

fn charge_open(dump: &Profile, is_meant: &impl Fn(&str) -> bool) -> Charges {
    charge_chains(dump, |_| 1, |stack| call(&dump.frames(stack), is_meant).map(charged_chain))
}

/// What is done in a function, with the callee: how much of the time.
type Done = BTreeMap<(String, What), u64>;

/// What is done in the functions of calls.
struct Deeds {
    /// By the innermost function of the application.
    own: HashMap<String, Done>,
    /// By all others of a stack, without callees.
    above: HashMap<String, Done>,
}

impl Deeds {
    fn of(profile: &Profile, is_meant: &impl Fn(&str) -> bool) -> Self {
        let mut deeds = Self { own: HashMap::new(), above: HashMap::new() };
        for sample in profile.totals() {
            let frames = profile.frames(sample.stack);
            let Some(frames) = call(&frames, is_meant).filter(|_| !sample.measure.is_memory()) else { continue };
            let chain = charged_chain(frames);
            let Some(((innermost, _), callers)) = chain.split_first() else { continue };
            let below = below(frames, innermost);
            let what = what(&sample, below);
            let weight = sample.value.max(1);
            let callee = if what == What::AtWork { String::new() } else { callee(below) };
            *deeds.own.entry(innermost.function.clone()).or_default().entry((callee, what)).or_default() += weight;
            for (caller, _) in callers {
                let done = deeds.above.entry(caller.function.clone()).or_default();
                *done.entry((String::new(), what)).or_default() += weight;
            }
        }
        deeds
    }

    /// What a function does most of the time, with the callee, and for how long.
    fn most(&self, function: &str, is_itself: bool) -> (String, Option<What>, u64) {
        let sum = |of: &HashMap<String, Done>| of.get(function).map_or(0, |done| done.values().sum::<u64>());
        let of =
            if is_itself || sum(&self.own) * 2 >= sum(&self.own) + sum(&self.above) { &self.own } else { &self.above };
        let most = of.get(function).and_then(|done| done.iter().max_by_key(|(_, time)| **time));
        most.map_or((String::new(), None, 0), |((callee, what), time)| (callee.clone(), Some(*what), *time))
    }
}

/// What stands below the innermost frame of the application, outermost first.
fn below<'a, 'f>(frames: &'a [Frame<'f>], innermost: &Function) -> &'a [Frame<'f>] {
    let is_it = |frame: &Frame<'_>| frame.function == innermost.function.as_str();
    frames.iter().rposition(is_it).map_or(&[], |at| &frames[at + 1..])
}

/// The function of a library that was called: what an inlined wrapper of the standard library calls, if there is one.
fn callee(below: &[Frame<'_>]) -> String {
    let is_user = |frame: &&Frame<'_>| frame.kind == Kind::User && !is_application(frame);
    let is_shared = |frame: &&Frame<'_>| frame.module.contains(".so") && frame.module.contains("/libc");
    let shared = below.iter().filter(is_user).find(is_shared);
    let name = shared.or_else(|| below.iter().find(is_user)).map_or("", |frame| &*frame.function);
    // The library's own names for what people call without these.
    let plain = name.trim_start_matches("__GI_").trim_start_matches('_');
    if name.starts_with('_') && !plain.is_empty() && !name.starts_with("_Z") {
        plain.to_owned()
    } else {
        name.to_owned()
    }
}

fn what(sample: &Sample, below: &[Frame<'_>]) -> What {
    /// Parts of the names of functions that wait for locks, in C, C++, Rust and Go; and of those that sleep.
    const LOCKS: [&str; 9] = [
        "lll_lock",
        "mutex_lock",
        "rwlock_",
        "futex_lock_pi",
        "Mutex::lock",
        "Mutex>::lock",
        "RwLock::",
        "Mutex).Lock",
        "lock_contended",
    ];
    const SLEEPS: [&str; 3] = ["nanosleep", "usleep", "time.Sleep"];
    let calls = |names: &[&str]| below.iter().any(|frame| names.iter().any(|name| frame.function.contains(name)));
    match sample.state {
        ThreadState::Running => What::AtWork,
        ThreadState::Runnable => What::ForCpu,
        ThreadState::Uninterruptible => What::ForDisk,
        _ if calls(&SLEEPS) => What::Asleep,
        // A wait for a condition takes its mutex at the end.
        _ if calls(&LOCKS) && !calls(&["cond_wait", "cond_timedwait", "cond_clockwait"]) => What::ForLock,
        _ => What::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::super::causes::tests::times;
    use super::*;

    const LIBC: &str = "/usr/lib/libc.so.6";

    fn calls(name: &str, calm_ms: Option<u64>, now_ms: Option<u64>) -> Calls<'_> {
        let ns = |time: Option<u64>| time.map(|ms| ms * 1_000_000);
        Calls { name, time_ns: ns(now_ms), calm_ns: ns(calm_ms), oldest_ns: None }
    }

    #[test]
    fn a_callee_that_sleeps_longer_is_named_though_its_share_falls() {
        let asleep =
            format!("main deliver relay_deliver#30 {LIBC}!usleep {LIBC}!clock_nanosleep [kernel]!hrtimer_nanosleep");
        let calm = times(&[("t", &asleep, 20, true)]);
        let slow = times(&[("t", &asleep, 830, true), ("t", "main deliver", 170, false)]);
        let calls = calls("deliver", Some(2), Some(93));
        let found = call_culprits(&calls, |name| name == "deliver", &slow, &calm);
        let first = &found[0];
        assert_eq!(
            (first.function.as_str(), first.callee.as_str(), first.what),
            ("relay_deliver", "usleep", Some(What::Asleep))
        );
        assert_eq!(
            first.sentence(),
            "deliver takes 93 ms instead of 2 ms: 77 ms of it asleep in `usleep` from relay_deliver (app.c:30), in thread t"
        );
        assert_eq!(
            found[1].sentence(),
            "deliver takes 93 ms instead of 2 ms: 16 ms of it at work in deliver itself (app.c:1), in thread t"
        );
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
        let found = |calls: &Calls<'_>, calm: &Profile| call_culprits(calls, |name| name == "handle", &slow, calm);
        let named = found(&calls("handle", Some(10), Some(20)), &calm);
        assert_eq!((named.len(), named[0].function.as_str()), (1, "ask_backend"), "{named:?}");
        assert_eq!(
            named[0].sentence(),
            "handle takes 20 ms instead of 10 ms: 19 ms of it waiting in `recv` from ask_backend (app.c:1), in thread t"
        );
        let by_share = &found(&calls("handle", None, None), &calm)[0];
        assert_eq!(
            by_share.sentence(),
            "95 % of the time in handle instead of 20 % is waiting in `recv` from ask_backend (app.c:1), in thread t"
        );
        // Slow from the start on: nobody knows how it was before.
        let first = &found(&calls("handle", None, Some(20)), &times(&[]))[0];
        assert_eq!((first.without_baseline, first.share), (true, 95.0));
        assert!(first.sentence().starts_with("handle takes 20 ms (how long it took before is not known): 19 ms of it"));
    }

    #[test]
    fn calls_that_wait_for_each_other_are_told_by_where_they_stand() {
        let inlined = format!(
            "main transfer#41 /usr/include/c++/12/bits/std_mutex.h@lock {LIBC}!___pthread_mutex_lock {LIBC}!__lll_lock_wait"
        );
        let dump = times(&[("a", &inlined, 1, true), ("b", &inlined, 1, true), ("c", "main idle", 1, true)]);
        let calls = Calls { oldest_ns: Some(12_000_000_000), ..calls("transfer", None, None) };
        let found = open_culprits(&calls, |name| name == "transfer", &dump);
        assert_eq!(found.len(), 1, "{found:?}");
        let sentence = found[0].sentence();
        assert_eq!(
            sentence,
            "2 calls of transfer have not returned for up to 12 s: waiting for a lock in `pthread_mutex_lock` from transfer \
             (app.c:41), in thread a"
        );
    }
}
