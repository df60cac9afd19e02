//! `Named`: what is known of an address.

use serde::{Deserialize, Serialize};

use super::profile::Line;

/// What is known of an address; `R` is how reasons are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named<R = &'static str> {
    /// Functions, innermost first; empty if it has no name.
    pub lines: Vec<Line>,
    /// Where it has no name: the address (of the kind that was asked for) at which its function begins, if that is known.
    pub start: Option<u64>,
    /// Why it has no name; or, of a name, what is wrong with the sources that would have told more.
    pub problem: Option<R>,
}

impl Named {
    /// No name, and why.
    pub fn unknown(reason: &'static str) -> Self {
        Self { problem: Some(reason), ..Self::default() }
    }
}
