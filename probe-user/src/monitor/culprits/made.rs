//! Culprits of what a process holds more and more of: which kind of threads or descriptors it is that grew, and who started or
//! opened those that are there.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Charges, Culprit, Of, charge, charged_most, describe};
use crate::symbolize::Profile;

/// Most kinds that are named, and the least part of all that was gained that one is named for beside the first.
const MAX_KINDS: usize = 3;
const LEAST: f64 = 0.1;
/// Most functions that are named for each.
const MAX_MAKERS: usize = 4;
/// Where it is known of fewer of them who made them, that is said.
const ENOUGH: f64 = 0.5;

/// What a process has of a kind of threads or descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gain {
    /// The kind, as a plural: `sockets`, `files`, `threads named worker-*`.
    pub kind: String,
    /// How many there were when all was well; unset if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many there are.
    pub now: u64,
    /// What most of them have in common, as `to 10.0.0.7:5432`; empty without that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub most: String,
    /// How many have it.
    #[serde(default)]
    pub most_count: u64,
}

impl Gain {
    /// `sockets went from 12 to 990, 941 of them to 10.0.0.7:5432`
    pub fn sentence(&self) -> String {
        let Self { kind, before, now, most, most_count } = self;
        let most = match most_count {
            _ if most.is_empty() => String::new(),
            count if count == now => format!(", all of them {most}"),
            count => format!(", {count} of them {most}"),
        };
        match before {
            Some(before) => format!("{kind} went from {before} to {now}{most}"),
            None if *now == 1 => format!("there is 1 {}{most}", singular(kind)),
            None => format!("there are {now} {kind}{most}"),
        }
    }

    /// Whether it is a number that something is to blame for: one thread is what any process has.
    pub fn is_plain(&self) -> bool {
        self.now <= 1
    }

    fn gained(&self) -> u64 {
        self.now.saturating_sub(self.before.unwrap_or(0))
    }
}

/// `thread named main` for `threads named main`.
fn singular(kind: &str) -> String {
    let end = kind.find(" named ").unwrap_or(kind.len());
    let (noun, rest) = kind.split_at(end);
    format!("{}{rest}", noun.strip_suffix('s').unwrap_or(noun))
}

/// What a culprit has to do with a [`Gain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// It made them: its share is of all.
    #[default]
    Made,
    /// It made them: its share is of the few of which it is known who did.
    Some,
    /// It is what these threads run. Who started them is not known.
    Runs,
}

impl Part {
    pub(super) fn is_made(&self) -> bool {
        *self == Self::Made
    }
}

/// What a process has gained since `before`, of each kind; the most first. Without `before`, what it has most of. Each of `now`
/// is the kind of something and what is told apart within.
pub fn gains<'a>(before: Option<&BTreeMap<String, u64>>, now: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Gain> {
    let mut kinds: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (kind, label) in now {
        *kinds.entry(kind).or_default().entry(label).or_default() += 1;
    }
    let gain = |(kind, labels): (&str, &BTreeMap<&str, u64>)| {
        let now = labels.values().sum::<u64>();
        let most = labels.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| **count * 2 > now);
        let (most, most_count) = most.map_or(("", 0), |(label, count)| (*label, *count));
        let before = before.map(|before| before.get(kind).copied().unwrap_or(0));
        Gain { kind: kind.to_owned(), before, now, most: most.to_owned(), most_count }
    };
    let mut gains: Vec<Gain> = kinds.iter().map(|(kind, labels)| gain((kind, labels))).collect();
    gains.retain(|gain| gain.gained() > 0);
    gains.sort_by_key(|gain| std::cmp::Reverse(gain.gained()));
    let least = LEAST * gains.iter().map(Gain::gained).sum::<u64>() as f64;
    let count = gains.iter().skip(1).take_while(|gain| gain.gained() as f64 >= least).count();
    gains.truncate(MAX_KINDS.min(count + 1));
    gains
}

