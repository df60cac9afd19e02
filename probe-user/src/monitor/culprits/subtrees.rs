//! Who adds CPU time: calm and breach are compared call path by call path, in time per second, because shares of two different
//! wholes say little: what fell from 57 % of a little to 31 % of much does more than before.
//!
//! - A function that was there before is charged with what its own code adds. Where that is a helper which others called
//!   before, and one caller adds nearly all of it, that caller is charged instead.
//! - A function that is new is charged with all below it, unless it is new functions below it that take the time: then these
//!   are looked at one by one.

use std::collections::BTreeMap;

use super::Function;

/// A function is new when the baseline had less than this part of its present rate, however much else has grown;
const NEW: f64 = 0.01;
/// or less than this part of what it would have if all had grown alike.
const OUTGROWS: f64 = 0.25;
/// Where a function is at most this much better known than its caller, it is as new.
const AS_NEW: f64 = 2.0;
/// A caller explains a helper when it adds this part of what is added.
const EXPLAINS: f64 = 0.8;
/// Functions below a new one are looked at one by one when the greatest of them adds this part of it.
const LEADS: f64 = 0.5;

/// The place of the node that stands above all threads.
const ROOT: usize = 0;

/// The call paths of two profiles.
#[derive(Debug, Default)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// With what is called, by function: calm and now.
    known: BTreeMap<Function, [f64; 2]>,
}

/// A function at a place in the tree of calls. Pairs are the rates when it was calm, and now.
#[derive(Debug, Default)]
struct Node {
    own: [f64; 2],
    all: [f64; 2],
    children: BTreeMap<Function, usize>,
}

/// Own time of a function that was there before, by its callers from the root on.
#[derive(Debug)]
struct Part<'a> {
    callers: Vec<&'a Function>,
    own: [f64; 2],
}

impl Part<'_> {
    fn added(&self) -> f64 {
        self.own[1] - self.own[0]
    }
}

impl Paths {
    /// Takes a stack in, innermost function first: its rate when it was calm, and now.
    pub(super) fn add<'a>(&mut self, chain: impl DoubleEndedIterator<Item = &'a Function>, rate: [f64; 2]) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        plus(&mut self.nodes[ROOT].all, rate);
        let mut at = ROOT;
        for function in chain.rev() {
            let known = self.nodes[at].children.get(function).copied();
            let next = known.unwrap_or_else(|| {
                self.nodes.push(Node::default());
                self.nodes.len() - 1
            });
            if known.is_none() {
                self.nodes[at].children.insert(function.clone(), next);
            }
            plus(&mut self.nodes[next].all, rate);
            plus(self.known.entry(function.clone()).or_default(), rate);
            at = next;
        }
        plus(&mut self.nodes[at].own, rate);
    }

    /// What is blamed on functions.
    pub(super) fn blame(&self) -> BTreeMap<&Function, f64> {
        let mut blame = Blame::default();
        for (function, &first) in self.nodes.first().iter().flat_map(|root| &root.children) {
            self.visit(function, first, &mut Vec::new(), &mut blame);
        }
        let Blame { mut added, parts } = blame;
        for (helper, parts) in parts {
            let (blamed, more) = explain(helper, &parts);
            *added.entry(blamed).or_default() += more;
        }
        added.retain(|_, more| *more > 0.0);
        added
    }

    fn visit<'a>(&'a self, function: &'a Function, at: usize, callers: &mut Vec<&'a Function>, blame: &mut Blame<'a>) {
        let node = &self.nodes[at];
        if !callers.is_empty() && self.is_new(function) && self.stands_for_all(function, node) {
            *blame.added.entry(function).or_default() += node.all[1] - node.all[0];
            return;
        }
        blame.parts.entry(function).or_default().push(Part { callers: callers.clone(), own: node.own });
        callers.push(function);
        for (callee, &below) in &node.children {
            self.visit(callee, below, callers, blame);
        }
        callers.pop();
    }

    /// Without anything to compare with, nothing is new.
    fn is_new(&self, function: &Function) -> bool {
        let [calm, now] = self.nodes[ROOT].all;
        let alike = (calm / now.max(f64::MIN_POSITIVE)).min(1.0);
        calm > 0.0 && self.known_part(function) < NEW.max(OUTGROWS * alike)
    }

    /// Of its present rate, how much a function had before.
    fn known_part(&self, function: &Function) -> f64 {
        let [calm, now] = self.known.get(function).copied().unwrap_or_default();
        calm / now.max(f64::MIN_POSITIVE)
    }

    /// Is there no function below a new one that is as new and leads?
    fn stands_for_all(&self, function: &Function, node: &Node) -> bool {
        let limit = AS_NEW * self.known_part(function);
        let as_new = node.children.iter().filter(|(callee, _)| self.known_part(callee) <= limit);
        let greatest = as_new.map(|(_, &below)| self.nodes[below].all[1]).fold(0.0, f64::max);
        greatest < LEADS * node.all[1]
    }
}

#[derive(Debug, Default)]
struct Blame<'a> {
    added: BTreeMap<&'a Function, f64>,
    parts: BTreeMap<&'a Function, Vec<Part<'a>>>,
}

/// Who is to be blamed for what a function adds by its own code, and for how much.
fn explain<'a>(helper: &'a Function, parts: &[Part<'a>]) -> (&'a Function, f64) {
    let net: f64 = parts.iter().map(Part::added).sum();
    let calm: f64 = parts.iter().map(|part| part.own[0]).sum();
    let more: f64 = parts.iter().map(Part::added).filter(|added| *added > 0.0).sum();
    if calm <= 0.0 || more <= 0.0 {
        return (helper, net);
    }
    // Each caller with what it adds, what it had before, and how near it is.
    let mut callers: BTreeMap<&Function, (f64, f64, usize)> = BTreeMap::new();
    for part in parts {
        for (distance, caller) in part.callers.iter().rev().enumerate() {
            let (added, before, nearest) = callers.entry(caller).or_insert((0.0, 0.0, distance));
            *added += part.added().max(0.0);
            *before += part.own[0];
            *nearest = distance.min(*nearest);
        }
    }
    let explains = callers.iter().filter(|(_, (added, before, _))| *added >= EXPLAINS * more && *before < calm / 2.0);
    explains.min_by_key(|(_, (.., distance))| *distance).map_or((helper, net), |(caller, _)| (caller, more))
}

fn plus(sum: &mut [f64; 2], more: [f64; 2]) {
    sum[0] += more[0];
    sum[1] += more[1];
}
