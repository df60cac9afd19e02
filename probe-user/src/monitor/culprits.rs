//! Culprits: the functions that explain a breach, by what they add over a calm baseline.
//!
//! Each sample is charged to one function: the innermost frame that is the program's own. Frames of the kernel, of the
//! C, C++ and Rust run-time libraries and of the loader are passed over towards the caller, because `memcpy` or a page
//! fault explains nothing; the one who asked for it does. A stack without a frame of the program's own is charged to its
//! leaf. Functions are ranked by the CPU time per second that they add, not by their share: the shares of a nearly idle
//! baseline rest on a few samples, and a function that was all of almost nothing and is all of a full core now has the
//! same share in both.
//!
//! A helper that was at work in the baseline as well explains less than the new caller that keeps it busy: where nearly
//! all of a function's samples are below one caller that the baseline hardly knew, that caller is named instead.

mod causes;
mod kept;
mod memory;

use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::symbolize::{Frame, Kind, Profile, Sample};
use crate::text::mebibytes;
pub use causes::{Of, call_culprits, thread_culprits, wait_culprits};
pub use kept::{Kept, kept};
pub use memory::growth_culprits;

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
    /// There is nothing to compare with: the baseline has no waits, or no calls of the function that was measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_baseline: bool,
    /// Of what these are shares.
    #[serde(default)]
    pub of: Of,
    /// For memory: how much of it that is, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
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
        if let (Some(bytes), Some(time)) = (self.bytes, self.kept_for_ns) {
            let (function, bytes, seconds) = (&self.function, mebibytes(bytes), time / 1_000_000_000);
            let of = format!("{to:.0} % of what is in use after {seconds} s");
            return format!("{function}{place} keeps {bytes} that it allocated, {of}{thread}");
        }
        if let Some(bytes) = self.bytes {
            let (function, bytes) = (&self.function, mebibytes(bytes));
            return format!("{function}{place} took {bytes}, {to:.0} % of the memory that the process took{thread}");
        }
        let of = match &self.of {
            Of::Cpu => "the process".to_owned(),
            Of::Memory => "the memory".to_owned(),
            Of::Waits => "the time that threads wait".to_owned(),
            Of::Calls(function) => format!("the time in {function}"),
            Of::Threads => return format!("{}{place} is what {to:.0} % of the threads do", self.function),
        };
        match self.function.as_str() {
            function if self.without_baseline => format!("{function}{place} is {to:.0} % of {of}{thread}"),
            function if from == to => format!("{function}{place} is {to:.0} % of {of}, as before{thread}"),
            function => format!("{function}{place} went from {from:.0} % to {to:.0} % of {of}{thread}"),
        }
    }
}

/// A caller is new when the baseline had less than this part of its present rate, and knew the function it calls better.
const NEW: f64 = 0.01;
/// A caller explains a function when it is above this part of its samples.
const EXPLAINS: f64 = 0.8;

/// The functions that add most over the baseline, most responsible first, at most ten. Functions that add nothing, or next to
/// nothing of what is added, are not named. Either profile may be empty.
pub fn culprits(breach: &Profile, baseline: &Profile) -> Vec<Culprit> {
    rank(&charge(breach, on_cpu), &charge(baseline, on_cpu))
}

fn rank(now: &Charges, calm: &Charges) -> Vec<Culprit> {
    // What the charged functions add goes to whoever explains them.
    let mut added: BTreeMap<&Function, f64> = BTreeMap::new();
    for (function, charged) in &now.functions {
        let more = now.rate(charged.own.count) - calm.rate(calm.own(function));
        if more > 0.0 {
            *added.entry(explanation(function, charged, now, calm)).or_default() += more;
        }
    }
    let ranked = named(added.into_iter().collect());
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

/// The nearest caller that is new and above nearly all of a function that is not; else the function itself.
fn explanation<'a>(function: &'a Function, charged: &'a Charged, now: &Charges, calm: &Charges) -> &'a Function {
    // How much of its present rate a function had in the baseline.
    let known = |function: &Function| {
        let rate = now.functions.get(function).map_or(0.0, |charged| now.rate(charged.with_callees.count));
        calm.rate(calm.with_callees(function)) / rate.max(f64::MIN_POSITIVE)
    };
    let limit = NEW.min(known(function) / 4.0);
    let explains = |caller: &Caller| caller.count as f64 >= EXPLAINS * charged.own.count as f64;
    let callers = charged.callers.iter().filter(|(caller, above)| explains(above) && known(caller) < limit);
    callers.min_by_key(|(_, above)| above.distance).map_or(function, |(caller, _)| caller)
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
        without_baseline: false,
        of: Of::Cpu,
        bytes: None,
        kept_for_ns: None,
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
    /// The program's functions above its own samples.
    callers: BTreeMap<Function, Caller>,
}

/// A caller of a charged function.
#[derive(Debug)]
struct Caller {
    count: u64,
    /// Calls between the two, at the least.
    distance: usize,
}

#[derive(Debug, Default)]
struct Charges {
    functions: BTreeMap<Function, Charged>,
    count: u64,
    seconds: f64,
}

impl Charges {
    fn share(&self, count: u64) -> f64 {
        if self.count == 0 { 0.0 } else { 100.0 * count as f64 / self.count as f64 }
    }

    fn rate(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { count as f64 }
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
        let Some(((innermost, place), callers)) = chain.split_first() else { continue };
        let charged = charges.functions.entry(innermost.clone()).or_default();
        charged.own.add(weight, place, thread);
        for (distance, (caller, _)) in callers.iter().enumerate() {
            let caller = charged.callers.entry(caller.clone()).or_insert(Caller { count: 0, distance });
            caller.count += weight;
            caller.distance = caller.distance.min(distance);
        }
    }
    charges
}

/// The program's own functions in a stack with their places, innermost first, each once; the leaf where there are none.
fn charged_chain(frames: &[Frame<'_>]) -> Chain {
    let charge = |frame: &Frame<'_>| {
        let function = Function { function: frame.function.to_string(), module: frame.module.to_owned() };
        (function, (frame.file.to_owned(), frame.line))
    };
    let mut chain = Chain::new();
    let mut seen = HashSet::new();
    for (function, place) in frames.iter().rev().filter(|frame| is_own(frame)).map(charge) {
        if seen.insert(function.clone()) {
            chain.push((function, place));
        }
    }
    if chain.is_empty() {
        chain.extend(frames.last().map(charge));
    }
    chain
}

/// Is it code of the program, rather than of what every program stands on?
fn is_own(frame: &Frame<'_>) -> bool {
    if frame.kind == Kind::Kernel || frame.module.starts_with('[') {
        return false;
    }
    let module = frame.module.rsplit('/').next().unwrap_or_default();
    let runtime = ["libc", "libm", "libpthread", "librt", "libdl", "libstdc++", "libc++", "libc++abi", "libgcc_s"];
    let stem = module.split(['.', '-']).next().unwrap_or_default();
    if module.contains(".so") && (runtime.contains(&stem) || stem == "ld" || module.starts_with("ld-")) {
        return false;
    }
    // Inlined or statically linked parts of the run-time libraries.
    let library_file = ["/rustc/", "/library/core/src/", "/library/alloc/src/", "/library/std/src/", "/include/c++/"];
    let library_name = ["core::", "alloc::", "std::", "<core::", "<alloc::", "<std::", "__rust_", "__cxa_"];
    !library_file.iter().any(|part| frame.file.contains(part))
        && !library_name.iter().any(|start| frame.function.starts_with(start))
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
