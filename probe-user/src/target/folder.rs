//! Where `/proc` tells of a process: by its main thread, or where that has ended (`pthread_exit` in `main`), by one that lives.

use std::path::PathBuf;

use super::read_small;
use super::stat::Stat;

/// The folder in `/proc` of a process. When its main thread has ended while others go on, that thread has no memory, files
/// or root any more, and `maps`, `exe`, `cmdline`, `root`, `map_files`, `mem` and `fd` are empty or missing in its folder;
/// each thread has all of them in a folder of its own (proc(5), `/proc/TID`).
pub fn folder(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{}", living_thread(pid)))
}

/// A thread of a process that has its memory: the main thread, which has the process's id, unless that has ended.
pub fn living_thread(pid: u32) -> u32 {
    match stat(pid) {
        Some(stat) if stat.is_ended() && stat.threads > 1 => other_thread(pid).unwrap_or(pid),
        _ => pid,
    }
}

fn stat(tid: u32) -> Option<Stat> {
    read_small(format!("/proc/{tid}/stat")).and_then(|text| Stat::parse(&text, 1))
}

fn other_thread(pid: u32) -> Option<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut tids = threads.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    tids.find(|&tid| tid != pid && stat(tid).is_some_and(|stat| !stat.is_ended()))
}
