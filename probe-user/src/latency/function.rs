//! `Function`: a function of a process, with the places where its probes are set.

use std::sync::Arc;

use crate::kernel::{Judgement, Role, SpanKeys, Wanted, error_test, feature};
use crate::target::Module;

/// A function to be timed.
#[derive(Clone, Debug)]
pub struct Function {
    /// What it is called in the results.
    pub name: String,
    /// Where probes are set.
    pub spots: Vec<Spot>,
    /// Bits of [`feature`]: what is special about these places.
    pub features: u32,
    /// How its calls are judged.
    pub judgement: Judgement,
    /// Whether there is a threshold.
    pub has_threshold: bool,
    /// By which values a span is paired; `None` for a function.
    pub span: Option<SpanKeys>,
}

/// A place of a probe.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The file, which stays open as long as probes may be set in it.
    pub module: Arc<Module>,
    /// Where in the file.
    pub offset: u64,
    /// What the probe is for.
    pub role: Role,
    /// Where in the file the counter is by which a program knows that somebody listens; a static tracepoint may have one.
    pub semaphore: Option<u64>,
}

impl Spot {
    /// The probe; `None` if the file is not open.
    pub(super) fn wanted(&self, number: u32) -> Option<Wanted> {
        // The file that was searched, whatever stands under its path by now.
        let file = self.module.handle_path()?;
        Some(Wanted { file, offset: self.offset, role: self.role, number, semaphore: self.semaphore })
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.module, &other.module) && (self.offset, self.role) == (other.offset, other.role)
    }
}

impl Function {
    /// True for another name of the same function.
    pub fn same_place(&self, other: &Self) -> bool {
        self.spots.len() == other.spots.len()
            && self.spots.iter().all(|spot| other.spots.iter().any(|other| spot.is_same(other)))
    }

    /// Times another one together with this one; a place that both have is taken once.
    pub fn join(&mut self, other: Self) {
        for spot in other.spots {
            if !self.spots.iter().any(|known| known.is_same(&spot)) {
                self.spots.push(spot);
            }
        }
        self.features |= other.features;
    }

    /// How its calls are judged, and which figures are wanted of them.
    pub(super) fn judgement(&self) -> Judgement {
        let mut features = self.features | feature::HISTOGRAM;
        if self.has_threshold {
            features |= feature::ATTAINMENT;
        }
        if self.judgement.error_test != error_test::NEVER {
            features |= feature::ERRORS;
        }
        Judgement { features, ..self.judgement }
    }

    /// Its probes. Returns first: a call whose beginning is seen has its end seen.
    pub(super) fn wanted(&self, number: u32) -> Vec<Wanted> {
        let begins = |spot: &&Spot| matches!(spot.role, Role::Enter | Role::Begin);
        let (begins, ends): (Vec<&Spot>, Vec<&Spot>) = self.spots.iter().partition(begins);
        ends.into_iter().chain(begins).filter_map(|spot| spot.wanted(number)).collect()
    }
}
