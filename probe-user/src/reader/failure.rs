//! Why a reader gave no answer.

use std::fmt;

/// See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It took longer than it may, by the clock or on a processor.
    TooLong,
    /// It needed more memory than it may have.
    Memory,
    /// The file was cut while it was read, or could not be read any further (SIGBUS).
    Cut,
    /// It ended by another signal, or failed otherwise.
    Ended,
    /// There was no reader to be had.
    NoReader,
}

impl Failure {
    /// In a few words, as they follow a colon.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "reading took too long",
            Self::Memory => "reading took too much memory",
            Self::Cut => "cut while it was read",
            Self::Ended => "the reader failed",
            Self::NoReader => "no reader could be started",
        }
    }

    /// By the signal that ended the process; 0 for none.
    pub(super) fn of_signal(signal: u8) -> Self {
        match i32::from(signal) {
            libc::SIGXCPU => Self::TooLong,
            // Rust aborts where there is no memory; panics are caught. The kernel kills where the host has none.
            libc::SIGABRT | libc::SIGKILL => Self::Memory,
            libc::SIGBUS => Self::Cut,
            _ => Self::Ended,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Failure {}
