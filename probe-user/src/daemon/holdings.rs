//! What a process holds: its threads by their names, its descriptors by their kinds. It is counted now and then while a process is
//! calm, so that at a breach it is known of what there is more, and who made that.

use std::collections::{BTreeMap, BTreeSet};

use super::causes::Cause;
use crate::monitor::{Culprit, Gain, Of, Part, gains, maker_culprits, thread_culprits};
use crate::record::Made;
use crate::symbolize::Profile;
use crate::target::{Descriptor, descriptors, name_group, thread_names};

/// What is looked at of a calm process, and at a breach: to read one takes some microseconds.
const MOST: usize = 4096;
const MOST_AT_BREACH: usize = 32 * 1024;
/// How often a calm process is looked at: what is compared with is between one and two of these old.
const EVERY_NS: u64 = 600_000_000_000;
/// Where less than this part of all has come since then, it grows slowly: it is compared with what there was at first.
const FEW: f64 = 0.25;

/// How many there were of each kind at a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Census {
    /// Monotonic clock, nanoseconds.
    at_ns: u64,
    counts: BTreeMap<String, u64>,
}

/// What a process holds at a breach, by thread id or number of the descriptor.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    now: BTreeMap<u32, Descriptor>,
    before: Option<Census>,
}

/// The censuses of calm processes.
#[derive(Debug, Default)]
pub(super) struct Censuses {
    of: BTreeMap<(u32, bool), Kept>,
}

#[derive(Debug)]
struct Kept {
    first: Census,
    old: Census,
    new: Census,
}

/// What a process holds now: threads, or descriptors. `None` when it is gone.
fn read(pid: u32, cause: Cause, most: usize, labels: bool) -> Option<BTreeMap<u32, Descriptor>> {
    if cause == Cause::Descriptors {
        return descriptors(pid, most, labels);
    }
    let thread = |(tid, name): (u32, String)| {
        let kind = format!("threads named {}", name_group(&name));
        (tid, Descriptor { kind, label: String::new() })
    };
    let names = thread_names(pid, most);
    (!names.is_empty()).then(|| names.into_iter().map(thread).collect())
}

fn count(now: &BTreeMap<u32, Descriptor>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for Descriptor { kind, .. } in now.values() {
        *counts.entry(kind.clone()).or_default() += 1;
    }
    counts
}

impl Censuses {
    /// One of these processes that it is time to look at, with what is to be looked at.
    pub(super) fn next(&self, members: impl Iterator<Item = (u32, Cause)>, now_ns: u64) -> Option<(u32, Cause)> {
        let at_ns = |(pid, cause): &(u32, Cause)| self.of.get(&key(*pid, *cause)).map_or(0, |kept| kept.new.at_ns);
        let next = members.min_by_key(at_ns)?;
        let is_due = at_ns(&next) == 0 || now_ns.saturating_sub(at_ns(&next)) >= EVERY_NS;
        is_due.then_some(next)
    }

    /// Looks at a process that is calm.
    pub(super) fn look(&mut self, pid: u32, cause: Cause, now_ns: u64) {
        let counts = read(pid, cause, MOST, false).map(|now| count(&now)).unwrap_or_default();
        self.add(pid, cause, Census { at_ns: now_ns, counts });
    }

    fn add(&mut self, pid: u32, cause: Cause, census: Census) {
        match self.of.get_mut(&key(pid, cause)) {
            Some(kept) => kept.old = std::mem::replace(&mut kept.new, census),
            None => {
                let kept = Kept { first: census.clone(), old: census.clone(), new: census };
                self.of.insert(key(pid, cause), kept);
            }
        }
    }

    /// A process is gone.
    pub(super) fn forget(&mut self, pid: u32) {
        self.of.retain(|(of, _), _| *of != pid);
    }

    /// What a process that has broken a rule holds, and held.
    pub(super) fn holdings(&self, pid: u32, cause: Cause) -> Option<Holdings> {
        let now = read(pid, cause, MOST_AT_BREACH, true)?;
        let before = self.of.get(&key(pid, cause)).map(|kept| kept.before(&now));
        Some(Holdings { now, before })
    }
}

