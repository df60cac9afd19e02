//! `Definition`: a function of a service, as the configuration and the API name it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::judge::{ErrorTest, judgement};
use crate::functions::Spec;
use crate::kernel::Judgement;
use crate::text::sanitize;

/// A function that is timed in every process of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What rules and results call it; unique.
    pub name: String,
    /// What it belongs to, for people; may be empty.
    pub group: String,
    /// Name of the target whose processes have it.
    pub target: String,
    /// Where it is, as [`Spec`] reads it. What means several places is timed as one.
    pub symbol: String,
    /// Which calls count as fast enough.
    pub threshold: Option<Duration>,
    /// Which returned values are errors.
    pub errors: Option<ErrorTest>,
}

impl Definition {
    /// Refuses what cannot be timed, whatever the processes have mapped.
    pub fn check(&self) -> Result<()> {
        ensure!(
            !self.name.is_empty() && self.name.len() <= 200 && self.name == sanitize(&self.name),
            "the name of a function has 1 to 200 bytes and no control characters"
        );
        self.spec().map(drop)
    }

    /// What is looked for.
    pub fn spec(&self) -> Result<Spec> {
        self.symbol.parse().with_context(|| format!("the symbol of {}", self.name))
    }

    /// How its calls are judged.
    pub fn judgement(&self) -> Judgement {
        judgement(self.threshold, self.errors)
    }

    /// True if `other` is found at the same places of the same processes.
    pub fn has_same_places(&self, other: &Self) -> bool {
        self.target == other.target && self.symbol == other.symbol
    }
}
