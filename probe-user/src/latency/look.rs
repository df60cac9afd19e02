//! Looking for functions in the files of a process: by a reader, because files may be hostile. One that ends it, or takes too
//! long, is left out.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::span::{Hit, SpanSpec, SpanText};
use crate::functions::{Files, Finder, Kind, Place, Returns, Spec};
use crate::kernel::{MAX_READS, Operand, Role, SpanKeys, feature};
use crate::problem::{Exit, Problem};
use crate::reader::{self, Access, Done, Failure, Job};
use crate::target::{Module, Told, unreadable};

/// The end of a function with more return instructions than this is looked for where it was called.
const MAX_RETURNS: usize = 32;
/// How long one file may take when it is looked for those that cannot be read.
const ONE_FILE: Duration = Duration::from_secs(5);

/// A function that was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spots {
    /// What it is called.
    pub name: String,
    /// Bits of [`feature`].
    pub features: u32,
    /// Where its probes are set, each with the number of its file.
    pub places: Vec<(usize, SpotOffset)>,
    /// By which values a span is paired, at its beginning and at its end.
    keys: Option<[Key; 2]>,
}

/// An [`Operand`]: its source, reads, offsets and bits.
type Key = (u32, u32, [i64; MAX_READS], u32);

impl Spots {
    /// By which values a span is paired; `None` for a function.
    pub fn span(&self) -> Option<SpanKeys> {
        let operand = |(source, reads, offsets, bits): Key| Operand { source, reads, offsets, bits, padding: 0 };
        let [begin, end] = self.keys?.map(operand);
        Some(SpanKeys { begin, end })
    }
}

/// See [`super::Spot`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpotOffset {
    /// Where in the file.
    pub offset: u64,
    /// What the probe is for.
    pub role: Role,
    /// Where in the file the counter is by which a program knows that somebody listens.
    pub semaphore: Option<u64>,
}

/// The job.
#[derive(Debug, Serialize, Deserialize)]
pub struct Look {
    modules: Vec<Told>,
    roots: Vec<PathBuf>,
    sought: Sought,
}

/// What is looked for, as it was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Sought {
    Functions(String),
    Span(SpanText),
}

/// The functions, and what is to be said about others; or what is wrong, and a hint.
type Answer = Result<(Vec<Spots>, Vec<String>), (String, String)>;

impl Job for Look {
    const NAME: &'static str = "functions";
    const ACCESS: Access = Access::Read;
    const TIME: Duration = Duration::from_secs(60);
    /// The symbols of a browser take some hundred megabytes.
    const MEMORY: u64 = 2 << 30;
    type Answer = Answer;

    fn run(self, files: Vec<OwnedFd>) -> Done<Answer> {
        let modules = self.modules.into_iter().zip(files).map(|(told, file)| Arc::new(Module::of_told(told, file)));
        let modules: Vec<Arc<Module>> = modules.collect();
        let number: HashMap<usize, usize> =
            modules.iter().enumerate().map(|(number, module)| (Arc::as_ptr(module).addr(), number)).collect();
        let finder = Finder::of_modules(modules, self.roots);
        let file = |place: &Place| number[&Arc::as_ptr(&place.module).addr()];
        let found = match self.sought {
            Sought::Functions(text) => functions_of(&finder, &text, file),
            Sought::Span(text) => span_of(&finder, text, file).map(|span| (vec![span], Vec::new())),
        };
        Done::answer(found.map_err(|error| match error.downcast::<Problem>() {
            Ok(problem) => (problem.to_string(), problem.hint),
            Err(error) => (format!("{error:#}"), String::new()),
        }))
    }
}

/// Functions, and what is to be said about others; `file` tells the number of a place's file.
fn functions_of(finder: &Finder, text: &str, file: impl Fn(&Place) -> usize) -> Result<(Vec<Spots>, Vec<String>)> {
    let found = finder.find(&text.parse()?).map_err(|missing| missing.problem())?;
    let notes = found.refused.iter().map(|refusal| format!("not timed: {refusal}")).collect();
    let function = |place: &Place| {
        let (offsets, features) = spots(finder, place);
        let places = offsets.into_iter().map(|offset| (file(place), offset)).collect();
        Spots { name: place.to_string(), features, places, keys: None }
    };
    Ok((found.places.iter().map(function).collect(), notes))
}