impl Holdings {
    /// The same, as it is now.
    pub(super) fn again(&self, pid: u32, cause: Cause) -> Option<Self> {
        Some(Self { now: read(pid, cause, MOST_AT_BREACH, true)?, before: self.before.clone() })
    }
}

fn key(pid: u32, cause: Cause) -> (u32, bool) {
    (pid, cause == Cause::Threads)
}

impl Kept {
    /// What to compare with.
    fn before(&self, now: &BTreeMap<u32, Descriptor>) -> Census {
        let counts = count(now);
        let gained = counts.iter().map(|(kind, count)| count.saturating_sub(*self.old.counts.get(kind).unwrap_or(&0)));
        let has_come = gained.sum::<u64>() as f64 >= FEW * now.len() as f64;
        if has_come { self.old.clone() } else { self.first.clone() }
    }
}

/// What there is more of, and who made it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Explained {
    pub(super) gains: Vec<Gain>,
    pub(super) culprits: Vec<Culprit>,
    /// The threads that matter: those of the kind that grew, or those that opened descriptors. Each with how much.
    pub(super) threads: BTreeMap<u32, u64>,
}

/// Explains a breach of `threads` or `fds` by what the process holds and who made it; the profile names the makings. Of threads
/// of which nobody was seen to start them, it is told what they do: by the dump.
pub(super) fn explain(
    cause: Cause,
    holdings: &Holdings,
    makings: Option<&(Vec<Made>, Profile)>,
    dump: Option<&Profile>,
) -> Explained {
    let Holdings { now, before } = holdings;
    let labels = now.values().map(|Descriptor { kind, label }| (kind.as_str(), label.as_str()));
    let gains = gains(before.as_ref().map(|census| &census.counts), labels);
    let since_ns = before.as_ref().map_or(0, |census| census.at_ns);
    let of = if cause == Cause::Threads { Of::Threads } else { Of::Descriptors };
    let mut culprits = Vec::new();
    let mut threads = BTreeMap::new();
    for (at, gain) in gains.iter().enumerate() {
        let is_it = |number: &u32| now.get(number).is_some_and(|held| held.kind == gain.kind);
        let made = makings.map(|(made, profile)| {
            let meant =
                made.iter().map(|made| made.time_ns >= since_ns && is_it(&made.number) && fits(made, &gain.kind));
            let mut meant = meant.collect::<Vec<bool>>().into_iter();
            let mut profile = profile.clone();
            profile.samples.retain(|_| meant.next().unwrap_or(false));
            profile
        });
        if let Some(made) = &made {
            culprits.extend(maker_culprits(gain, &of, made));
        }
        match (cause, &made) {
            _ if at > 0 => {}
            (Cause::Threads, _) => threads.extend(now.keys().filter(|tid| is_it(tid)).map(|tid| (*tid, gain.now))),
            (_, Some(made)) => {
                for sample in &made.samples {
                    *threads.entry(made.threads[sample.thread as usize].tid).or_default() += sample.value;
                }
            }
            _ => {}
        }
    }
    if let (Cause::Threads, true, Some(gain), Some(dump)) =
        (cause, culprits.is_empty(), gains.first().filter(|gain| !gain.is_plain()), dump)
    {
        let of_kind: BTreeSet<u32> =
            now.iter().filter(|(_, held)| held.kind == gain.kind).map(|(tid, _)| *tid).collect();
        let mut dump = dump.clone();
        dump.samples.retain(|sample| of_kind.contains(&dump.threads[sample.thread as usize].tid));
        let runs = thread_culprits(&dump);
        culprits = runs.into_iter().map(|it| Culprit { gain: Some(gain.clone()), part: Part::Runs, ..it }).collect();
    }
    Explained { gains, culprits, threads }
}

