//! Culprits: the functions that explain a breach, by what they add over a calm baseline.
//!
//! Each sample is charged to one function: the innermost frame that is the application's own ([`own`]), because `memcpy` or a
//! page fault explains nothing; the one who asked for it does. Functions are ranked by the time per second, or per call, that
//! they add ([`subtrees`]), not by their share: the shares of a nearly idle baseline rest on a few samples, and a function
//! that was all of almost nothing and is all of a full core now has the same share in both. A function whose share fell
//! is not named.

mod calls;
mod causes;
mod kept;
mod made;
mod memory;
mod own;
mod subtrees;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::symbolize::{Profile, Sample};
use crate::text::mebibytes;
pub use calls::{Calls, What, call_culprits, open_culprits};
pub use causes::{Of, thread_culprits, wait_culprits};
pub use kept::{Kept, kept};
pub use made::{Gain, Part, gains, maker_culprits};
pub use memory::growth_culprits;
use own::{charged_chain, is_application as is_own};
use subtrees::Paths;

/// Most functions that are named.
const MAX_CULPRITS: usize = 10;
/// The least part of it all that a function is named for beside the first.
const LEAST: f64 = 0.01;

/// A function with its part in a breach. Shares are percent of the process's samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Culprit {
    /// Demangled name, or `[module+0xoffset]`.
    pub function: String,
    /// Path of its module; empty when unknown.
    pub module: String,
    /// Source file; empty when unknown.
    pub file: String,
    /// The line in `file` with the most samples; 0 when unknown.
    pub line: u32,
    /// The thread in which most of its samples are.
    #[serde(default)]
    pub thread: String,
    /// Its share during the breach, in percent.
    pub share: f64,
    /// Its share in the baseline, in percent; 0 when the baseline has no samples.
    pub baseline_share: f64,
    /// `share` less `baseline_share`, in percentage points.
    pub change: f64,
    /// There is nothing to compare with: the baseline has no samples, no waits, or no calls of the function that was measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_baseline: bool,
    /// The baseline has next to nothing of what is compared, so that its shares tell little.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_idle: bool,
    /// Of what these are shares.
    #[serde(default)]
    pub of: Of,
    /// For calls: how long one of the function that was measured takes, on average, in nanoseconds; unset if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_per_call_ns: Option<u64>,
    /// How long one took in the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_time_per_call_ns: Option<u64>,
    /// What of `time_per_call_ns` this function takes, with what it calls of libraries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_ns: Option<u64>,
    /// The function of a library that it calls most of that time; empty if it is its own code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub callee: String,
    /// What it does there; unset if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<What>,
    /// For calls that have not returned: how many of them are in this function, and how long the oldest call takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
    /// For threads and descriptors: which of them there are more of,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<Gain>,
    /// and what it has to do with them.
    #[serde(default, skip_serializing_if = "Part::is_made")]
    pub part: Part,
    /// The sentence for people; see [`Culprit::sentence`]. Empty in snapshots of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sentence: String,
    /// For memory: how much of it that is, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Of how much that is a part: what the process grew by, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown_bytes: Option<u64>,
    /// Where these were allocated and are in use still: for how long, at the least, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_for_ns: Option<u64>,
}

