//! The host: its name, address, kernel and processors, and how busy they are.

use std::net::IpAddr;

use super::address;

/// What does not change while the host is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// The address that traffic leaves by; `None` on a host without a route.
    pub ip: Option<IpAddr>,
    /// Processors online.
    pub cpus: u32,
    /// Kernel release, as of `uname -r`.
    pub kernel: String,
}

impl Host {
    /// Reads them; what cannot be read stays empty.
    pub fn read() -> Self {
        let line = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            crate::text::sanitize(text.trim())
        };
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        Self {
            name: line("/proc/sys/kernel/hostname"),
            ip: address::primary(),
            cpus: cpus(&online)
                .or_else(|| std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()))
                .unwrap_or(1),
            kernel: line("/proc/sys/kernel/osrelease"),
        }
    }
}

/// Counts a processor list such as `0-3,6`.
pub(super) fn cpus(list: &str) -> Option<u32> {
    let mut count = 0u32;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// Time the host's processors have spent since boot, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCpu {
    /// Time at work, for this host (time stolen by a hypervisor is not work of it).
    pub busy: u64,
    /// All time.
    pub total: u64,
}

impl HostCpu {
    /// Reads `/proc/stat`; `None` where it cannot be read.
    pub fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Parses the first line of `/proc/stat`.
    pub fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user time already.
        let [user, nice, system, idle, iowait, irq, softirq, steal] = *fields.first_chunk()?;
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, total: busy + idle + iowait + steal })
    }

    /// Share of all processors at work between an earlier reading and this one, in percent (0 to 100).
    pub fn percent_since(&self, earlier: &Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        if total == 0 { 0.0 } else { 100.0 * self.busy.saturating_sub(earlier.busy) as f64 / total as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_lists_are_counted() {
        assert_eq!(cpus("0-3,6\n"), Some(5));
        assert_eq!(cpus("0"), Some(1));
        assert_eq!(cpus("3-1"), None);
        assert_eq!(cpus(""), None);
    }

    #[test]
    fn host_cpu_is_the_share_of_time_at_work() {
        let before = HostCpu::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1").expect("parses");
        let after = HostCpu::parse("cpu  160 0 140 780 120 0 0 0 60 0").expect("parses");
        assert_eq!(after.percent_since(&before), 50.0);
        assert_eq!(after.percent_since(&after), 0.0);
        assert_eq!(HostCpu::parse("cpu  1 2 3"), None);
    }

    #[test]
    fn this_host_has_a_name_and_processors() {
        let host = Host::read();
        assert!(!host.name.is_empty() && !host.kernel.is_empty() && host.cpus > 0, "{host:?}");
        assert!(HostCpu::read().is_some());
    }
}
