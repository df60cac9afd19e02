//! The clock of the samples, and one by which the age of what is kept is judged.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds: what `bpf_ktime_get_ns` returns in the kernel.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The wall-clock time of a monotonic one, in nanoseconds since the Unix epoch, by how far the clocks are apart now.
pub fn wall_ns(monotonic: u64) -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    (wall + monotonic).saturating_sub(monotonic_ns())
}

/// The time of day for judging how old something is: when the clock is set forward nothing gets older by that, because the
/// time is counted from the start of this process; and when it is set back nothing new seems to be old.
pub fn steady_now() -> SystemTime {
    static START: LazyLock<(SystemTime, Duration)> = LazyLock::new(|| (SystemTime::now(), since_boot()));
    let (wall, boot) = *START;
    steady(wall, since_boot().saturating_sub(boot), SystemTime::now())
}

fn steady(start: SystemTime, passed: Duration, now: SystemTime) -> SystemTime {
    now.min(start + passed)
}

/// With the time in which the host was suspended.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_old_by_a_clock_that_is_set() {
        let second = Duration::from_secs(1);
        let (start, day) = (UNIX_EPOCH + 1_000_000 * second, 86_400 * second);
        assert_eq!(steady(start, second, start + second), start + second);
        assert_eq!(steady(start, second, start + 40 * day), start + second);
        assert_eq!(steady(start, second, start - day), start - day);
    }
}