impl Culprit {
    /// One sentence for people: "match_rules (rules.c:41) went from 0 % to 88 % of the process, in thread matcher".
    pub fn sentence(&self) -> String {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let place = match (self.file.as_str(), self.module.as_str(), self.line) {
            ("", "", _) => String::new(),
            ("", module, _) => format!(" ({})", base(module)),
            (file, _, 0) => format!(" ({})", base(file)),
            (file, _, line) => format!(" ({}:{line})", base(file)),
        };
        let thread = if self.thread.is_empty() { String::new() } else { format!(", in thread {}", self.thread) };
        let (from, to) = (self.baseline_share.round(), self.share.round());
        if let Some(sentence) = calls::sentence(self, &place) {
            return format!("{sentence}{thread}");
        }
        if let Some(sentence) = made::sentence(self, &place, &thread) {
            return sentence;
        }
        if let (Some(bytes), Some(time)) = (self.bytes, self.kept_for_ns) {
            let (function, bytes, seconds) = (&self.function, mebibytes(bytes), time / 1_000_000_000);
            let of = format!("{to:.0} % of what is in use after {seconds} s");
            return format!("{function}{place} keeps {bytes} that it allocated, {of}{thread}");
        }
        if let Some(bytes) = self.bytes {
            let (function, bytes) = (&self.function, mebibytes(bytes));
            // Snapshots of earlier versions do not have it.
            let of = self.grown_bytes.map_or_else(
                || "the memory that the process took".to_owned(),
                |grown| format!("the {} that the process grew by", mebibytes(grown)),
            );
            return format!("{function}{place} took {bytes}, {to:.0} % of {of}{thread}");
        }
        let of = match &self.of {
            Of::Cpu => "the process".to_owned(),
            Of::Memory => "the memory".to_owned(),
            Of::Waits => "the time that threads wait".to_owned(),
            Of::Calls(function) => format!("the time in {function}"),
            Of::Descriptors => "what is open".to_owned(),
            Of::Threads => return format!("{}{place} is what {to:.0} % of the threads do", self.function),
        };
        match self.function.as_str() {
            function if self.without_baseline => format!("{function}{place} is {to:.0} % of {of}{thread}"),
            function if self.was_idle => {
                format!("{function}{place} is {to:.0} % of {of}, which did next to nothing before{thread}")
            }
            function if from == to => format!("{function}{place} is {to:.0} % of {of}, as before{thread}"),
            function => format!("{function}{place} went from {from:.0} % to {to:.0} % of {of}{thread}"),
        }
    }
}

/// Calls that have not returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Open {
    /// How many threads are in the function.
    pub calls: u64,
    /// How long the oldest call takes, in nanoseconds; unset if that is not known.
    pub oldest_ns: Option<u64>,
}

/// A share has fallen when it is so many points lower: less is within what samples tell.
const FELL: f64 = -0.5;
/// The baseline has next to nothing when its rate is below this part of the present one.
const IDLE: f64 = 0.002;

/// The functions that add most over the baseline, most responsible first, at most ten. Functions that add nothing, or next to
/// nothing of what is added, are not named. Either profile may be empty.
pub fn culprits(breach: &Profile, baseline: &Profile) -> Vec<Culprit> {
    rank(&charge(breach, on_cpu), &charge(baseline, on_cpu))
}

/// Those that add most, without those whose share fell, unless there are no others.
fn rank(now: &Charges, calm: &Charges) -> Vec<Culprit> {
    let found = added(now, calm);
    let rising: Vec<Culprit> =
        found.iter().filter(|culprit| culprit.change > FELL || calm.count == 0).cloned().collect();
    if rising.is_empty() { found } else { rising }
}

/// Those that add most, by their rates.
fn added(now: &Charges, calm: &Charges) -> Vec<Culprit> {
    let mut paths = Paths::default();
    let chains: BTreeSet<&Vec<Function>> = now.chains.keys().chain(calm.chains.keys()).collect();
    for chain in chains {
        let count = |charges: &Charges| charges.rate(charges.chains.get(chain).copied().unwrap_or(0));
        paths.add(chain.iter(), [count(calm), count(now)]);
    }
    let ranked = named(paths.blame().into_iter().collect());
    ranked.into_iter().map(|(function, _)| describe(function, now, calm)).collect()
}

/// Those that are named of all that are charged with something, the most charged first.
fn charged_most(charges: &Charges) -> Vec<(&Function, u64)> {
    let own =
        charges.functions.iter().map(|(function, charged)| ((function, charged.own.count), charged.own.count as f64));
    named(own.filter(|(_, count)| *count > 0.0).collect()).into_iter().map(|(charged, _)| charged).collect()
}

/// Those that are named of these, sorted by name, with what is to be blamed on each.
fn named<T>(mut blamed: Vec<(T, f64)>) -> Vec<(T, f64)> {
    let least = LEAST * blamed.iter().map(|(_, part)| part).sum::<f64>();
    // The sort is stable: equals stay in the order of their names.
    blamed.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let count = blamed.iter().skip(1).take_while(|(_, part)| *part >= least).count();
    blamed.truncate(MAX_CULPRITS.min(count + 1));
    blamed
}

/// What a sample weighs: on the CPU its time, because the rate of samples may change.
fn on_cpu(sample: &Sample) -> u64 {
    if sample.is_on_cpu() { sample.value } else { 0 }
}

