//! What targets name (executables, libraries, debug files) is opened and read by processes that may be killed. A file may
//! be a pipe, lie on a file system that never answers, be cut while it is read, or expand without end: then one of these
//! processes ends, and costs that file its names. Rooms below say what is done there, as a [`Job`]; this room knows the
//! processes, their deadlines and limits, and nothing of files.
//!
//! ```text
//!  this process ── ask ──▶ reader (a fork of the nursery, confined)
//!        │                   ▲ forks, kills, reaps
//!        └── spawn ──▶ nursery (forked before there was a second thread)
//! ```
//!
//! The nursery opens nothing, so that it never hangs. It kills a reader when its owner has let go of it, and does not wait
//! for it to go: one that the kernel does not let go (a file system that does not answer) is reaped when it is.

mod child;
mod failure;
mod nursery;
mod pool;
mod wire;

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use failure::Failure;
pub use nursery::{is_there, start};
pub use pool::ask;

/// Something that a reader does.
pub trait Job: Serialize + DeserializeOwned {
    /// By which readers know it.
    const NAME: &'static str;
    /// What a reader may do for it.
    const ACCESS: Access;
    /// How long it may take.
    const TIME: Duration;
    /// How much memory a reader may have for it, in bytes.
    const MEMORY: u64;
    /// What comes of it.
    type Answer: Serialize + DeserializeOwned;

    /// Does it, in a reader. `files` are those that were sent with it.
    fn run(self, files: Vec<OwnedFd>) -> Done<Self::Answer>;
}

/// What a reader hands over.
#[derive(Debug, Default)]
pub struct Done<T> {
    /// The answer.
    pub answer: T,
    /// What is too much for text.
    pub bytes: Vec<u8>,
    /// Open files.
    pub files: Vec<OwnedFd>,
}

impl<T> Done<T> {
    /// An answer with nothing else.
    pub fn answer(answer: T) -> Self {
        Self { answer, bytes: Vec::new(), files: Vec::new() }
    }
}

/// What a reader may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Find the files that other processes have mapped.
    Open = 0,
    /// Read files, whoever owns them.
    Read = 1,
}

impl Access {
    fn capabilities(self) -> CapabilitySet {
        match self {
            Self::Open => {
                CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::SYS_PTRACE).union(CapabilitySet::CHECKPOINT_RESTORE)
            }
            Self::Read => CapabilitySet::DAC_READ_SEARCH,
        }
    }
}

/// A job as a reader knows it.
#[derive(Clone, Copy)]
pub struct Handler {
    name: &'static str,
    run: Run,
}

/// From a job and its files, as they were sent, to its answer.
type Run = fn(&[u8], Vec<OwnedFd>) -> Result<Done<Vec<u8>>>;

impl Handler {
    /// That of a job.
    pub fn of<J: Job>() -> Self {
        Self { name: J::NAME, run: run::<J> }
    }
}

fn run<J: Job>(job: &[u8], files: Vec<OwnedFd>) -> Result<Done<Vec<u8>>> {
    let job: J = serde_json::from_slice(job).context("the job is not understood")?;
    let Done { answer, bytes, files } = job.run(files);
    Ok(Done { answer: serde_json::to_vec(&answer)?, bytes, files })
}

#[cfg(test)]
mod tests;
