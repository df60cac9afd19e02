//! Culprits: the functions that explain a breach, by what they add over a calm baseline.
//!
//! Each sample is charged to one function: the innermost frame that is the program's own. Frames of the kernel, of the
//! C, C++ and Rust run-time libraries and of the loader are passed over towards the caller, because `memcpy` or a page
//! fault explains nothing; the one who asked for it does. A stack without a frame of the program's own is charged to its
//! leaf. Functions are ranked by the CPU time per second that they add, not by their share: the shares of a nearly idle
//! baseline rest on a few samples, and a function that was all of almost nothing and is all of a full core now has the
//! same share in both.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::symbolize::{Frame, Kind, Profile};

/// Most functions that are named.
const MAX_CULPRITS: usize = 10;

/// A function with its part in a breach. Shares are percent of the process's samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
        format!("{}{place} went from {from:.0} % to {to:.0} % of the process{thread}", self.function)
    }
}

/// The functions that add most over the baseline, most responsible first, at most ten. Functions that add nothing are not
/// named. Either profile may be empty.
pub fn culprits(breach: &Profile, baseline: &Profile) -> Vec<Culprit> {
    let (now, calm) = (charge(breach), charge(baseline));
    let mut ranked: Vec<(f64, Culprit)> = Vec::new();
    for (key, charged) in &now.functions {
        let calm_count = calm.functions.get(key).map_or(0, |charged| charged.count);
        let added = now.rate(charged.count) - calm.rate(calm_count);
        if added <= 0.0 {
            continue;
        }
        let (file, line) = hottest(&charged.places).unwrap_or_default();
        let (share, baseline_share) = (now.share(charged.count), calm.share(calm_count));
        let culprit = Culprit {
            function: key.function.clone(),
            module: key.module.clone(),
            file,
            line,
            thread: hottest(&charged.threads).unwrap_or_default(),
            share: tenth(share),
            baseline_share: tenth(baseline_share),
            change: tenth(share - baseline_share),
        };
        ranked.push((added, culprit));
    }
    // The functions come sorted by name, and the sort is stable: equals stay in that order.
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    ranked.into_iter().take(MAX_CULPRITS).map(|(_, culprit)| culprit).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Function {
    function: String,
    module: String,
}

#[derive(Debug, Default)]
struct Charged {
    count: u64,
    places: BTreeMap<(String, u32), u64>,
    threads: BTreeMap<String, u64>,
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
}

fn charge(profile: &Profile) -> Charges {
    let mut charges = Charges { seconds: profile.header.duration_ns as f64 / 1e9, ..Charges::default() };
    let mut known: HashMap<u32, Option<(Function, String, u32)>> = HashMap::new();
    for sample in profile.totals() {
        charges.count += sample.count;
        let charged = known.entry(sample.stack).or_insert_with(|| {
            let frames = profile.frames(sample.stack);
            let frame = frames.iter().rev().find(|frame| is_own(frame)).or(frames.last())?;
            let function = Function { function: frame.function.to_string(), module: frame.module.to_owned() };
            Some((function, frame.file.to_owned(), frame.line))
        });
        let Some((function, file, line)) = charged else { continue };
        let entry = charges.functions.entry(function.clone()).or_default();
        entry.count += sample.count;
        *entry.places.entry((file.clone(), *line)).or_default() += sample.count;
        let thread = profile.threads.get(sample.thread as usize).map_or("", |thread| thread.name.as_str());
        *entry.threads.entry(thread.to_owned()).or_default() += sample.count;
    }
    charges
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
