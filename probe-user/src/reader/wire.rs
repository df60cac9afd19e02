//! Messages between a process and its readers, over a stream socket: two lengths, a text, bytes; descriptors come with the
//! lengths. Both sides take the other for hostile: lengths are bounded, and the owner waits until a deadline only.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, send as send_bytes, sendmsg,
};

/// Descriptors of a message.
pub(super) const MAX_FILES: usize = 16;
/// Bytes of a message: an unwind table of the largest size, the names of a hundred thousand addresses.
const MAX_BYTES: usize = 64 << 20;
const HEADER: usize = 8;

/// What is sent and received.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub text: Vec<u8>,
    pub bytes: Vec<u8>,
    pub files: Vec<OwnedFd>,
}

/// Why a message did not go or come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The deadline has passed.
    Late,
    /// The other side is gone, or has sent what is no message.
    Gone,
}

pub(super) fn send(
    socket: &OwnedFd,
    text: &[u8],
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<(), Broken> {
    if text.len().saturating_add(bytes.len()) > MAX_BYTES || files.len() > MAX_FILES {
        return Err(Broken::Gone);
    }
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&(text.len() as u32).to_le_bytes());
    header[4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    let flags = SendFlags::NOSIGNAL | if deadline.is_some() { SendFlags::DONTWAIT } else { SendFlags::empty() };
    let sent = until(socket, PollFlags::OUT, deadline, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        sendmsg(socket, &[IoSlice::new(&header)], &mut control, flags)
    })?;
    let rest = [&header[sent..], text, bytes];
    for mut part in rest {
        while !part.is_empty() {
            let sent = until(socket, PollFlags::OUT, deadline, || send_bytes(socket, part, flags))?;
            part = &part[sent..];
        }
    }
    Ok(())
}

pub(super) fn receive(socket: &OwnedFd, deadline: Option<Instant>) -> Result<Message, Broken> {
    let flags = if deadline.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
    let (mut header, mut files) = ([0; HEADER], Vec::new());
    let have = until(socket, PollFlags::IN, deadline, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut header)];
        let received = recvmsg(socket, &mut into, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                files.extend(descriptors);
            }
        }
        Ok(received.bytes)
    })?;
    if have == 0 {
        return Err(Broken::Gone);
    }
    let fill = |part: &mut [u8], mut have: usize| {
        while have < part.len() {
            let (got, _) = until(socket, PollFlags::IN, deadline, || recv(socket, &mut part[have..], flags))?;
            if got == 0 {
                return Err(Broken::Gone);
            }
            have += got;
        }
        Ok(())
    };
    fill(&mut header, have)?;
    let length = |at: usize| header[at..at + 4].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let (text, bytes) = (length(0), length(4));
    if text.saturating_add(bytes) > MAX_BYTES {
        return Err(Broken::Gone);
    }
    let mut message = Message { text: vec![0; text], bytes: vec![0; bytes], files };
    fill(&mut message.text, 0)?;
    fill(&mut message.bytes, 0)?;
    Ok(message)
}

/// Tries again when there is something to be done, until the deadline.
fn until<T>(
    socket: &OwnedFd,
    events: PollFlags,
    deadline: Option<Instant>,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Broken> {
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if deadline.is_some() => {
                let left =
                    deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    return Err(Broken::Late);
                }
                wait(socket.as_fd(), events, left);
            }
            Err(_) => return Err(Broken::Gone),
        }
    }
}

/// Waits until a socket is ready, or for so long; who asks looks again.
pub(super) fn wait(socket: BorrowedFd<'_>, events: PollFlags, limit: Duration) {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    let _ = poll(&mut [PollFd::from_borrowed_fd(socket, events)], Some(&limit));
}
