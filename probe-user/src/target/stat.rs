//! `/proc/PID/stat`: CPU time, threads, memory and identity of a process. The parser is pure; a process may call itself
//! anything, so the name may hold spaces and parentheses.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::read_small;

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process's name (`comm`), sanitized.
    pub comm: String,
    /// Scheduler state: `R`, `S`, `D`, `Z`, …
    pub state: char,
    /// CPU time in user and kernel mode, of all its threads, also of those that have ended; in clock ticks.
    pub cpu_ticks: u64,
    /// Number of threads.
    pub threads: u64,
    /// Start, in clock ticks since boot. With the pid it identifies a process for good.
    pub start_ticks: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

impl Stat {
    /// Reads the figures of a process; `None` when it is gone (or a zombie, whose figures are over).
    pub fn read(pid: u32) -> Option<Self> {
        let mut stat = Self::parse(&read_small(format!("/proc/{pid}/stat"))?, page_size())?;
        if stat.is_ended() && !stat.is_over() {
            stat.rss_bytes = super::resident_bytes(pid).unwrap_or(0);
        }
        (!stat.is_over()).then_some(stat)
    }

    /// True for a thread that has ended. A main thread stays behind like this while others go on.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// True for a process that has ended.
    pub(super) fn is_over(&self) -> bool {
        self.is_ended() && self.threads <= 1
    }

    /// Parses the text of `/proc/PID/stat`; `None` when it is not such a text. `page` is the page size in bytes.
    pub fn parse(text: &str, page: u64) -> Option<Self> {
        // The name ends at the *last* parenthesis: what follows holds none.
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let comm = crate::text::sanitize(text.get(open + 1..close)?);
        let mut fields = text.get(close + 1..)?.split_ascii_whitespace();
        // The first of them is field 3 of proc(5).
        let state = fields.next()?.chars().next()?;
        let mut after = |left_out: usize| fields.nth(left_out)?.parse::<u64>().ok();
        Some(Self {
            comm,
            state,
            // Fields 14 and 15.
            cpu_ticks: after(10)?.saturating_add(after(0)?),
            // 20, 22 and 24.
            threads: after(4)?,
            start_ticks: after(1)?,
            rss_bytes: after(1)?.saturating_mul(page),
        })
    }

    /// How long it has been running, in nanoseconds.
    pub fn age_ns(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        now_ns.saturating_sub(self.start_ticks.saturating_mul(1_000_000_000 / ticks_per_second()))
    }

    /// CPU use between an earlier reading and this one, in percent of one core; `None` when the readings are not of the
    /// same process or no time has passed.
    pub fn cpu_percent_since(&self, earlier: &Self, elapsed: Duration) -> Option<f64> {
        if self.start_ticks != earlier.start_ticks || elapsed.is_zero() {
            return None;
        }
        let ticks = self.cpu_ticks.checked_sub(earlier.cpu_ticks)?;
        Some(100.0 * ticks as f64 / ticks_per_second() as f64 / elapsed.as_secs_f64())
    }
}

/// When a process was started, by the wall clock as it is now; `None` if that cannot be known.
pub fn started_at(stat: &Stat) -> Option<std::time::SystemTime> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime = Duration::try_from_secs_f64(uptime.split_ascii_whitespace().next()?.parse().ok()?).ok()?;
    let started = Duration::from_secs_f64(stat.start_ticks as f64 / ticks_per_second() as f64);
    std::time::SystemTime::now().checked_sub(uptime.saturating_sub(started))
}

/// The name (`comm`) of a process, sanitized; `None` when it is gone.
pub fn read_status_comm(pid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(crate::text::sanitize(String::from_utf8_lossy(&bytes).trim_end_matches('\n')))
}

/// Clock ticks per second of the figures in `/proc`.
pub(super) fn ticks_per_second() -> u64 {
    sysconf(libc::_SC_CLK_TCK, 100)
}

/// Bytes of a page.
pub(super) fn page_size() -> u64 {
    sysconf(libc::_SC_PAGESIZE, 4096)
}

#[expect(unsafe_code, reason = "sysconf has no safe wrapper in the standard library")]
fn sysconf(name: libc::c_int, otherwise: u64) -> u64 {
    // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|&value| value > 0).unwrap_or(otherwise)
}

/// Whether a process is a thread of the kernel (`PF_KTHREAD`, include/linux/sched.h): field 9 of proc(5).
pub fn is_kernel_thread(pid: u32) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = || {
        let text = read_small(format!("/proc/{pid}/stat"))?;
        text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().nth(6)?.parse::<u64>().ok()
    };
    flags().is_some_and(|flags| flags & PF_KTHREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "S 1 2 2 0 -1 4194560 1 0 0 0 150 50 7 8 20 0 3 0 9000 12345678 250 18446744073709551615 1 1";

    #[test]
    fn the_figures_are_found() {
        let stat = Stat::parse(&format!("42 (nginx) {TAIL}"), 4096).expect("parses");
        let expected = Stat {
            comm: "nginx".into(),
            state: 'S',
            cpu_ticks: 200,
            threads: 3,
            start_ticks: 9000,
            rss_bytes: 250 * 4096,
        };
        assert_eq!(stat, expected);
    }

    #[test]
    fn names_may_hold_anything() {
        for (name, shown) in [("a b", "a b"), (") R 1 1 (", ") R 1 1 ("), ("x)\n(y", "x)\u{fffd}(y"), ("", "")] {
            let stat = Stat::parse(&format!("42 ({name}) {TAIL}"), 4096).expect("parses");
            assert_eq!((stat.comm.as_str(), stat.cpu_ticks), (shown, 200));
        }
    }

    #[test]
    fn what_is_no_stat_is_refused() {
        for text in ["", "42", "42 (x", ")(", "42 (x) S 1 2", "42 (x) S 1 2 2 0 -1 4194560 1 0 0 0 a b"] {
            assert_eq!(Stat::parse(text, 4096), None, "{text}");
        }
    }

    #[test]
    fn cpu_use_is_the_difference_in_percent_of_one_core() {
        let before = Stat::parse(&format!("42 (x) {TAIL}"), 4096).expect("parses");
        let mut after = before.clone();
        after.cpu_ticks += 3 * ticks_per_second();
        assert_eq!(after.cpu_percent_since(&before, Duration::from_secs(2)), Some(150.0));
        assert_eq!(after.cpu_percent_since(&before, Duration::ZERO), None);
        after.start_ticks += 1;
        assert_eq!(after.cpu_percent_since(&before, Duration::from_secs(2)), None, "another process");
    }

    #[test]
    fn this_process_can_be_read() {
        let stat = Stat::read(std::process::id()).expect("this process is alive");
        assert!(stat.threads >= 1 && stat.rss_bytes > 0, "{stat:?}");
        assert!(stat.age_ns() < 3_600_000_000_000, "{stat:?}");
        assert_eq!(Stat::read(u32::MAX), None);
    }

    #[test]
    fn threads_of_the_kernel_are_told_apart() {
        assert!(!is_kernel_thread(std::process::id()) && !is_kernel_thread(u32::MAX));
        // In a pid namespace of its own there is none.
        if read_small("/proc/2/comm").is_some_and(|comm| comm.trim() == "kthreadd") {
            assert!(is_kernel_thread(2));
        }
    }
}
