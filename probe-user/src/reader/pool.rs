//! Asking: a reader is taken from those that wait, or started, and goes back to them if it has answered.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use super::child::Order;
use super::failure::Failure;
use super::wire::{self, Broken};
use super::{Access, Done, Job, nursery};

/// Readers that may wait for work. They have little memory.
const MAX_IDLE: usize = 4;
/// How long it may take until it is known why a reader has ended.
const NEWS: Duration = Duration::from_millis(200);

static IDLE: Mutex<Vec<Reader>> = Mutex::new(Vec::new());

/// A reader. It is killed when this is dropped.
struct Reader {
    access: Access,
    socket: OwnedFd,
    life: OwnedFd,
    /// It has done something before.
    has_waited: bool,
}

/// Has a reader do a job, with these files, within the job's time and `limit`. Without readers (see [`super::start`]) it is
/// done by this thread.
pub fn ask<J: Job>(job: J, files: &[BorrowedFd<'_>], limit: Duration) -> Result<Done<J::Answer>, Failure> {
    if !nursery::is_there() {
        let files: Result<_, _> = files.iter().map(|file| file.try_clone_to_owned()).collect();
        return Ok(job.run(files.map_err(|_| Failure::NoReader)?));
    }
    let time = J::TIME.min(limit);
    let deadline = Instant::now() + time;
    let order = Order { job: J::NAME.into(), seconds: time.as_secs(), memory: J::MEMORY };
    let text = serde_json::to_vec(&order).map_err(|_| Failure::Ended)?;
    let bytes = serde_json::to_vec(&job).map_err(|_| Failure::Ended)?;
    let talk = |reader: &Reader| {
        wire::send(&reader.socket, &text, &bytes, files, Some(deadline))
            .and_then(|()| wire::receive(&reader.socket, Some(deadline)))
    };
    let mut reader = Reader::take(J::ACCESS).ok_or(Failure::NoReader)?;
    // One that has waited may have ended meanwhile, together with the nursery.
    while reader.has_waited && reader.has_ended() {
        reader = Reader::take(J::ACCESS).ok_or(Failure::NoReader)?;
    }
    match talk(&reader) {
        Ok(message) => {
            let answer = serde_json::from_slice(&message.text).map_err(|_| Failure::Ended)?;
            reader.give_back();
            Ok(Done { answer, bytes: message.bytes, files: message.files })
        }
        Err(broken) => Err(reader.failure(broken)),
    }
}

impl Reader {
    fn take(access: Access) -> Option<Self> {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = idle.iter().position(|reader| reader.access == access) {
            return Some(idle.swap_remove(at));
        }
        drop(idle);
        let pair = |kind| socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let ((socket, its), (life, of_life)) = (pair(SocketType::STREAM).ok()?, pair(SocketType::SEQPACKET).ok()?);
        nursery::request(access, its, of_life).ok()?;
        Some(Self { access, socket, life, has_waited: false })
    }

    fn has_ended(&self) -> bool {
        // It says nothing by itself: what there is to read is its end.
        !matches!(recv(&self.socket, &mut [0; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK), Err(Errno::AGAIN))
    }

    fn give_back(mut self) {
        self.has_waited = true;
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.iter().filter(|reader| reader.access == self.access).count() < MAX_IDLE {
            idle.push(self);
        }
    }

    /// Why there was no answer.
    fn failure(&self, broken: Broken) -> Failure {
        if broken == Broken::Late {
            return Failure::TooLong;
        }
        wire::wait(self.life.as_fd(), PollFlags::IN, NEWS);
        let mut signal = [0];
        match recv(&self.life, &mut signal, RecvFlags::DONTWAIT) {
            Ok((_, 1)) => Failure::of_signal(signal[0]),
            Ok(_) => Failure::NoReader,
            Err(_) => Failure::Ended,
        }
    }
}
