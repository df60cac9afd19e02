//! Which processes run, and which of them descend from another. A moment later it may be different.

use super::stat::Stat;

/// Most descendants that are looked for: a host has no more processes that do something.
const MAX_DESCENDANTS: usize = 16 * 1024;

/// True while a process runs. A process that has ended and only waits for its parent to ask does not.
pub fn is_running(pid: u32) -> bool {
    let Ok(bytes) = std::fs::read(format!("/proc/{pid}/stat")) else { return false };
    Stat::parse(&String::from_utf8_lossy(&bytes), 1).is_some_and(|stat| !stat.is_over())
}

/// The pid that the host gave last, to a process or a thread; `None` where that is not known. As long as it is the same, nobody
/// has come.
pub fn latest_pid() -> Option<u32> {
    // `4.08 3.63 2.17 1/1234 5678`
    super::read_small("/proc/loadavg")?.split_ascii_whitespace().last()?.parse().ok()
}

/// The children of a process, their children and so on, parents first. Empty where the kernel does not tell
/// (`CONFIG_PROC_CHILDREN`).
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            // A process is the child of the thread that made it.
            let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in text.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
                // A child that moves to another parent meanwhile is met twice.
                if found.len() < MAX_DESCENDANTS && child != pid && !found.contains(&child) {
                    found.push(child);
                    next.push(child);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn soon(mut is_true: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while !is_true() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        is_true()
    }

    #[test]
    fn children_of_children_are_found() {
        let mut shell = Command::new("sh").args(["-c", "sh -c 'sleep 60 & wait' & wait"]).spawn().unwrap();
        assert!(soon(|| descendants(shell.id()).len() == 2), "{:?}", descendants(shell.id()));
        assert!(descendants(std::process::id()).contains(&shell.id()));
        let family = descendants(shell.id());
        shell.kill().unwrap();
        shell.wait().unwrap();
        for pid in family {
            let _ = Command::new("kill").arg(pid.to_string()).status();
        }
        assert!(descendants(u32::MAX).is_empty());
    }

    #[test]
    fn whoever_comes_is_the_latest() {
        let before = latest_pid();
        assert!(before.is_some());
        std::thread::spawn(|| {}).join().unwrap();
        assert_ne!(latest_pid(), before);
    }

    #[test]
    fn a_process_that_has_ended_does_not_run_even_if_nobody_has_asked() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(is_running(child.id()));
        drop(child.stdin.take());
        assert!(soon(|| !is_running(child.id())), "a zombie");
        assert!(super::super::exists(child.id()));
        child.wait().unwrap();
        assert!(!is_running(u32::MAX));
    }
}
