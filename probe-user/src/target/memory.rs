//! How much memory a process has, and how much it may have.

use std::path::{Path, PathBuf};

use super::stat::page_size;

/// Resident memory of a process in bytes, by `/proc/PID/statm`: exact since Linux 6.17, and before up to some dozen pages a
/// processor off. `None` when it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page_size())
}

/// How much memory a process may have, in bytes: the lowest limit of its cgroup and those above it, else what the host has.
/// `None` when nothing can be read.
pub fn memory_limit(pid: u32) -> Option<u64> {
    let host = host_memory(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups, Path::new("/sys/fs/cgroup"));
    let limits = limits.iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    // What is not limited says `max`, or a number that no host has.
    Some(limits.fold(host, u64::min))
}

fn host_memory(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that may limit the memory of a process whose `/proc/PID/cgroup` this is: version 2 of cgroups, version 1, or a
/// mixture of both.
fn limit_files(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (folder, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // A path with `..` is outside of our own namespace.
        let path = path.trim_start_matches('/');
        let names = path.split('/').filter(|name| !name.is_empty());
        if names.clone().any(|name| name == "..") {
            continue;
        }
        let mut group = folder;
        files.push(group.join(file));
        for name in names {
            group.push(name);
            files.push(group.join(file));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_every_group_above() {
        let files = |groups| -> Vec<String> {
            limit_files(groups, Path::new("/c")).iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(files("0::/a/b\n"), ["/c/memory.max", "/c/a/memory.max", "/c/a/b/memory.max"]);
        assert_eq!(files("0::/\n"), ["/c/memory.max"]);
        assert_eq!(
            files("5:cpu,memory:/x\n4:cpu:/y\n"),
            ["/c/memory/memory.limit_in_bytes", "/c/memory/x/memory.limit_in_bytes"]
        );
        assert_eq!(files("0::/../other\n"), [""; 0]);
        assert_eq!(files("nonsense"), [""; 0]);
    }

    #[test]
    fn the_memory_of_the_host_is_found() {
        assert_eq!(host_memory("MemTotal:       24000000 kB\nMemFree: 1 kB\n"), Some(24_576_000_000));
        assert_eq!(host_memory("MemFree: 1 kB"), None);
    }

    #[test]
    fn this_process_has_less_than_it_may() {
        let (has, may) = (resident_bytes(std::process::id()), memory_limit(std::process::id()));
        assert!(has.expect("alive") > 100_000 && has < may, "{has:?} of {may:?}");
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