/// Who made what there is more of: `makings` has a sample for each that is known. Empty where none is.
pub fn maker_culprits(gain: &Gain, of: &Of, makings: &Profile) -> Vec<Culprit> {
    let (charges, nothing) = (charge(makings, |sample| sample.value), Charges::default());
    let is_known = charges.count as f64 >= ENOUGH * gain.gained() as f64;
    let part = if is_known { Part::Made } else { Part::Some };
    let makers = charged_most(&charges).into_iter().take(MAX_MAKERS).map(|(function, made)| {
        let share = super::tenth(charges.share(made));
        let culprit = Culprit { share, change: share, ..describe(function, &charges, &nothing) };
        Culprit { of: of.clone(), gain: Some(gain.clone()), part, without_baseline: true, ..culprit }
    });
    makers.collect()
}

/// What is said of a culprit of a gain; `None` for others. `place` is " (FILE:LINE)", `thread` names who did it.
pub(super) fn sentence(culprit: &Culprit, place: &str, thread: &str) -> Option<String> {
    let Culprit { of, function, share, gain: Some(gain), part, .. } = culprit else { return None };
    let (made, participle) = if *of == Of::Threads { ("started", "started") } else { ("opened", "opened") };
    let (gain, share) = (gain.sentence(), share.round());
    Some(match part {
        Part::Made => format!("{gain}: {function}{place} {made} {share:.0} % of them{thread}"),
        Part::Some => {
            format!("{gain}: {function}{place} {made} {share:.0} % of those that were seen to be {participle}{thread}")
        }
        Part::Runs => {
            format!("{gain}; who started them is not known: {function}{place} is what {share:.0} % of them do")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::profile;
    use super::*;

    fn before(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
    }

    #[test]
    fn what_grew_most_comes_first() {
        let many = |kind, label, count| std::iter::repeat_n((kind, label), count);
        let now = || {
            let sockets = many("sockets", "to 10.0.0.7:5432", 941).chain(many("sockets", "accepted on port 80", 49));
            sockets.chain(many("files", "in /var", 30)).chain(many("pipes", "", 2))
        };
        let gains_of = |before: Option<&BTreeMap<String, u64>>| gains(before, now());
        let found = gains_of(Some(&before(&[("sockets", 12), ("files", 30), ("pipes", 1)])));
        assert_eq!(found.len(), 1, "a pipe is next to nothing: {found:?}");
        assert_eq!(found[0].sentence(), "sockets went from 12 to 990, 941 of them to 10.0.0.7:5432");
        assert_eq!(gains_of(None)[0].sentence(), "there are 990 sockets, 941 of them to 10.0.0.7:5432");
        assert_eq!(gains_of(Some(&before(&[("sockets", 990), ("files", 9)])))[0].kind, "files");
        let one = gains(None, many("threads named main", "", 1));
        assert_eq!(one[0].sentence(), "there is 1 thread named main");
    }

    #[test]
    fn who_opened_what_is_still_open_is_named() {
        let gain = Gain { kind: "sockets".into(), before: Some(2), now: 42, ..Gain::default() };
        let opened = |connect: u64| {
            let stack = "main serve connect_backend /usr/lib/libc.so.6!__socket";
            let mut makings =
                profile(1, &[("main", stack, 1), ("main", "main probe_dns /usr/lib/libc.so.6!__socket", 1)]);
            (makings.samples[0].value, makings.samples[1].value) = (connect, 4);
            makings
        };
        let found = maker_culprits(&gain, &Of::Descriptors, &opened(36));
        assert_eq!(
            found[0].sentence(),
            "sockets went from 2 to 42: connect_backend (app.c:1) opened 90 % of them, in thread main"
        );
        let few = maker_culprits(&gain, &Of::Descriptors, &opened(12));
        assert_eq!(
            few[0].sentence(),
            "sockets went from 2 to 42: connect_backend (app.c:1) opened 75 % of those that were seen to be opened, in thread main"
        );
        assert_eq!(maker_culprits(&gain, &Of::Descriptors, &Profile::default()), []);
        let runs = Culprit { of: Of::Threads, part: Part::Runs, ..few[0].clone() };
        assert_eq!(
            runs.sentence(),
            "sockets went from 2 to 42; who started them is not known: connect_backend (app.c:1) is what 75 % of them do"
        );
    }
}
