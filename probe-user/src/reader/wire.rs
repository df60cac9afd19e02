//! Messages between a process and its readers, over a stream socket: how long its text and its bytes are and how many
//! descriptors it has; the descriptors, some with each byte of zero; text and bytes. Both sides take the other for hostile: lengths are bounded, and the owner waits until a deadline only.

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

/// Descriptors of a message: a large program has some hundred files.
const MAX_FILES: usize = 1024;
/// Descriptors that are sent at once; the kernel takes 253 (`SCM_MAX_FD`).
const AT_ONCE: usize = 64;
/// Bytes of a message: an unwind table of the largest size, the names of a hundred thousand addresses.
const MAX_BYTES: usize = 64 << 20;
const HEADER: usize = 12;

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
    for (part, length) in header.chunks_mut(4).zip([text.len(), bytes.len(), files.len()]) {
        part.copy_from_slice(&(length as u32).to_le_bytes());
    }
    let flags = SendFlags::NOSIGNAL | if deadline.is_some() { SendFlags::DONTWAIT } else { SendFlags::empty() };
    let send_all = |mut part: &[u8]| {
        while !part.is_empty() {
            let sent = until(socket, PollFlags::OUT, deadline, || send_bytes(socket, part, flags))?;
            part = &part[sent..];
        }
        Ok(())
    };
    send_all(&header)?;
    for files in files.chunks(AT_ONCE) {
        until(socket, PollFlags::OUT, deadline, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(files));
            sendmsg(socket, &[IoSlice::new(&[0])], &mut control, flags)
        })?;
    }
    send_all(text)?;
    send_all(bytes)
}

pub(super) fn receive(socket: &OwnedFd, deadline: Option<Instant>) -> Result<Message, Broken> {
    let flags = if deadline.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
    let fill = |part: &mut [u8]| {
        let mut have = 0;
        while have < part.len() {
            let (got, _) = until(socket, PollFlags::IN, deadline, || recv(socket, &mut part[have..], flags))?;
            if got == 0 {
                return Err(Broken::Gone);
            }
            have += got;
        }
        Ok(())
    };
    let mut header = [0; HEADER];
    fill(&mut header)?;
    let length = |at: usize| header[at..at + 4].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let (text, bytes, count) = (length(0), length(4), length(8));
    if text.saturating_add(bytes) > MAX_BYTES || count > MAX_FILES {
        return Err(Broken::Gone);
    }
    let mut files = Vec::new();
    while files.len() < count {
        let before = files.len();
        files.extend(until(socket, PollFlags::IN, deadline, || receive_files(socket, flags))?);
        if files.len() == before {
            return Err(Broken::Gone);
        }
    }
    let mut message = Message { text: vec![0; text], bytes: vec![0; bytes], files };
    fill(&mut message.text)?;
    fill(&mut message.bytes)?;
    Ok(message)
}

/// Those that come with a byte.
fn receive_files(socket: &OwnedFd, flags: RecvFlags) -> Result<Vec<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().collect())
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
