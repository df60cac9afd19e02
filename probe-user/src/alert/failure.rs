//! Why a message was not delivered, as far as it matters for what happens next.

use std::fmt;
use std::time::Duration;

/// An attempt that failed. Neither text shows a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may work later: the network, a busy server, a limit of rates, a secret that somebody has to put right.
    Later {
        /// What happened.
        why: String,
        /// How long the server wants not to be asked again.
        after: Option<Duration>,
    },
    /// This message will never be taken.
    Refused {
        /// What happened.
        why: String,
    },
}

impl Failure {
    /// One that may pass.
    pub fn later(why: impl fmt::Display) -> Self {
        Self::Later { why: why.to_string(), after: None }
    }

    /// One that may pass after some time.
    pub fn after(why: impl fmt::Display, after: Duration) -> Self {
        Self::Later { why: why.to_string(), after: Some(after) }
    }

    /// One that stays.
    pub fn refused(why: impl fmt::Display) -> Self {
        Self::Refused { why: why.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later { why, .. } | Self::Refused { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

/// What cannot be read now (a secret, a template) may be there later.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::later(format!("{error:#}"))
    }
}
