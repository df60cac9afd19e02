//! Names for the addresses of a module, by a reader: what reads it may end or take too long, which costs this file its names.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::modules;
use super::named::Named;
use super::profile::Line;
use super::sources::Depth;
use crate::reader::{self, Access, Done, Failure, Job};
use crate::target::{Module, ModuleKind, Told, open_perf_map, unreadable};
use crate::text::sanitize;

/// Different reasons why an address has no name.
const MAX_REASONS: usize = 64;

/// To name offsets in the file of a module.
#[derive(Debug, Serialize, Deserialize)]
pub struct Name {
    module: Told,
    offsets: Vec<u64>,
    depth: Depth,
}

impl Job for Name {
    const NAME: &'static str = "name";
    const ACCESS: Access = Access::Read;
    const TIME: Duration = Duration::from_secs(10);
    const MEMORY: u64 = 1 << 30;
    type Answer = Vec<Named<String>>;

    fn run(self, files: Vec<OwnedFd>) -> Done<Self::Answer> {
        let Some(handle) = files.into_iter().next() else { return Done::answer(Vec::new()) };
        let module = Module::of_told(self.module, handle);
        let named = match module.kind {
            ModuleKind::Anonymous => modules::generated(&module, &self.offsets),
            ModuleKind::File | ModuleKind::Vdso => modules::file(&module, &self.offsets, self.depth),
        };
        let tell = |Named { lines, start, problem }: Named| Named { lines, start, problem: problem.map(str::to_owned) };
        Done::answer(named.into_iter().map(tell).collect())
    }
}

/// Names offsets in the file of a module, until a deadline. A file whose debug information cannot be read has the names of
/// its symbols, and why that is so.
pub fn module(module: &Module, offsets: &[u64], deadline: Option<Instant>) -> Vec<Named> {
    let none = |reason| vec![Named::unknown(reason); offsets.len()];
    let left = || deadline.map_or(Name::TIME, |deadline| deadline.saturating_duration_since(Instant::now()));
    let late_map;
    let (told, file) = match module.tell() {
        (told, Some(file)) => (told, file),
        // It may have begun to write one since.
        (told, None) if module.kind == ModuleKind::Anonymous => match open_perf_map(module.pid, left()) {
            Some(map) => {
                late_map = map;
                (told, late_map.as_fd())
            }
            None => return none("code without a file"),
        },
        (_, None) => return none("file unreadable"),
    };
    let mut failed = None;
    for depth in [Depth::Full, Depth::Symbols] {
        let what = depth.what();
        if let Some(failure) = unreadable::why(what, module) {
            failed = Some(failure);
            continue;
        }
        let left = left();
        if left.is_zero() {
            return none("no time was left to look up names");
        }
        let job = Name { module: told.clone(), offsets: offsets.to_vec(), depth };
        match reader::ask(job, &[file], left) {
            Ok(Done { answer, .. }) if answer.len() == offsets.len() => {
                let poorer = failed.map(reason);
                let named = answer.into_iter().map(clean);
                return named.map(|named| Named { problem: named.problem.or(poorer), ..named }).collect();
            }
            Ok(_) => return none("file unreadable"),
            Err(failure) => {
                tracing::debug!(path = module.path, ?depth, %failure, "symbols cannot be read");
                failed = Some(failure);
                if left >= Name::TIME || failure != Failure::TooLong {
                    unreadable::remember(what, module, failure);
                }
            }
        }
    }
    none(reason(failed.unwrap_or(Failure::TooLong)))
}

fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::TooLong => "reading the symbols took too long",
        Failure::Memory => "reading the symbols took too much memory",
        Failure::Cut => "the file was cut while its symbols were read",
        Failure::Ended => "the symbols crashed their reader",
        Failure::NoReader => "no reader of symbols could be started",
    }
}

/// What a reader has sent: who has read a hostile file is not believed.
fn clean(Named { lines, start, problem }: Named<String>) -> Named {
    let harmless = |text: String| if crate::text::is_harmless(&text) { text } else { sanitize(&text) };
    let clean = |line: Line| Line { function: harmless(line.function), file: harmless(line.file), line: line.line };
    let problem = problem.as_deref().map(known_reason);
    Named { lines: lines.into_iter().map(clean).collect(), start, problem }
}

/// A reason as text that lives as long as the program, of which there are few.
fn known_reason(reason: &str) -> &'static str {
    static REASONS: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut reasons = REASONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = reasons.get(reason) {
        return known;
    }
    if reasons.len() >= MAX_REASONS || reason.len() > 100 {
        return "no symbol";
    }
    let known: &'static str = sanitize(reason).leak();
    reasons.insert(known);
    known
}
