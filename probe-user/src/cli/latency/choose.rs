//! From the names that were given to the places where probes are set.

use anyhow::{Result, bail};

use super::span::SpanSpec;
use crate::functions::{Finder, Kind, Place, Spec};
use crate::kernel::{Judgement, Role, feature};
use crate::latency::{At, Function};
use crate::problem::{Exit, Problem};
use crate::target::{Modules, Process};

/// More functions than this at once are a mistake: each has several probes, which take milliseconds to set.
const MAX_FUNCTIONS: usize = 100;
/// The end of a function with more return instructions than this is looked for where it was called.
const MAX_RETURNS: usize = 32;

/// How everything is judged that is timed.
#[derive(Clone, Copy, Debug)]
pub struct Judging {
    pub judgement: Judgement,
    pub has_threshold: bool,
}

/// The functions and spans that are meant, and what is to be said about them.
pub fn functions(
    pid: u32,
    names: &[String],
    spans: &[SpanSpec],
    judging: Judging,
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
            match function(&finder, &place, judging) {
                // Two names may mean the same function.
                Ok(function) if functions.iter().any(|known| known.same_place(&function)) => {}
                Ok(function) => functions.push(function),
                Err(error) => notes.push(format!("not timed: {error:#}")),
            }
        }
    }
    for span in spans {
        let problem = |error: anyhow::Error| match error.downcast::<Problem>() {
            Ok(problem) => problem,
            Err(error) => Problem::new(
                Exit::Usage,
                format!("{error:#}"),
                "a span is written: --span begin=submit end=complete key=arg0",
            ),
        };
        functions.push(span.function(&finder, judging.judgement, judging.has_threshold).map_err(problem)?);
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

fn function(finder: &Finder, place: &Place, judging: Judging) -> Result<Function> {
    let Some(file) = place.module.open_path() else { bail!("{place}: its file is not open") };
    let at = |offset, role| At { file: file.clone(), offset, role, semaphore: None };
    let mut places = vec![at(place.file_offset, Role::Enter)];
    let mut features = if place.is_go { feature::GO } else { 0 };
    match &place.kind {
        Kind::Entry => match leaving(finder, place) {
            Some(returns) => places.extend(returns.into_iter().map(|offset| at(offset, Role::Leave))),
            None => features |= feature::SITES,
        },
        Kind::Instruction(_) => features = feature::COUNT,
        Kind::Usdt { semaphore, .. } => {
            features = feature::COUNT;
            places[0].semaphore = *semaphore;
        }
    }
    let Judging { judgement, has_threshold } = judging;
    let judgement = Judgement { features, ..judgement };
    Ok(Function { name: place.to_string(), places, judgement, has_threshold, span: None })
}

/// The return instructions, if a function ends there and nowhere else. Where it also jumps to other functions, the end of a
/// call is seen only where it was called; so it is with what cannot be taken apart.
fn leaving(finder: &Finder, place: &Place) -> Option<Vec<u64>> {
    let returns = finder.returns(place).inspect_err(|error| tracing::debug!("{error:#}")).ok()?;
    (returns.offsets.len() <= MAX_RETURNS && returns.jumps_out == 0).then_some(returns.offsets)
}
