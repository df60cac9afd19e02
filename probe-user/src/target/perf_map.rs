//! Perf maps: how programs that generate code name it. `/tmp/perf-PID.map` has a line for each piece of code: start and length
//! in hex, and a name (tools/perf/Documentation/jit-interface.txt in Linux). `node --perf-basic-prof`, `java` with an agent,
//! `python -X perf` and .NET write them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, Result, ensure};

use super::{folder, read_small, regular};
use crate::text::sanitize;

/// No more of a map is read: a large server's has some ten megabytes.
const MAX_BYTES: u64 = 128 << 20;
/// Nor more pieces of code.
const MAX_ENTRIES: usize = 1 << 20;
/// A longer line is none.
const MAX_LINE: u64 = 64 << 10;

/// Finds the map of a process, below its own root and with the number that it has there. The file has to belong to the
/// process's user or to root: anybody may write to `/tmp`.
pub(super) fn find(pid: u32) -> Result<OwnedFd> {
    let folder = folder(pid);
    let status = read_small(folder.join("status")).context("the process has ended")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::split_whitespace);
    let inner: u32 = field("NStgid:").and_then(|mut pids| pids.next_back()).context("no pid")?.parse()?;
    let owner: u32 = field("Uid:").and_then(|mut users| users.nth(1)).context("no user")?.parse()?;
    let handle = regular::find(&folder.join(format!("root/tmp/perf-{inner}.map")), None)?;
    let uid = regular::metadata(&handle)?.uid();
    ensure!(uid == owner || uid == 0, "the perf map is of another user");
    Ok(handle)
}

/// What a map says.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// By start: end and name.
    entries: BTreeMap<u64, (u64, Box<str>)>,
    /// Lines that could not be read, and pieces of code that were too many.
    pub unreadable: u64,
}

impl PerfMap {
    /// Reads a map from its beginning.
    pub fn read(file: &File) -> Self {
        struct At<'file>(&'file File, u64);
        impl Read for At<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let count = self.0.read_at(buffer, self.1)?;
                self.1 += count as u64;
                Ok(count)
            }
        }
        Self::parse(BufReader::new(At(file, 0).take(MAX_BYTES)))
    }

    fn parse(mut text: impl BufRead) -> Self {
        let mut map = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            match text.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return map,
                // The last line may be half written.
                Ok(_) if line.last() != Some(&b'\n') && (line.len() as u64) < MAX_LINE => return map,
                Ok(_) => {}
            }
            if map.add(&String::from_utf8_lossy(&line)).is_none() {
                map.unreadable += 1;
            }
        }
    }

    /// Adds a line. Code that was there before is gone.
    fn add(&mut self, line: &str) -> Option<()> {
        let mut fields = line.trim_end_matches(['\n', '\r']).splitn(3, ' ');
        let mut hex = || u64::from_str_radix(fields.next()?.trim_start_matches("0x"), 16).ok();
        let (start, size) = (hex()?, hex()?);
        let name = fields.next().map(str::trim).filter(|name| !name.is_empty())?;
        let end = start.checked_add(size).filter(|&end| end > start)?;
        let before = self.entries.range(..start).next_back().filter(|(_, (until, _))| *until > start);
        let mut replaced: Vec<u64> = before.map(|(&at, _)| at).into_iter().collect();
        replaced.extend(self.entries.range(start..end).map(|(&at, _)| at));
        for at in replaced {
            self.entries.remove(&at);
        }
        if self.entries.len() >= MAX_ENTRIES {
            return None;
        }
        self.entries.insert(start, (end, sanitize(name).into()));
        Some(())
    }

    /// The name of the code at an address.
    pub fn name(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.entries.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_for_an_address_wins() {
        let map = PerfMap::parse(&b"1000 20 old\n1020 10 kept\n1008 8 JS:*fib /a b.js:1\n0x2000 0x10 hex\n"[..]);
        let names = [0x1000, 0x1008, 0x100f, 0x1010, 0x1020, 0x102f, 0x1030, 0x2001].map(|at| map.name(at));
        let fib = Some("JS:*fib /a b.js:1");
        assert_eq!(names, [None, fib, fib, None, Some("kept"), Some("kept"), None, Some("hex")]);
        assert_eq!(map.unreadable, 0);
    }

    #[test]
    fn what_is_no_line_is_counted() {
        let long = "x".repeat(200_000);
        let text =
            format!("nonsense\n\n10 0 empty\nffffffffffffffff 2 over\n10 5\n10 5 a\x1b[31m\n20 5 {long}\n30 5 cut");
        let map = PerfMap::parse(text.as_bytes());
        assert_eq!(map.name(0x10), Some("a\u{fffd}[31m"));
        assert_eq!(map.name(0x30), None, "half a line");
        assert!(map.unreadable >= 5, "{}", map.unreadable);
    }

    #[test]
    fn who_writes_none_has_none() {
        assert!(find(std::process::id()).is_err());
        assert!(find(u32::MAX).is_err());
    }
}
