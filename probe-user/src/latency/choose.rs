//! From what names a function to the places where probes are set.

use std::time::Duration;

use super::function::{Function, Spot};
use super::judge::judgement;
use super::look::{self, Spots};
use super::span::SpanSpec;
use crate::functions::{Files, Spec};
use crate::kernel::{Judgement, feature};
use crate::problem::Problem;

/// The functions that are meant, one for each place, and what is to be said about others. There may be none that can be
/// timed.
pub fn choose(
    files: &Files,
    spec: &Spec,
    judgement: Judgement,
    has_threshold: bool,
) -> Result<(Vec<Function>, Vec<String>), Problem> {
    let (found, notes) = look::functions(files, spec)?;
    Ok((found.into_iter().map(|found| function(files, found, judgement, has_threshold)).collect(), notes))
}

/// The same of a span: it is one or none.
pub fn choose_span(
    files: &Files,
    span: &SpanSpec,
    judgement: Judgement,
    has_threshold: bool,
) -> Result<(Option<Function>, Vec<String>), Problem> {
    let (found, notes) = look::span(files, span)?;
    Ok((found.into_iter().next().map(|found| function(files, found, judgement, has_threshold)), notes))
}

fn function(files: &Files, found: Spots, judgement: Judgement, has_threshold: bool) -> Function {
    let span = found.span();
    let Spots { name, features, places, .. } = found;
    let spots = places.into_iter().filter_map(|(file, place)| {
        let module = files.modules.get(file)?.clone();
        Some(Spot { module, offset: place.offset, role: place.role, semaphore: place.semaphore })
    });
    Function { name, spots: spots.collect(), features, judgement, has_threshold, span }
}

/// Where the goroutines of a process wait that are in timed calls, if it is Go's. Waits from `min` on are told.
pub fn parks(files: &Files, min: Duration) -> Option<Function> {
    let spec = "runtime.gopark".parse().ok()?;
    let (found, _) = choose(files, &spec, judgement(Some(min), None), false).ok()?;
    let mut function = found.into_iter().find(|function| function.features & feature::GO != 0)?;
    function.features |= feature::SLOW | feature::PARK;
    Some(function)
}
