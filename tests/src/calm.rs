//! Whether the machine keeps programs waiting, which depends on what others do on it, and on the host of a virtual one.

use std::time::{Duration, Instant};

/// How long it is waited for calm at most.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it has to be calm.
const CALM: Duration = Duration::from_millis(500);
const SLEEP: Duration = Duration::from_millis(2);
/// A timer that is later than that was kept waiting.
const LATE: Duration = Duration::from_millis(1);

/// Waits until timers are on time, for some seconds at most.
pub fn wait() {
    let begin = Instant::now();
    let mut calm_since = begin;
    while calm_since.elapsed() < CALM && begin.elapsed() < PATIENCE {
        let asleep = Instant::now();
        std::thread::sleep(SLEEP);
        if asleep.elapsed() > SLEEP + LATE {
            calm_since = Instant::now();
        }
    }
}