/// Whether something may have been made in this way: where a descriptor came without a call that is seen, as over a socket, what
/// had its number before is not it.
fn fits(made: &Made, kind: &str) -> bool {
    use crate::kernel::How;
    match made.how {
        How::Thread | How::Copy => true,
        How::Open => !matches!(kind, "sockets" | "pipes"),
        How::Socket | How::Accept => kind == "sockets",
        How::Pipe => kind == "pipes",
        How::Anonymous => !matches!(kind, "sockets" | "pipes" | "files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::tests::profile;
    use crate::kernel::How;

    fn held(kind: &str, label: &str) -> Descriptor {
        Descriptor { kind: kind.into(), label: label.into() }
    }

    fn census(at_ns: u64, counts: &[(&str, u64)]) -> Census {
        Census { at_ns, counts: counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect() }
    }

    fn sockets(count: u32) -> BTreeMap<u32, Descriptor> {
        (0..count).map(|number| (number, held("sockets", "to 10.0.0.7:5432"))).collect()
    }

    #[test]
    fn who_opened_the_kind_that_grew_is_named() {
        let mut now = sockets(100);
        now.extend((100..110).map(|number| (number, held("files", "in /var"))));
        let holdings = Holdings { now, before: Some(census(50, &[("sockets", 4), ("files", 9)])) };
        let mut profile = profile(7, 1, &[("main", "connect_backend", 90), ("log", "rotate", 90), ("x", "stale", 9)]);
        let made = |how, number, time_ns| Made { how, number, time_ns, weight: 1 };
        let made = vec![made(How::Socket, 30, 60), made(How::Open, 101, 60), made(How::Open, 31, 70)];
        profile.samples.iter_mut().for_each(|sample| sample.value = 90);
        let explained = explain(Cause::Descriptors, &holdings, Some(&(made, profile)), None);
        assert_eq!(
            explained.culprits[0].sentence(),
            "sockets went from 4 to 100, all of them to 10.0.0.7:5432: connect_backend (app.c:41) opened 100 % of them, in thread main"
        );
        assert_eq!((explained.culprits.len(), explained.threads), (1, [(7, 90)].into()));
        let unknown = explain(Cause::Descriptors, &holdings, None, None);
        assert_eq!((unknown.culprits.len(), unknown.gains[0].kind.as_str()), (0, "sockets"));
    }

    #[test]
    fn threads_whose_start_was_not_seen_are_known_by_what_they_do() {
        let now = [(7, "main"), (8, "worker-*"), (9, "worker-*")];
        let now = now.map(|(tid, name)| (tid, held(&format!("threads named {name}"), "")));
        let before = Some(census(1, &[("threads named main", 1)]));
        let holdings = Holdings { now: now.into(), before };
        let dump = profile(7, 0, &[("main", "accept_loop", 1), ("worker-1", "serve", 1), ("worker-2", "serve", 1)]);
        let explained = explain(Cause::Threads, &holdings, None, Some(&dump));
        assert_eq!(
            explained.culprits[0].sentence(),
            "threads named worker-* went from 0 to 2; who started them is not known: serve (app.c:41) is what 100 % of them do"
        );
        assert_eq!(explained.threads.keys().copied().collect::<Vec<_>>(), [8, 9]);
    }

    #[test]
    fn what_grows_slowly_is_compared_with_what_there_was_at_first() {
        let mut censuses = Censuses::default();
        for (minutes, count) in [(0, 10), (10, 980), (20, 990), (30, 995)] {
            censuses.add(7, Cause::Descriptors, census(minutes, &[("sockets", count)]));
        }
        let kept = &censuses.of[&(7, false)];
        assert_eq!(kept.before(&sockets(1000)).counts["sockets"], 10);
        assert_eq!(kept.before(&sockets(2000)).counts["sockets"], 990, "half of them are new");
        let members = || [(7, Cause::Descriptors), (8, Cause::Descriptors)].into_iter();
        assert_eq!(censuses.next(members(), 31), Some((8, Cause::Descriptors)), "of this one nothing is known");
        assert_eq!(censuses.next(members().take(1), EVERY_NS), None);
        assert!(censuses.next(members().take(1), EVERY_NS + 30).is_some());
        censuses.forget(7);
        assert!(censuses.of.is_empty());
    }
}
