//! Where `/proc` tells of a process: by its main thread, or where that has ended (`pthread_exit` in `main`), by one that lives.

use std::path::PathBuf;

use super::read_small;
use super::stat::Stat;

/// The folder in `/proc` of a process. When its main thread has ended while others go on, that thread has no memory, files
/// or root any more, and `maps`, `exe`, `cmdline`, `root`, `map_files`, `mem` and `fd` are empty or missing in its folder;
/// each thread has all of them in a folder of its own (proc(5), `/proc/TID`).
pub fn folder(pid: u32) -> PathBuf {
    let own = PathBuf::from(format!("/proc/{pid}"));
    match read_small(own.join("stat")).and_then(|text| Stat::parse(&text, 1)) {
        Some(stat) if stat.is_ended() && stat.threads > 1 => living_thread(pid).unwrap_or(own),
        _ => own,
    }
}

fn living_thread(pid: u32) -> Option<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let tids = threads.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut folders = tids.filter(|&tid| tid != pid).map(|tid| PathBuf::from(format!("/proc/{tid}")));
    folders.find(|folder| {
        let stat = read_small(folder.join("stat")).and_then(|text| Stat::parse(&text, 1));
        stat.is_some_and(|stat| !stat.is_ended())
    })
}
