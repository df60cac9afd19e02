//! `Chooser`: what the names on the command line mean in a process. Processes that run the same files are looked through once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::programs::SHORT_WAITS;
use super::{Args, usage};
use crate::functions::{Files, Spec};
use crate::kernel::{Judgement, feature};
use crate::latency::{Function, SpanSpec, choose, choose_span, judgement, parks};
use crate::problem::Problem;
use crate::target::{Module, Modules, Process};

/// See the head of this file.
pub struct Chooser {
    specs: Vec<Spec>,
    spans: Vec<SpanSpec>,
    judgement: Judgement,
    threshold: Option<Duration>,
    has_slow: bool,
    modules: Modules,
    /// By the files of a process, whose addresses mean them as long as they are held.
    known: HashMap<Vec<usize>, Remembered>,
}

/// Files, and what is meant in them.
type Remembered = (Vec<Arc<Module>>, Arc<Chosen>);

/// The functions that are meant in a process.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Each once.
    pub functions: Vec<Function>,
    /// Where goroutines wait, for what they do in slow calls.
    pub park: Option<Function>,
    /// What is to be said about them.
    pub notes: Vec<String>,
    /// Names that mean nothing in it.
    pub missing: Vec<Problem>,
}

impl Chooser {
    /// For what was asked for.
    pub fn new(args: &Args) -> Result<Self> {
        let (spans, more) = SpanSpec::parse(&args.span).map_err(|error| usage(&error))?;
        let specs: Result<Vec<Spec>> =
            args.names.iter().chain(&more).map(|name| name.parse().map_err(|error| usage(&error))).collect();
        Ok(Self {
            specs: specs?,
            spans,
            judgement: judgement(args.threshold, args.errors),
            threshold: args.threshold,
            has_slow: args.slow.is_some(),
            modules: Modules::default(),
            known: HashMap::new(),
        })
    }

    /// What is meant in a process.
    pub fn of(&mut self, pid: u32) -> Result<Arc<Chosen>> {
        let process = Process::read(pid, &mut self.modules);
        let files = Files::of_process(&process);
        let mut key: Vec<usize> = files.modules.iter().map(|file| Arc::as_ptr(file).addr()).collect();
        key.sort_unstable();
        if let Some((_, chosen)) = self.known.get(&key) {
            return Ok(Arc::clone(chosen));
        }
        let chosen = Arc::new(self.look(&files)?);
        self.known.insert(key, (files.modules, Arc::clone(&chosen)));
        Ok(chosen)
    }

    fn look(&self, files: &Files) -> Result<Chosen> {
        let mut chosen = Chosen::default();
        let has_threshold = self.threshold.is_some();
        for spec in &self.specs {
            match choose(files, spec, self.judgement, has_threshold) {
                Ok((found, notes)) => {
                    chosen.notes.extend(notes);
                    for function in found {
                        // Two names may mean the same function.
                        if !chosen.functions.iter().any(|known| known.same_place(&function)) {
                            chosen.functions.push(function);
                        }
                    }
                }
                Err(why) => chosen.missing.push(why),
            }
        }
        for span in &self.spans {
            let (function, notes) = choose_span(files, span, self.judgement, has_threshold)?;
            chosen.functions.extend(function);
            chosen.notes.extend(notes);
        }
        let is_go = chosen.functions.iter().any(|function| function.features & feature::GO != 0);
        if let Some(threshold) = self.threshold.filter(|_| is_go && self.has_slow) {
            chosen.park = parks(files, threshold / SHORT_WAITS);
        }
        if self.has_slow {
            chosen.functions.iter_mut().for_each(|function| function.features |= feature::SLOW);
        }
        Ok(chosen)
    }
}
