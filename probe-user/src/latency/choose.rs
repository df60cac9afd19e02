//! From what names a function to the places where probes are set.

use anyhow::{Result, bail};

use super::function::{Function, Spot};
use crate::functions::{Finder, Kind, Missing, Place, Spec};
use crate::kernel::{Judgement, Role};

/// A function with more return instructions than this has its return address replaced instead.
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
    let mut functions = Vec::new();
    let mut notes: Vec<String> = found.refused.iter().map(|refusal| format!("not timed: {refusal}")).collect();
    for place in found.places {
        match spots(&place) {
            Ok(spots) => functions.push(Function { name: place.to_string(), spots, judgement, has_threshold }),
            Err(error) => notes.push(format!("not timed: {error:#}")),
        }
    }
    Ok((functions, notes))
}

fn spots(place: &Place) -> Result<Vec<Spot>> {
    if place.kind != Kind::Entry {
        bail!("{place}: no function begins there, so that no call can be timed");
    }
    if place.module.file().is_none() {
        bail!("{place}: its file is not open");
    }
    let mut places = vec![(place.file_offset, Role::Enter)];
    places.extend(leaving(place)?);
    Ok(places.into_iter().map(|(offset, role)| Spot { module: place.module.clone(), offset, role }).collect())
}

/// Return instructions, because a replaced return address confuses whoever unwinds the stack: exceptions, and Go, which it
/// crashes. Only where a function also ends by jumping to another one is the end seen from its caller alone.
fn leaving(place: &Place) -> Result<Vec<(u64, Role)>> {
    let replaced = || vec![(place.file_offset, Role::Returned)];
    match place.returns() {
        Ok(returns) if returns.offsets.len() <= MAX_RETURNS && (returns.jumps_out == 0 || place.is_go) => {
            if returns.offsets.is_empty() {
                bail!("{place}: it never returns");
            }
            Ok(returns.offsets.into_iter().map(|offset| (offset, Role::Leave)).collect())
        }
        Ok(_) | Err(_) if place.allows_return_probe() => Ok(replaced()),
        Ok(_) => bail!("{place}: too many places where it returns, and Go does not bear a replaced return address"),
        Err(error) => Err(error),
    }
}
