//! Derived rows: for code that no table covers, the rules are found in the instructions themselves.
//!
//! Each function is followed from its entry, where the CFA is known by the calling convention, through all that moves the stack
//! pointer or saves the frame pointer ([`effects`], [`flow`]). What paths do not agree on is not known, and neither is what was
//! only presumed and does not end in a sound return ([`proof`]): such code stays without a row. A derived row is never a
//! guess.

mod callees;
mod callers;
mod effects;
mod entries;
mod flow;
mod image;
mod proof;
mod rows;
mod state;
mod supposed;
mod switch;
#[cfg(test)]
mod tests;
pub mod trial;

use std::ops::Range;

use object::ReadRef;

pub(super) use self::entries::LEAST_NAMED;
use self::flow::Flow;
use self::image::Image;
use self::rows::Fact;
use self::state::{State, Value};
use super::MAX_ROWS;
use super::fragments::Fragments;
use super::rules::Rule;

/// Adds what is found of a file's code that none of the fragments covers, one fragment for each stretch of it.
pub(super) fn add<'data, R: ReadRef<'data> + 'data>(data: R, fragments: &mut Fragments) {
    fragments.sort();
    let covered: Vec<Range<u64>> = fragments.list().iter().map(|fragment| fragment.start..fragment.end).collect();
    let Some(image) = entries::read(data, &covered) else { return };
    let Some(facts) = derive(&image) else { return };
    let mut facts = facts.into_iter().peekable();
    for gap in &image.gaps {
        let (mut rules, mut known_to) = (vec![(0, Rule::NONE)], gap.start);
        while let Some((address, length, fact)) = facts.next_if(|&(address, ..)| address < gap.end()) {
            if address > known_to {
                push(&mut rules, known_to - gap.start, Rule::NONE);
            }
            push(&mut rules, address - gap.start, fact.rule());
            known_to = known_to.max(address + u64::from(length));
        }
        if known_to < gap.end() {
            push(&mut rules, known_to - gap.start, Rule::NONE);
        }
        if rules.len() > 1 && fragments.rows() + rules.len() <= MAX_ROWS {
            fragments.add_rules(gap.start, gap.end(), rules);
        }
    }
}

/// From an offset on, another rule holds.
fn push(rules: &mut Vec<(u32, Rule)>, offset: u64, rule: Rule) {
    let offset = offset as u32;
    // At the same address, the later one.
    rules.pop_if(|&mut (at, _)| at == offset);
    if rules.last().is_none_or(|&(_, last)| last != rule) {
        rules.push((offset, rule));
    }
}

/// What is known at the instructions of an image's gaps, in order of address; `None` if that is too much work.
fn derive(image: &Image<'_>) -> Option<Vec<(u64, u8, Fact)>> {
    let mut flow = follow(image)?;
    let known = proof::known(&flow.leaders);
    Some(rows::facts(&mut flow, &known))
}

/// Follows all code of an image's gaps; `None` if that is too much work.
fn follow<'a, 'data>(image: &'a Image<'data>) -> Option<Flow<'a, 'data>> {
    let first = follow_from(image, &image.entries)?;
    if !first.leaders.iter().any(|leader| leader.is_entry && leader.state.sp() == Value::Unknown) {
        return Some(first);
    }
    // Entries that were found late: known from the first, nothing falls into them.
    let entries = first.leaders.iter().filter(|leader| leader.is_entry).map(|leader| leader.address);
    follow_from(image, &entries.collect::<Vec<_>>())
}

fn follow_from<'a, 'data>(image: &'a Image<'data>, entries: &[u64]) -> Option<Flow<'a, 'data>> {
    let mut flow = Flow::new(image);
    let start = image.start.filter(|&start| image.is_first_frame(start));
    for &entry in entries.iter().chain(&start) {
        flow.enter(entry, &if Some(entry) == start { State::root() } else { State::entry() });
    }
    flow.run().ok()?;
    supposed::follow(&mut flow).ok()?;
    Some(flow)
}
