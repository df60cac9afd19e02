//! From the names that were given to the places where probes are set.

use anyhow::{Result, bail};

use crate::functions::{Finder, Kind, Place, Spec};
use crate::kernel::{Judgement, Role};
use crate::latency::Function;
use crate::problem::{Exit, Problem};
use crate::target::{Modules, Process};

/// More functions than this at once are a mistake: each has several probes, which take milliseconds to set.
const MAX_FUNCTIONS: usize = 100;
/// A function with more return instructions than this has its return address replaced instead.
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
            match function(&place, judgement, has_threshold) {
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

fn function(place: &Place, judgement: Judgement, has_threshold: bool) -> Result<Function> {
    if place.kind != Kind::Entry {
        bail!("{place}: no function begins there, so that no call can be timed");
    }
    let Some(file) = place.module.open_path() else { bail!("{place}: its file is not open") };
    let mut places = vec![(place.file_offset, Role::Enter)];
    places.extend(leaving(place)?);
    Ok(Function { name: place.to_string(), file, places, judgement, has_threshold })
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
