//! How much memory a process has, and how much it may have.

use super::cgroup::{Groups, Mounts};
use super::read_small;
use super::stat::page_size;

/// Resident memory of a process in bytes, by `/proc/PID/statm`: exact since Linux 6.17, and before up to some dozen pages a
/// processor off. `None` when it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    resident(&read_small(super::folder(pid).join("statm"))?)
}

/// The same of the text of the file.
pub(super) fn resident(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page_size())
}

/// Resident memory of this process that is its own, in bytes: without the files that it has mapped, which the kernel drops
/// where it needs the room.
pub fn own_bytes() -> Option<u64> {
    let text = read_small("/proc/self/statm")?;
    let mut pages = text.split_ascii_whitespace().skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    resident.saturating_sub(shared).checked_mul(page_size())
}

/// How much memory processes of these groups may have, in bytes: the lowest limit of the group and those above it, else what
/// the host has. `None` when nothing can be read.
pub(super) fn memory_limit(groups: &Groups) -> Option<u64> {
    let host = host_memory(&read_small("/proc/meminfo")?)?;
    let (folders, is_first) = groups.folders("memory", &Mounts::usual());
    let file = if is_first { "memory.limit_in_bytes" } else { "memory.max" };
    let limits = folders.iter().filter_map(|folder| read_small(folder.join(file))?.trim().parse().ok());
    // What is not limited says `max`, or a number that no host has.
    Some(limits.fold(host, u64::min))
}

/// Share of the host's memory that is not available to programs, in percent.
pub fn host_memory_percent() -> Option<f64> {
    used_percent(&read_small("/proc/meminfo")?)
}

fn used_percent(meminfo: &str) -> Option<f64> {
    let (total, available) = (kilobytes(meminfo, "MemTotal:")?, kilobytes(meminfo, "MemAvailable:")?);
    (total > 0).then(|| 100.0 * total.saturating_sub(available) as f64 / total as f64)
}

fn host_memory(meminfo: &str) -> Option<u64> {
    kilobytes(meminfo, "MemTotal:")?.checked_mul(1024)
}

fn kilobytes(meminfo: &str, key: &str) -> Option<u64> {
    let text = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    text.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_host_is_found() {
        assert_eq!(host_memory("MemTotal:       24000000 kB\nMemFree: 1 kB\n"), Some(24_576_000_000));
        assert_eq!(host_memory("MemFree: 1 kB"), None);
        assert_eq!(used_percent("MemTotal: 200 kB\nMemFree: 1 kB\nMemAvailable: 50 kB\n"), Some(75.0));
        assert!((1.0..100.0).contains(&host_memory_percent().expect("read")));
    }

    #[test]
    fn this_process_has_less_than_it_may() {
        let groups = Groups::read(std::process::id()).expect("alive");
        let (has, may) = (resident_bytes(std::process::id()), memory_limit(&groups));
        assert!(has.expect("alive") > 100_000 && has < may, "{has:?} of {may:?}");
        assert!(own_bytes().expect("alive") < has.expect("alive"), "its program is a file");
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
