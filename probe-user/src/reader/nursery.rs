//! The nursery: the process that forks readers, kills them and reaps them. It is forked off before there is a second thread
//! and before anything was read, so that readers have little memory. If it is killed, its readers end, and another one takes
//! its place (`helper`).

use std::io;
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::{Access, Handler, child};
use crate::helper::{self, Helper};
use crate::sandbox;

static NURSERY: Helper = Helper::new(c"probe-readers", "no process reads the files of targets apart", run);
/// What readers do.
static HANDLERS: OnceLock<Vec<Handler>> = OnceLock::new();

/// Readers there may be, those included that the kernel does not let go.
const MAX_READERS: usize = 64;

/// Starts it. To be called before there is a second thread and before this process gives away what readers need; later it
/// does nothing. Without it files are read by this process itself.
pub fn start(handlers: &[Handler]) {
    let _ = HANDLERS.set(handlers.to_vec());
    NURSERY.start();
}

/// True if readers were started, whether there are any now or not.
pub fn is_there() -> bool {
    NURSERY.was_started()
}

/// Asks for a reader. It may not come: then its socket ends.
pub(super) fn request(access: Access, socket: OwnedFd, life: OwnedFd) -> io::Result<()> {
    NURSERY.watch();
    NURSERY.hand_over(access as u8, &[socket.as_fd(), life.as_fd()])
}

/// A reader, as the nursery knows it.
struct Reader {
    process: OwnedFd,
    /// Ends when nobody needs the reader any more; `None` when it was killed.
    life: Option<OwnedFd>,
}

fn run(socket: &OwnedFd) {
    fill_standard();
    if sandbox::nursery(Access::Open.capabilities() | Access::Read.capabilities()).is_err() {
        return;
    }
    let mut readers: Vec<Reader> = Vec::new();
    loop {
        let mut polled = vec![PollFd::new(socket, PollFlags::IN)];
        for reader in &readers {
            polled.push(PollFd::new(&reader.process, PollFlags::IN));
            // Its end alone is waited for.
            polled.extend(reader.life.as_ref().map(|life| PollFd::new(life, PollFlags::empty())));
        }
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let has_come = !polled[0].revents().is_empty();
        drop(polled);
        readers.retain_mut(|reader| !reader.look());
        if has_come {
            match helper::receive(socket) {
                Ok(Some((access, [reader, life]))) if readers.len() < MAX_READERS => {
                    let access = if access == Access::Open as u8 { Access::Open } else { Access::Read };
                    readers.extend(spawn(access, reader, life));
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

impl Reader {
    /// Kills it if nobody needs it; true when it is gone.
    fn look(&mut self) -> bool {
        if self.life.as_ref().is_some_and(has_ended) {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            self.life = None;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.process.as_fd()), options) {
            Ok(None) => false,
            Ok(Some(status)) => {
                let signal = status.terminating_signal().unwrap_or(0) as u8;
                if let Some(life) = &self.life {
                    let _ = send(life, &[signal], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                }
                true
            }
            Err(_) => true,
        }
    }
}

fn has_ended(life: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(life, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0)
}

fn spawn(access: Access, socket: OwnedFd, life: OwnedFd) -> Option<Reader> {
    match helper::fork().ok()? {
        Some(pid) => Some(Reader { process: pidfd_open(pid, PidfdFlags::empty()).ok()?, life: Some(life) }),
        None => {
            helper::close_all_but(&socket);
            fill_standard();
            child::run(&socket, access, HANDLERS.get().map_or(&[], Vec::as_slice));
            helper::exit()
        }
    }
}

/// Nobody reads what is said here, and libraries expect that there is something: the first three descriptors, which are free.
fn fill_standard() {
    for _ in 0..3 {
        if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
            let _ = null.into_raw_fd();
        }
    }
}
