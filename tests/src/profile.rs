//! Reads the JSON profile, which unlike folded stacks says of each sample when it was taken, and of each frame where it is.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A recording with its times.
#[derive(Debug)]
pub struct Profile {
    /// Its samples, in no particular order.
    pub samples: Vec<Sample>,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Nanoseconds of the wall clock.
    pub time_ns: u64,
    /// Process id.
    pub pid: u64,
    /// Thread's name.
    pub thread: String,
    /// Frames in user space, leaf first.
    pub frames: Vec<Frame>,
    /// Whether the stack begins where its thread does.
    pub is_whole: bool,
}

/// One frame of a stack.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Name of the function that was compiled, whatever was inlined into it; empty when it has none.
    pub function: String,
    /// Name of the file that has it, without folders.
    pub module: String,
}

impl Profile {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self> {
        let whole: Value = serde_json::from_str(text).context("the profile is no JSON")?;
        let profile = &whole["profile"];
        let start = number(&profile["header"]["started_at_ns"])?;
        let samples = list(&profile["samples"])?.iter().map(|sample| sample_of(profile, start, sample));
        let samples = samples.collect::<Result<Vec<_>>>()?;
        ensure!(!samples.is_empty(), "no samples at all");
        Ok(Self { samples })
    }

    /// Only the samples that fulfil a condition.
    pub fn only(&self, condition: impl Fn(&Sample) -> bool) -> Self {
        Self { samples: self.samples.iter().filter(|sample| condition(sample)).cloned().collect() }
    }

    /// The share of the samples that fulfil a condition, from 0 to 1; 1 of none.
    pub fn share(&self, condition: impl Fn(&Sample) -> bool) -> f64 {
        share(self.samples.iter().filter(|sample| condition(sample)).count(), self.samples.len())
    }

    /// The share of whole stacks.
    pub fn whole(&self) -> f64 {
        self.share(|sample| sample.is_whole)
    }

    /// The share of the samples with a function by this name.
    pub fn share_of(&self, function: &str) -> f64 {
        self.share(|sample| sample.frames.iter().any(|frame| frame.function == function))
    }

    /// The functions of a file with the share of the samples that go through each.
    pub fn functions(&self, module: &str) -> BTreeMap<String, f64> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for sample in &self.samples {
            let named = sample.frames.iter().filter(|frame| frame.module == module && !frame.function.is_empty());
            let functions: BTreeSet<&str> = named.map(|frame| frame.function.as_str()).collect();
            functions.into_iter().for_each(|function| *counts.entry(function).or_default() += 1);
        }
        let shares = counts.into_iter().map(|(name, count)| (name.to_owned(), share(count, self.samples.len())));
        shares.collect()
    }
}

fn share(part: usize, all: usize) -> f64 {
    if all == 0 { 1.0 } else { part as f64 / all as f64 }
}

fn sample_of(profile: &Value, start: u64, sample: &Value) -> Result<Sample> {
    let thread = &profile["threads"][index(&sample["thread"])?];
    let stack = &profile["stacks"][index(&sample["stack"])?];
    let locations = list(&stack["locations"])?.iter().map(|at| Ok(&profile["locations"][index(at)?]));
    let locations = locations.collect::<Result<Vec<_>>>()?;
    let users = locations.into_iter().filter(|location| location["kind"] == "user");
    Ok(Sample {
        time_ns: start + number(&sample["time_ns"])?,
        pid: number(&profile["processes"][index(&thread["process"])?]["pid"])?,
        thread: text(&thread["name"]),
        frames: users.map(|location| frame(profile, location)).collect(),
        is_whole: stack["truncated"].is_null(),
    })
}

fn frame(profile: &Value, location: &Value) -> Frame {
    let compiled = location["lines"].as_array().and_then(|lines| lines.last());
    let path = index(&location["module"]).map_or_else(|_| String::new(), |at| text(&profile["modules"][at]["path"]));
    Frame {
        function: compiled.map_or_else(String::new, |line| text(&line["function"])),
        module: path.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("a number expected instead of {value}"))
}

fn index(value: &Value) -> Result<usize> {
    Ok(usize::try_from(number(value)?)?)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("a list expected")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
