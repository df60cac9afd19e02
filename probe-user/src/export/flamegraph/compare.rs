//! Two profiles in one tree: what each adds to which node, and the functions that changed most.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::Options;
use super::super::flat::{self, Weight};
use super::packed::Columns;
use super::texts::Texts;
use super::tree::{Builder, Functions, Nodes};
use crate::symbolize::Profile;

/// Most functions that are listed as changed.
const MAX_CHANGES: usize = 200;

/// Two profiles compared. Processes are the same if they have the same name.
#[derive(Serialize, JsonSchema)]
pub struct Comparison<'a> {
    #[serde(flatten)]
    about: About<'a>,
    /// Every name, once.
    #[schemars(with = "Vec<String>")]
    strings: Texts,
    /// Every function, once.
    functions: Functions,
    /// The tree.
    nodes: Nodes,
    /// What each profile adds to the nodes where its stacks end.
    weights: Weights,
}

/// What is no column.
#[derive(Serialize, JsonSchema)]
struct About<'a> {
    /// The one to compare with.
    a: Side<'a>,
    /// The one that is compared.
    b: Side<'a>,
    /// `samples`, `microseconds` or `bytes`.
    unit: &'static str,
    /// Functions whose own share changed, most first, at most 200.
    changes: Vec<Change>,
}

/// One of the profiles.
#[derive(Serialize, JsonSchema)]
struct Side<'a> {
    /// What was measured, of which processes and where.
    title: String,
    /// The events, joined by commas.
    event: &'a str,
    /// Length of the recording in milliseconds; 0 when unknown.
    duration_ms: f64,
    /// How many samples there are.
    samples: u64,
    /// All its weights together.
    total: u64,
    /// What is missing: reason → number of samples.
    losses: &'a BTreeMap<String, u64>,
}

/// Columns of equal length.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "ComparisonWeights")]
struct Weights {
    /// Index into the nodes; each at most once.
    node: Vec<u32>,
    /// In the unit of the comparison.
    a: Vec<u64>,
    /// In the unit of the comparison.
    b: Vec<u64>,
}

/// A function, with its shares of either profile in percent.
#[derive(Serialize, JsonSchema)]
struct Change {
    /// Index into the functions.
    function: u32,
    /// Its own share of `a`.
    self_a: f64,
    /// Its own share of `b`.
    self_b: f64,
    /// Its share of `a` with what it called.
    total_a: f64,
    /// Its share of `b` with what it called.
    total_b: f64,
}

/// Compares `b` with `a`. Fails when they measure different things.
pub fn compare<'a>(a: &'a Profile, b: &'a Profile) -> Result<Comparison<'a>> {
    let (weight, other) = (Weight::of(&a.header), Weight::of(&b.header));
    ensure!(weight == other, "one profile is in {}, the other in {}", weight.unit(), other.unit());
    let mut builder = Builder::new(false);
    let mut sums: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
    for (side, profile) in [a, b].into_iter().enumerate() {
        let mut stacks = builder.stacks(profile, false);
        for total in profile.totals() {
            let node = stacks.add(&total, weight.get(&total));
            sums.entry(node).or_default()[side] += weight.get(&total);
        }
    }
    let total = |side: usize| sums.values().map(|sums| sums[side]).sum();
    let totals = [total(0), total(1)];
    let mut weights = Weights::default();
    for (node, [a, b]) in &sums {
        weights.node.push(*node);
        weights.a.push(*a);
        weights.b.push(*b);
    }
    let about = About {
        a: side(a, totals[0]),
        b: side(b, totals[1]),
        unit: weight.unit(),
        changes: changes(&builder.nodes, &sums, totals),
    };
    let functions = builder.functions();
    Ok(Comparison { about, strings: builder.strings, functions, nodes: builder.nodes, weights })
}

impl Comparison<'_> {
    /// Writes it in binary.
    pub fn pack(&self, out: &mut dyn Write) -> Result<()> {
        let mut columns = Columns::of(&self.strings, &self.functions, &self.nodes);
        let Weights { node, a, b } = &self.weights;
        columns.numbers("weights.node", node);
        columns.numbers("weights.a", a);
        columns.numbers("weights.b", b);
        columns.write(&self.about, out)
    }
}

fn side(profile: &Profile, total: u64) -> Side<'_> {
    Side {
        title: flat::title(profile, &Options::default()),
        event: &profile.header.event,
        duration_ms: profile.header.duration_ns as f64 / 1e6,
        samples: profile.samples.iter().map(|sample| sample.count).sum(),
        total,
        losses: &profile.losses,
    }
}

fn changes(nodes: &Nodes, sums: &BTreeMap<u32, [u64; 2]>, totals: [u64; 2]) -> Vec<Change> {
    let mut functions: BTreeMap<u32, [[u64; 2]; 2]> = BTreeMap::new();
    let mut seen = HashSet::new();
    for (&node, weights) in sums {
        // A function that calls itself counts once for each stack.
        seen.clear();
        let mut at = node as usize;
        while at > 0 {
            let function = nodes.function[at];
            if seen.insert(function) {
                let [own, all] = functions.entry(function).or_default();
                for side in 0..2 {
                    own[side] += if at == node as usize { weights[side] } else { 0 };
                    all[side] += weights[side];
                }
            }
            at = nodes.parent[at] as usize;
        }
    }
    let percent = |part: u64, side: usize| 100.0 * part as f64 / totals[side].max(1) as f64;
    let change = |(function, [own, all]): (u32, [[u64; 2]; 2])| Change {
        function,
        self_a: percent(own[0], 0),
        self_b: percent(own[1], 1),
        total_a: percent(all[0], 0),
        total_b: percent(all[1], 1),
    };
    let mut changes: Vec<Change> = functions.into_iter().map(change).collect();
    changes.retain(|change| change.self_a != change.self_b);
    changes.sort_by(|one, other| (other.self_b - other.self_a).abs().total_cmp(&(one.self_b - one.self_a).abs()));
    changes.truncate(MAX_CHANGES);
    changes
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    #[test]
    fn what_changed_most_stands_first_and_recursion_counts_once() {
        let a = fixture::clean();
        let mut b = a.clone();
        b.processes[0].pid += 1;
        let grown = b.samples[0].stack;
        let added = 77;
        b.samples[0].count += added;
        let comparison = compare(&a, &b).unwrap();
        assert_eq!((comparison.about.a.total, comparison.about.b.total), (23, 100));
        assert_eq!(comparison.weights.a.iter().sum::<u64>(), 23);
        assert_eq!(comparison.weights.b.iter().sum::<u64>(), 100);
        let first = &comparison.about.changes[0];
        let name = comparison.functions.name[first.function as usize];
        let leaf = b.frames(grown).pop().unwrap();
        assert_eq!(comparison.strings.iter().nth(name as usize).unwrap(), leaf.function);
        assert!(first.self_b > 77.0 && first.self_b > first.self_a, "{} {}", first.self_a, first.self_b);
        for change in &comparison.about.changes {
            assert!(change.total_a <= 100.0 && change.total_b <= 100.0 && change.self_b <= change.total_b + 1e-9);
        }
        let same = compare(&a, &a).unwrap();
        assert!(same.about.changes.is_empty());
    }

    #[test]
    fn different_units_cannot_be_compared() {
        let a = fixture::clean();
        let mut b = a.clone();
        (b.header.event, b.header.unit) = ("page-fault".into(), "bytes".into());
        let error = compare(&a, &b).err().unwrap().to_string();
        assert_eq!(error, "one profile is in samples, the other in bytes");
    }
}
