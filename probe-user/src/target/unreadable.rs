//! Files that a reader could not read are remembered for a while, so that they slow down nobody twice.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::modules::{Identity, Module};
use crate::reader::Failure;

/// How long it is remembered.
const BAD: Duration = Duration::from_secs(600);
/// Files that are remembered.
const MAX_BAD: usize = 1024;

type Key = (Identity, &'static str);

static FILES: LazyLock<Mutex<HashMap<Key, (Instant, Failure)>>> = LazyLock::new(Mutex::default);

/// Why `what` could not be read of a module's file not long ago; `None` if it was not tried, or could.
pub fn why(what: &'static str, module: &Module) -> Option<Failure> {
    let identity = module.identity()?;
    let files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let found = files.get(&(identity, what));
    found.filter(|(since, _)| since.elapsed() < BAD).map(|(_, failure)| *failure)
}

/// `what` could not be read.
pub fn remember(what: &'static str, module: &Module, failure: Failure) {
    // A perf map has none: it grows. And a file is not to blame where there is no reader.
    let Some(identity) = module.identity().filter(|_| failure != Failure::NoReader) else { return };
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    files.retain(|_, (since, _)| since.elapsed() < BAD);
    if files.len() < MAX_BAD {
        files.insert((identity, what), (Instant::now(), failure));
    }
}
