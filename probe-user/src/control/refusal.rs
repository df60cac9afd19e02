//! `Refusal`: why something that was asked for is not done. The kinds are those that a caller acts on differently.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such thing, or it is gone.
    NotFound {
        /// What there is not: `there is no target named \`x\``.
        what: String,
    },
    /// What was asked for is wrong in itself.
    Invalid {
        /// Which key is wrong, as `snapshot.before`; `None` if it is the whole.
        field: Option<String>,
        /// What is wrong with it.
        reason: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// It contradicts the present state.
    Conflict {
        /// How.
        reason: String,
    },
    /// Too much is going on; later it will do.
    Busy {
        /// What is going on.
        reason: String,
        /// When to ask again, in seconds from now.
        retry_after_s: u64,
    },
    /// The collector does not answer.
    Unavailable {
        /// What was tried.
        reason: String,
    },
    /// The host, or the privileges of the collector, do not allow it.
    NotPermitted {
        /// What was tried.
        reason: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// It was tried and went wrong.
    Failed {
        /// What was tried and how it went wrong.
        reason: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { what: text }
            | Self::Conflict { reason: text }
            | Self::Busy { reason: text, .. }
            | Self::Unavailable { reason: text }
            | Self::NotPermitted { reason: text, .. }
            | Self::Failed { reason: text } => f.write_str(text),
            Self::Invalid { field: Some(field), reason, .. } => write!(f, "{field}: {reason}"),
            Self::Invalid { field: None, reason, .. } => f.write_str(reason),
        }
    }
}

impl std::error::Error for Refusal {}
