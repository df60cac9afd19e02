//! What a process has open, by kind.

use std::collections::BTreeMap;

use super::folder;
use super::sockets::Sockets;
use crate::text::sanitize;

/// A descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Of which kind it is, as a plural: `sockets`, `pipes`, `files`, `eventfds`.
    pub kind: String,
    /// What is told apart within its kind: `to 10.0.0.7:5432`, `in /var/cache`; empty without anything.
    pub label: String,
}

/// The descriptors that a process has open by their numbers, of `most` at most; `labels` asks for them. `None` when it is gone
/// or may not be looked at. Nothing that is open is touched: what a link says is the kernel's own.
pub fn descriptors(pid: u32, most: usize, labels: bool) -> Option<BTreeMap<u32, Descriptor>> {
    let folder = folder(pid);
    let entries = std::fs::read_dir(folder.join("fd")).ok()?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = BTreeMap::new();
    let mut inodes = Vec::new();
    for number in numbers.take(most) {
        // One that is closed meanwhile is none.
        let Ok(link) = std::fs::read_link(folder.join("fd").join(number.to_string())) else { continue };
        let link = link.to_string_lossy();
        if let Some(inode) = inode(&link) {
            inodes.push((number, inode));
        }
        found.insert(number, describe(&link));
    }
    if labels && !inodes.is_empty() {
        let sockets = Sockets::read(&folder.join("net"));
        for (number, inode) in inodes {
            if let Some(descriptor) = found.get_mut(&number) {
                descriptor.label = sockets.label(inode);
            }
        }
    }
    Some(found)
}

fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn describe(link: &str) -> Descriptor {
    let of = |kind: &str, label: &str| Descriptor { kind: kind.to_owned(), label: sanitize(label) };
    // `anon_inode:[eventfd]`, `anon_inode:inotify`
    if let Some(name) = link.strip_prefix("anon_inode:") {
        return match name.trim_matches(['[', ']']) {
            "eventpoll" => of("epoll descriptors", ""),
            name if name.ends_with("fd") => of(&sanitize(&format!("{name}s")), ""),
            name => of(&sanitize(&format!("{name} descriptors")), ""),
        };
    }
    match link.split_once(':') {
        Some(("socket", _)) => of("sockets", ""),
        Some(("pipe", _)) => of("pipes", ""),
        Some(("pidfd", _)) => of("pidfds", ""),
        _ if link.starts_with("/memfd:") => of("memfds", ""),
        _ if link.starts_with("/dev/") => of("devices", &format!("of {link}")),
        _ => {
            let (path, deleted) = link.strip_suffix(" (deleted)").map_or((link, ""), |path| (path, ", deleted"));
            match path.rsplit_once('/') {
                Some(("", _)) => of("files", &format!("in /{deleted}")),
                Some((folder, _)) => of("files", &format!("in {folder}{deleted}")),
                None => of("others", ""),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn what_is_open_is_told_by_its_link() {
        for (link, kind, label) in [
            ("socket:[123]", "sockets", ""),
            ("pipe:[5]", "pipes", ""),
            ("anon_inode:[eventfd]", "eventfds", ""),
            ("anon_inode:[eventpoll]", "epoll descriptors", ""),
            ("anon_inode:inotify", "inotify descriptors", ""),
            ("anon_inode:[timerfd]", "timerfds", ""),
            ("/memfd:x (deleted)", "memfds", ""),
            ("/dev/null", "devices", "of /dev/null"),
            ("/var/cache/a b", "files", "in /var/cache"),
            ("/var/cache/a (deleted)", "files", "in /var/cache, deleted"),
            ("/x", "files", "in /"),
            ("net:[4026531840]", "others", ""),
        ] {
            assert_eq!(describe(link), Descriptor { kind: kind.into(), label: label.into() }, "{link}");
        }
    }

    #[test]
    fn sockets_are_told_by_whom_they_are_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        let found = descriptors(std::process::id(), 10_000, true).expect("alive");
        let of = |fd: i32| found[&(fd as u32)].label.as_str();
        assert_eq!(of(listener.as_raw_fd()), format!("listening on port {port}"));
        assert_eq!(of(client.as_raw_fd()), format!("to 127.0.0.1:{port}"));
        assert_eq!(of(server.as_raw_fd()), format!("accepted on port {port}"));
        let number = client.as_raw_fd() as u32;
        drop(server);
        let label = || descriptors(std::process::id(), 10_000, true).expect("alive")[&number].label.clone();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while label() != format!("to 127.0.0.1:{port}, closed by the other side") {
            assert!(std::time::Instant::now() < end, "{}", label());
        }
        assert_eq!(descriptors(u32::MAX, 1, true), None);
    }
}
