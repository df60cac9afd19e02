//! The threads of a process.

use std::collections::BTreeMap;

use super::read_small;
use super::stat::{Stat, page_size};
use crate::text::sanitize;

/// Every thread of a process that can be read now: its id and figures, of which memory and start are the process's.
pub fn threads(pid: u32) -> Vec<(u32, Stat)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let tids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = |tid: u32| {
        let bytes = std::fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
        Some((tid, Stat::parse(&String::from_utf8_lossy(&bytes), page_size())?))
    };
    tids.filter_map(read).collect()
}

/// The names of a process's threads by their ids, of `most` at most.
pub fn thread_names(pid: u32, most: usize) -> BTreeMap<u32, String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    let tids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = |tid: u32| {
        let name = read_small(format!("/proc/{pid}/task/{tid}/comm"))?;
        Some((tid, sanitize(name.trim_end_matches('\n'))))
    };
    tids.take(most).filter_map(read).collect()
}

/// What threads of one kind have in common: their name with `*` in place of its numbers.
pub fn name_group(name: &str) -> String {
    let mut group = String::new();
    for c in name.chars() {
        match c.is_ascii_digit() {
            false => group.push(c),
            true if group.ends_with('*') => {}
            true => group.push('*'),
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_of_a_kind_but_for_their_numbers() {
        for (name, expected) in
            [("worker-12", "worker-*"), ("pool-3-thread-17", "pool-*-thread-*"), ("main", "main"), ("9", "*")]
        {
            assert_eq!(name_group(name), expected);
        }
        let names = thread_names(std::process::id(), 1000);
        assert!(names.contains_key(&std::process::id()) && thread_names(u32::MAX, 9).is_empty(), "{names:?}");
    }

    #[test]
    fn the_threads_of_this_process_are_found_by_name() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::Builder::new().name("waiting".into()).spawn(move || receive.recv());
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !threads(std::process::id()).iter().any(|(_, stat)| stat.comm == "waiting") {
            assert!(std::time::Instant::now() < end, "{:?}", threads(std::process::id()));
        }
        drop(send);
        waiting.expect("started").join().expect("no panic").expect_err("the other end is gone");
        assert!(threads(u32::MAX).is_empty());
    }
}
