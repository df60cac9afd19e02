//! From what names a function to the places where probes are set.

use std::time::Duration;

use super::function::{Function, Spot};
use super::judge::judgement;
use crate::functions::{Finder, Kind, Missing, Place, Returns, Spec};
use crate::kernel::{Judgement, Role, feature};

/// The end of a function with more return instructions than this is looked for where it was called.
const MAX_RETURNS: usize = 32;

/// The functions that are meant, one for each place, and what is to be said about others. There may be none that can be
/// timed.
pub fn choose(
    finder: &Finder,
    spec: &Spec,
    judgement: Judgement,
    has_threshold: bool,
) -> Result<(Vec<Function>, Vec<String>), Box<Missing>> {
    let found = finder.find(spec)?;
    let notes = found.refused.iter().map(|refusal| format!("not timed: {refusal}")).collect();
    let function = |place: &Place| {
        let (spots, features) = spots(finder, place);
        Function { name: place.to_string(), spots, features, judgement, has_threshold, span: None }
    };
    Ok((found.places.iter().map(function).collect(), notes))
}

/// Where the goroutines of a process wait that are in timed calls, if it is Go's. Waits from `min` on are told.
pub fn parks(finder: &Finder, min: Duration) -> Option<Function> {
    let spec = "runtime.gopark".parse().ok()?;
    let (found, _) = choose(finder, &spec, judgement(Some(min), None), false).ok()?;
    let mut function = found.into_iter().find(|function| function.features & feature::GO != 0)?;
    function.features |= feature::SLOW | feature::PARK;
    Some(function)
}

/// Where probes are set for a place, and [`feature`]s that go with it.
fn spots(finder: &Finder, place: &Place) -> (Vec<Spot>, u32) {
    let spot = |offset, role| Spot { module: place.module.clone(), offset, role, semaphore: None };
    let mut spots = vec![spot(place.file_offset, Role::Enter)];
    match &place.kind {
        Kind::Entry => {
            let mut features = if place.is_go { feature::GO } else { 0 };
            let returns = finder.returns(place).inspect_err(|error| tracing::debug!("{error:#}")).ok();
            if returns.as_ref().is_some_and(|returns| returns.begins_again) {
                features |= feature::LOOPS;
            }
            match returns.filter(ends_here) {
                Some(returns) => spots.extend(returns.offsets.into_iter().map(|offset| spot(offset, Role::Leave))),
                None => features |= feature::SITES,
            }
            (spots, features)
        }
        Kind::Instruction(_) => (spots, feature::COUNT),
        Kind::Usdt { semaphore, .. } => {
            spots[0].semaphore = *semaphore;
            (spots, feature::COUNT)
        }
    }
}

/// Whether a function ends at its return instructions and nowhere else. Where it also jumps to other functions, the end of a
/// call is seen only where it was called; so it is with what cannot be taken apart.
fn ends_here(returns: &Returns) -> bool {
    returns.offsets.len() <= MAX_RETURNS && returns.jumps_out == 0
}
