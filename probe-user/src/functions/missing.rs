//! `Missing`: why a name means no place, and what may have been meant.

use std::fmt;

use super::inlined::Inlined;
use super::place::{Reason, Refusal};
use crate::problem::{Exit, Problem};

/// So many of a kind are listed.
const LISTED: usize = 5;

/// Nothing was found that can be probed.
#[derive(Clone, Debug)]
pub struct Missing {
    /// What was looked for, as it was written.
    pub wanted: String,
    /// Why it was not found.
    pub why: Why,
    /// Files that could not be read, with the reason: what was wanted may be in them.
    pub unreadable: Vec<(String, String)>,
}

/// Why nothing was found.
#[derive(Clone, Debug)]
pub enum Why {
    /// No file of that name is there. It may be loaded later.
    NoSuchLibrary {
        /// Names of files that are.
        nearest: Vec<String>,
    },
    /// No such name in so many files.
    Unknown {
        /// How many files were searched.
        files: usize,
        /// Those of them that have no symbols but what they import and export.
        stripped: Vec<String>,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// Every call was replaced by a copy of the function.
    OnlyInlined {
        /// The file.
        file: String,
        /// The function and its copies.
        inlined: Inlined,
    },
    /// These files call it, but none of those that were searched has it.
    OnlyImported {
        /// Their paths.
        by: Vec<String>,
    },
    /// It was found, but cannot be probed.
    Refused(Vec<Refusal>),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = crate::text::sanitize(&self.wanted);
        match &self.why {
            Why::NoSuchLibrary { .. } => write!(f, "`{wanted}`: no file of that name is mapped"),
            Why::Unknown { files, .. } => write!(f, "`{wanted}` is in none of {files} files"),
            Why::OnlyInlined { file, inlined } => {
                let (name, copies) = (&inlined.name, inlined.copies);
                let plural = if copies == 1 { "copy" } else { "copies" };
                write!(f, "`{wanted}`: {name} exists only inlined: {copies} {plural} in {file}")
            }
            Why::OnlyImported { by } => {
                write!(f, "`{wanted}` is imported by {} but defined in none of the files", some(by))
            }
            Why::Refused(refusals) => {
                let refusals: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
                write!(f, "`{wanted}` cannot be probed: {}", some(&refusals))
            }
        }?;
        match self.unreadable.split_first() {
            None => Ok(()),
            Some(((path, reason), [])) => write!(f, " ({path} could not be read: {reason})"),
            Some(((path, reason), rest)) => {
                write!(f, " ({path} and {} more files could not be read: {reason})", rest.len())
            }
        }
    }
}

impl Missing {
    /// What the user can do about it; empty when there is nothing to say.
    pub fn hint(&self) -> String {
        match &self.why {
            Why::NoSuchLibrary { nearest } | Why::Unknown { nearest, .. } if !nearest.is_empty() => {
                format!("did you mean {}?", nearest.join(", "))
            }
            Why::NoSuchLibrary { .. } => "it may not be loaded yet".into(),
            Why::Unknown { stripped, .. } if !stripped.is_empty() => {
                format!("install the debug symbols of {}", some(stripped))
            }
            Why::Unknown { .. } => String::new(),
            Why::OnlyInlined { inlined, .. } if inlined.into.is_empty() => "time what calls it".into(),
            Why::OnlyInlined { inlined, .. } => format!("time what it was inlined into: {}", inlined.into.join(", ")),
            Why::OnlyImported { .. } => "the library that has it may not be loaded yet".into(),
            Why::Refused(refusals) => {
                let choices = refusals.iter().find_map(|refusal| match &refusal.reason {
                    Reason::Indirect(places) if !places.is_empty() => Some(places),
                    _ => None,
                });
                choices.map_or_else(String::new, |places| {
                    let names: Vec<String> = places.iter().map(ToString::to_string).collect();
                    format!("name an implementation: {}", names.join(", "))
                })
            }
        }
    }

    /// As an error for the command line.
    pub fn problem(&self) -> Problem {
        Problem::new(Exit::Usage, self.to_string(), self.hint())
    }
}

impl std::error::Error for Missing {}

fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let listed = names[..names.len() - more].join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}
