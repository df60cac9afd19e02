//! The limit on open files, raised as far as it goes: each mapped file of a target keeps a descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit that we were started with.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors(Rlimit);

impl Descriptors {
    /// Raises the soft limit to the hard one.
    pub fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }) {
            tracing::debug!(%error, "the limit on open files stays");
        }
        Self(before)
    }

    /// Sets what was before. Safe between fork and exec.
    pub fn restore(self) -> std::io::Result<()> {
        Ok(setrlimit(Resource::Nofile, self.0)?)
    }
}
