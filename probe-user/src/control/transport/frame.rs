//! Frames: the lengths of two parts, four bytes each with the highest first, and the parts.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::control::IsWanted;

/// Most bytes of the parts of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) json: usize,
    pub(super) body: usize,
}

/// A request has no second part, and is at most a definition.
pub(super) const REQUEST: Bounds = Bounds { json: 256 << 10, body: 0 };
/// A list of all processes and threads of a large host, or a profile of it.
pub(super) const REPLY: Bounds = Bounds { json: 32 << 20, body: 128 << 20 };

/// Memory grows by so much as parts arrive: a length alone takes none.
const CHUNK: usize = 64 << 10;

/// Reads a frame: its JSON and its body. `None` if the other end has ended the connection instead of sending one. Waits
/// for as long as `idle` until it begins, and then at most `limit` until it is whole.
pub(super) fn read(
    stream: &mut UnixStream,
    bounds: Bounds,
    idle: Duration,
    limit: Duration,
) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut lengths = [0; 8];
    stream.set_read_timeout(Some(idle))?;
    let first = loop {
        match stream.read(&mut lengths) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    let deadline = Instant::now() + limit;
    fill(stream, &mut lengths[first..], deadline)?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let (json, body) = (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes([e, f, g, h]) as usize);
    if json > bounds.json || body > bounds.body {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {json} and {body} bytes is too large")));
    }
    Ok(Some((part(stream, json, deadline)?, part(stream, body, deadline)?)))
}

fn part(stream: &mut UnixStream, length: usize, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    while part.len() < length {
        let start = part.len();
        part.resize(length.min(start + CHUNK), 0);
        fill(stream, &mut part[start..], deadline)?;
    }
    Ok(part)
}

fn fill(stream: &mut UnixStream, mut rest: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(rest) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => rest = &mut rest[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How often it is asked whether an answer is wanted still.
const ASK: Duration = Duration::from_millis(100);

/// Waits until there is something to read. That it takes longer than `limit` is an error, and that nobody wants it any more.
pub(super) fn wait(stream: &UnixStream, limit: Duration, is_wanted: IsWanted<'_>) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    while is_wanted() {
        let left = deadline.saturating_duration_since(Instant::now());
        if events(stream, PollFlags::IN, left.min(ASK))? {
            return Ok(());
        }
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Err(io::Error::new(ErrorKind::ConnectionAborted, "nobody waits for the answer"))
}

/// Whether the other end has ended the connection: it waits for nothing any more.
pub(super) fn has_ended(stream: &UnixStream) -> bool {
    events(stream, PollFlags::RDHUP, Duration::ZERO).unwrap_or(true)
}

/// Whether something of this comes within a time, or the end.
fn events(stream: &UnixStream, wanted: PollFlags, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(|_| ErrorKind::InvalidInput)?;
    match poll(&mut [PollFd::new(stream, wanted)], Some(&limit)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes a frame within `limit` for each of its parts.
pub(super) fn write(stream: &mut UnixStream, json: &[u8], body: &[u8], limit: Duration) -> io::Result<()> {
    let length = |part: &[u8]| {
        u32::try_from(part.len()).map(u32::to_be_bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "too large"))
    };
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(&[length(json)?, length(body)?].concat())?;
    stream.write_all(json)?;
    stream.write_all(body)
}
