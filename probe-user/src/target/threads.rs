//! The threads of a process.

use super::stat::{Stat, page_size};

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

#[cfg(test)]
mod tests {
    use super::*;

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