fn describe(function: &Function, now: &Charges, calm: &Charges) -> Culprit {
    let nothing = Charged::default();
    let charged = now.functions.get(function).unwrap_or(&nothing);
    // A function that runs code of its own is measured by that, one that only calls by what it calls.
    let own = charged.own.count * 2 >= charged.with_callees.count;
    let (tally, calm_count) =
        if own { (&charged.own, calm.own(function)) } else { (&charged.with_callees, calm.with_callees(function)) };
    let (file, line) = hottest(&tally.places).unwrap_or_default();
    let (share, baseline_share) = (now.share(tally.count), calm.share(calm_count));
    Culprit {
        function: function.function.clone(),
        module: function.module.clone(),
        file,
        line,
        thread: hottest(&tally.threads).unwrap_or_default(),
        share: tenth(share),
        baseline_share: tenth(baseline_share),
        change: tenth(share - baseline_share),
        was_idle: calm.is_idle_beside(now),
        without_baseline: calm.count == 0,
        ..Culprit::default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Function {
    function: String,
    module: String,
}

/// File and line.
type Place = (String, u32);
/// Functions of a stack with where they are in it.
type Chain = Vec<(Function, Place)>;

/// Samples with where they were.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    places: BTreeMap<Place, u64>,
    threads: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, count: u64, place: &Place, thread: &str) {
        self.count += count;
        *self.places.entry(place.clone()).or_default() += count;
        *self.threads.entry(thread.to_owned()).or_default() += count;
    }
}

/// What a function is charged with.
#[derive(Debug, Default)]
struct Charged {
    /// Samples in the function itself, or in what it called of the kernel and the run-time libraries.
    own: Tally,
    /// Samples in the function or in anything below it.
    with_callees: Tally,
}

#[derive(Debug, Default)]
struct Charges {
    functions: BTreeMap<Function, Charged>,
    /// By the application's functions of a stack, innermost first.
    chains: BTreeMap<Vec<Function>, u64>,
    /// Of all, in what samples are weighed by.
    count: u64,
    /// What rates are by: seconds, or calls.
    seconds: f64,
}

impl Charges {
    fn share(&self, count: u64) -> f64 {
        if self.count == 0 { 0.0 } else { 100.0 * count as f64 / self.count as f64 }
    }

    fn rate(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { count as f64 }
    }

    /// Has it next to nothing of what the other has?
    fn is_idle_beside(&self, now: &Self) -> bool {
        self.count > 0 && self.rate(self.count) < IDLE * now.rate(now.count)
    }

    fn own(&self, function: &Function) -> u64 {
        self.functions.get(function).map_or(0, |charged| charged.own.count)
    }

    fn with_callees(&self, function: &Function) -> u64 {
        self.functions.get(function).map_or(0, |charged| charged.with_callees.count)
    }
}

fn charge(profile: &Profile, weigh: fn(&Sample) -> u64) -> Charges {
    charge_chains(profile, weigh, |stack| Some(charged_chain(&profile.frames(stack))))
}

/// Charges the functions of the chains of stacks; those without a chain do not count.
fn charge_chains(profile: &Profile, weigh: fn(&Sample) -> u64, chain: impl Fn(u32) -> Option<Chain>) -> Charges {
    let mut charges = Charges { seconds: profile.header.duration_ns as f64 / 1e9, ..Charges::default() };
    let mut known: HashMap<u32, Option<Chain>> = HashMap::new();
    for sample in profile.totals() {
        let weight = weigh(&sample);
        if weight == 0 {
            continue;
        }
        let Some(chain) = known.entry(sample.stack).or_insert_with(|| chain(sample.stack)) else { continue };
        charges.count += weight;
        let thread = profile.threads.get(sample.thread as usize).map_or("", |thread| thread.name.as_str());
        for (function, place) in chain.iter() {
            charges.functions.entry(function.clone()).or_default().with_callees.add(weight, place, thread);
        }
        let Some((innermost, place)) = chain.first() else { continue };
        charges.functions.entry(innermost.clone()).or_default().own.add(weight, place, thread);
        let path: Vec<Function> = chain.iter().map(|(function, _)| function.clone()).collect();
        *charges.chains.entry(path).or_default() += weight;
    }
    charges
}

/// The key with the highest count; the first in order among equals.
fn hottest<K: Clone + Ord>(counts: &BTreeMap<K, u64>) -> Option<K> {
    counts.iter().rev().max_by_key(|&(_, count)| count).map(|(key, _)| key.clone())
}

/// Rounds to a tenth, as far as the figures deserve.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
