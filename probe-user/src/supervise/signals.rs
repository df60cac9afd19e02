//! Signals as something to be read, so that one thread waits for them and for all else at once.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::process::Signal;

/// What a supervisor listens to.
const HEARD: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::CHILD];

/// Hears signals as usual again: programs inherit from whoever starts them which they do not hear.
#[expect(unsafe_code, reason = "neither the standard library nor rustix can block signals")]
pub(super) fn unblock() {
    // SAFETY: as below.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// The signals of this process, which from then on do nothing else than to be read here.
#[derive(Debug)]
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// To be called before there is a second thread, which would still be interrupted.
    #[expect(unsafe_code, reason = "neither the standard library nor rustix can block signals")]
    pub(super) fn listen() -> Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before it is read, and outlives the calls; both take no more of
        // this process than its mask of signals.
        let descriptor = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in HEARD {
                libc::sigaddset(&mut set, signal.as_raw());
            }
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error()).context("cannot listen to signals");
        }
        // SAFETY: the descriptor was just made, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// What has come and was not read yet.
    pub(super) fn next(&self) -> Option<Signal> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::read(&self.0, &mut record).ok()?;
        // The number is the first field.
        let number = record.first_chunk().filter(|_| read == record.len()).map(|bytes| u32::from_ne_bytes(*bytes))?;
        HEARD.into_iter().find(|signal| signal.as_raw().unsigned_abs() == number)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
