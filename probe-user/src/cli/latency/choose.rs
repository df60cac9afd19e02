//! From the names that were given to the places where probes are set.

use anyhow::{Result, bail};

use crate::functions::{Finder, Kind, Place, Spec};
use crate::kernel::{Judgement, Role, feature};
use crate::latency::Function;
use crate::problem::{Exit, Problem};
use crate::target::{Modules, Process};

/// More functions than this at once are a mistake: each has several probes, which take milliseconds to set.
const MAX_FUNCTIONS: usize = 100;
/// The end of a function with more return instructions than this is looked for where it was called.
const MAX_RETURNS: usize = 32;

/// The functions that are meant, and what is to be said about them.
pub fn functions(
    pid: u32,
    names: &[String],
    judgement: Judgement,
    has_threshold: bool,
) -> Result<(Vec<Function>, Vec<String>)> {
    let process = Process::read(pid, &mut Modules::default());
    let finder = Finder::of_process(&process);
    let (mut functions, mut notes) = (Vec::<Function>::new(), Vec::new());
    for name in names {
        let spec: Spec = name.parse().map_err(|error: anyhow::Error| {
            Problem::new(Exit::Usage, format!("{error:#}"), "`probe latency --help` shows how functions are named")
        })?;
        let found = finder.find(&spec).map_err(|missing| missing.problem())?;
        notes.extend(found.refused.iter().map(|refusal| format!("not timed: {refusal}")));
        for place in found.places {
            match function(&finder, &place, judgement, has_threshold) {
                // Two names may mean the same function.
                Ok(function) if functions.iter().any(|known| known.same_place(&function)) => {}
                Ok(function) => functions.push(function),
                Err(error) => notes.push(format!("not timed: {error:#}")),
            }
        }
    }
    if functions.is_empty() {
        bail!(Problem::new(Exit::Usage, "nothing of what was named can be timed", notes.join("\n")));
    }
    if functions.len() > MAX_FUNCTIONS {
        bail!(Problem::new(
            Exit::Usage,
            format!("{} functions are meant, {MAX_FUNCTIONS} at most can be timed at once", functions.len()),
            "name fewer, or name the library as well: libpush.so:push_*"
        ));
    }
    Ok((functions, notes))
}

fn function(finder: &Finder, place: &Place, judgement: Judgement, has_threshold: bool) -> Result<Function> {
    let Some(file) = place.module.open_path() else { bail!("{place}: its file is not open") };
    let mut places = vec![(place.file_offset, Role::Enter)];
    let mut features = if place.is_go { feature::GO } else { 0 };
    if place.kind != Kind::Entry {
        features = feature::COUNT;
    } else {
        match leaving(finder, place) {
            Some(returns) => places.extend(returns.into_iter().map(|offset| (offset, Role::Leave))),
            None => features |= feature::SITES,
        }
    }
    let judgement = Judgement { features, ..judgement };
    Ok(Function { name: place.to_string(), file, places, judgement, has_threshold })
}

/// The return instructions, if a function ends there and nowhere else. Where it also jumps to other functions, the end of a
/// call is seen only where it was called; so it is with what cannot be taken apart.
fn leaving(finder: &Finder, place: &Place) -> Option<Vec<u64>> {
    let returns = finder.returns(place).inspect_err(|error| tracing::debug!("{error:#}")).ok()?;
    (returns.offsets.len() <= MAX_RETURNS && returns.jumps_out == 0).then_some(returns.offsets)
}
