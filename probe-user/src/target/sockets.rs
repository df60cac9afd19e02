//! Whom the sockets of a network namespace are connected to, by the kernel's tables (`/proc/PID/net`, proc(5)).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::text::sanitize;

/// Of a table as much is read: some 100,000 sockets.
const MAX_BYTES: u64 = 16 << 20;
/// States of a connection (include/net/tcp_states.h).
const LISTEN: u8 = 10;
const CLOSE_WAIT: u8 = 8;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// By inode.
    known: HashMap<u64, Socket>,
    listening: HashSet<u16>,
}

#[derive(Debug, PartialEq)]
enum Socket {
    Tcp { local: SocketAddr, remote: SocketAddr, state: u8 },
    Udp { local: SocketAddr, remote: SocketAddr },
    Unix { path: String },
}

/// From a line of a table to a socket's inode and what it says of it.
type Parse = fn(&str) -> Option<(u64, Socket)>;

impl Sockets {
    /// Reads the tables in a folder; those that are missing have nothing.
    pub(super) fn read(folder: &Path) -> Self {
        let mut sockets = Self::default();
        let tables: [(&str, Parse); 5] = [("tcp", tcp), ("tcp6", tcp), ("udp", udp), ("udp6", udp), ("unix", unix)];
        for (name, parse) in tables {
            let Ok(file) = File::open(folder.join(name)) else { continue };
            let lines = BufReader::new(file.take(MAX_BYTES)).lines();
            sockets.known.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
        }
        let listening = sockets.known.values().filter_map(|socket| match socket {
            Socket::Tcp { local, state: LISTEN, .. } => Some(local.port()),
            _ => None,
        });
        sockets.listening = listening.collect();
        sockets
    }

    /// What a socket is for.
    pub(super) fn label(&self, inode: u64) -> String {
        match self.known.get(&inode) {
            Some(Socket::Tcp { local, state: LISTEN, .. }) => format!("listening on port {}", local.port()),
            Some(Socket::Tcp { local, remote, state }) => {
                let closed = if *state == CLOSE_WAIT { ", closed by the other side" } else { "" };
                match self.listening.contains(&local.port()) {
                    true => format!("accepted on port {}{closed}", local.port()),
                    false => format!("to {remote}{closed}"),
                }
            }
            Some(Socket::Udp { remote, .. }) if remote.port() != 0 => format!("UDP to {remote}"),
            Some(Socket::Udp { local, .. }) => format!("UDP port {}", local.port()),
            Some(Socket::Unix { path }) if path.is_empty() => "of this host".to_owned(),
            Some(Socket::Unix { path }) => format!("of {path}"),
            None => "without a connection".to_owned(),
        }
    }
}

/// `  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 20911 …`
fn tcp(line: &str) -> Option<(u64, Socket)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    let (local, remote) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
    Some((fields.get(9)?.parse().ok()?, Socket::Tcp { local, remote, state }))
}

fn udp(line: &str) -> Option<(u64, Socket)> {
    let (inode, socket) = tcp(line)?;
    let Socket::Tcp { local, remote, .. } = socket else { return None };
    Some((inode, Socket::Udp { local, remote }))
}

/// `ffff8881: 00000002 00000000 00010000 0001 01 21234 /run/x.sock`
fn unix(line: &str) -> Option<(u64, Socket)> {
    let mut fields = line.split_ascii_whitespace();
    let inode = fields.nth(6)?.parse().ok()?;
    Some((inode, Socket::Unix { path: fields.next().map(sanitize).unwrap_or_default() }))
}

/// Words of 32 bits as they lie in memory, shown as numbers of this machine, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_as_the_kernel_writes_them() {
        let line = "  3: 0100007F:1538 0200A8C0:C350 08 00000000:00000000 00:00000000 00000000  1000  0 4711 1 0 20 4 30 10 -1";
        let (inode, socket) = tcp(line).expect("a line");
        let (local, remote) = ("127.0.0.1:5432".parse().expect("valid"), "192.168.0.2:50000".parse().expect("valid"));
        assert_eq!((inode, socket), (4711, Socket::Tcp { local, remote, state: CLOSE_WAIT }));
        let mapped = address("0000000000000000FFFF00000100007F:0050").expect("an address");
        assert_eq!(mapped, "127.0.0.1:80".parse().expect("valid"));
        let (inode, socket) = unix("0000: 00000002 00000000 00010000 0001 01 21234 /run/x.sock").expect("a line");
        assert_eq!((inode, socket), (21234, Socket::Unix { path: "/run/x.sock".into() }));
        assert!(tcp("  sl  local_address rem_address   st tx_queue").is_none() && unix("Num RefCount").is_none());
        assert_eq!(Sockets::default().label(1), "without a connection");
    }
}