/// The same for a span.
fn span_of(finder: &Finder, text: SpanText, file: impl Fn(&Place) -> usize) -> Result<Spots> {
    let span = SpanSpec::read(text)?;
    let (hits, keys) = span.find(finder)?;
    let key = |Operand { source, reads, offsets, bits, .. }: Operand| (source, reads, offsets, bits);
    let place = |hit: Hit| {
        let Hit { place, offset, role, semaphore } = hit;
        (file(&place), SpotOffset { offset, role, semaphore })
    };
    let places = hits.into_iter().map(place).collect();
    Ok(Spots { name: span.name().to_owned(), features: 0, places, keys: Some([key(keys.begin), key(keys.end)]) })
}

/// Has a reader look for the functions that are meant.
pub(super) fn functions(files: &Files, spec: &Spec) -> Result<(Vec<Spots>, Vec<String>), Problem> {
    look(files, &Sought::Functions(spec.text.clone()), &spec.text)
}

/// Has a reader look for the two ends of a span.
pub(super) fn span(files: &Files, span: &SpanSpec) -> Result<(Vec<Spots>, Vec<String>), Problem> {
    look(files, &Sought::Span(span.text().clone()), span.name())
}

/// What is looked for has this name.
fn look(files: &Files, sought: &Sought, name: &str) -> Result<(Vec<Spots>, Vec<String>), Problem> {
    let usage = |message: String, hint: String| Problem::new(Exit::Usage, message, hint);
    let (mut left_out, mut failed) = (Vec::new(), None);
    let told: Vec<(Told, Option<BorrowedFd<'_>>)> = files.modules.iter().map(|module| module.tell()).collect();
    let told: Vec<File<'_>> =
        told.iter().enumerate().filter_map(|(number, (told, file))| Some((number, told, (*file)?))).collect();
    // Those that cannot be read are known after the first time.
    for _ in 0..2 {
        let (bad, good): (Vec<&File<'_>>, Vec<&File<'_>>) =
            told.iter().partition(|(number, ..)| unreadable::why(Look::NAME, &files.modules[*number]).is_some());
        left_out = bad.iter().filter_map(|(number, ..)| why(&files.modules[*number])).collect();
        match ask(&good, &files.roots, sought, Look::TIME) {
            Ok(Ok((mut found, mut notes))) => {
                for (file, _) in found.iter_mut().flat_map(|function| &mut function.places) {
                    *file = good.get(*file).map_or(usize::MAX, |(number, ..)| *number);
                }
                notes.extend(left_out);
                return Ok((found, notes));
            }
            Ok(Err((message, hint))) => {
                let left_out = left_out.first().map_or_else(String::new, |why| format!(" ({why})"));
                return Err(usage(format!("{message}{left_out}"), hint));
            }
            Err(failure) => failed = Some(failure),
        }
        for one in good {
            if let Err(failure) = ask(&[one], &files.roots, sought, ONE_FILE) {
                unreadable::remember(Look::NAME, &files.modules[one.0], failure);
            }
        }
    }
    let failure = failed.map_or("the reader failed", Failure::reason);
    let why = left_out.first().map_or_else(String::new, |why| format!(" ({why})"));
    Err(usage(format!("`{name}`: functions cannot be looked for: {failure}{why}"), String::new()))
}

/// The number of a file, what is told of it, and itself.
type File<'a> = (usize, &'a Told, BorrowedFd<'a>);

fn why(module: &Module) -> Option<String> {
    let failure = unreadable::why(Look::NAME, module)?;
    Some(format!("{} could not be read: {failure}", crate::text::sanitize(&module.path)))
}

fn ask(files: &[&File<'_>], roots: &[PathBuf], sought: &Sought, limit: Duration) -> Result<Answer, Failure> {
    let modules = files.iter().map(|(_, told, _)| (*told).clone()).collect();
    let job = Look { modules, roots: roots.to_vec(), sought: sought.clone() };
    let files: Vec<BorrowedFd<'_>> = files.iter().map(|(.., file)| *file).collect();
    reader::ask(job, &files, limit).map(|done| done.answer)
}

/// Where probes are set for a place, and [`feature`]s that go with it.
fn spots(finder: &Finder, place: &Place) -> (Vec<SpotOffset>, u32) {
    let spot = |offset, role| SpotOffset { offset, role, semaphore: None };
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
