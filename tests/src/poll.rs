//! Waiting for something to become true, for at most so long. Tests never sleep and hope.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks until there is an answer; `what` says what was waited for when there is none in time.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
