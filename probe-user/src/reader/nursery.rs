//! The nursery: the process that forks readers, kills them and reaps them. It is forked off before there is a second thread
//! and before anything was read, so that readers have little memory and no lock that somebody else holds.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::{Access, Handler, child};
use crate::sandbox;

/// Where readers are asked for.
static NURSERY: OnceLock<OwnedFd> = OnceLock::new();

/// Readers there may be, those included that the kernel does not let go.
const MAX_READERS: usize = 64;
/// What comes with a request: the reader's socket, and one whose end kills it.
const TOGETHER: usize = 2;
/// Signals by which many are ended who have a name or a control group in common. These processes end by themselves.
const NOT_MEANT: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Starts it. To be called before there is a second thread and before this process gives away what readers need; later it
/// does nothing. Without it files are read by this process itself.
pub fn start(handlers: &[Handler]) {
    if let Err(error) = fork(handlers) {
        tracing::warn!("the files of targets are read by this process itself: {error}");
    }
}

/// True if there are readers.
pub fn is_there() -> bool {
    NURSERY.get().is_some()
}

/// Asks for a reader. It may not come: then its socket ends.
pub(super) fn request(access: Access, socket: OwnedFd, life: OwnedFd) -> io::Result<()> {
    let nursery = NURSERY.get().ok_or_else(|| io::Error::other("there are no readers"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket.as_fd(), life.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let byte = [access as u8];
    let byte = [io::IoSlice::new(&byte)];
    retry_on_intr(|| sendmsg(nursery, &byte, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

fn fork(handlers: &[Handler]) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 || is_there() {
        return Ok(());
    }
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    if fork_off()?.is_some() {
        let _ = NURSERY.set(ours);
        return Ok(());
    }
    drop(ours);
    run(&its, handlers);
    exit()
}

/// `None` in the child.
fn fork_off() -> io::Result<Option<Pid>> {
    #[expect(unsafe_code, reason = "a second process that is the same program")]
    // SAFETY: there is one thread, so that nobody holds a lock that would never be given back.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

fn exit() -> ! {
    #[expect(unsafe_code, reason = "what the other process would do at its end is not done twice")]
    // SAFETY: it only ends the process.
    unsafe {
        libc::_exit(0)
    }
}

/// A reader, as the nursery knows it.
struct Reader {
    process: OwnedFd,
    /// Ends when nobody needs the reader any more; `None` when it was killed.
    life: Option<OwnedFd>,
}

fn run(socket: &OwnedFd, handlers: &[Handler]) {
    for signal in NOT_MEANT {
        #[expect(unsafe_code, reason = "no library ignores signals")]
        // SAFETY: no handler is set.
        unsafe {
            libc::signal(signal, libc::SIG_IGN)
        };
    }
    // What is sent to the terminal's processes, or to a group, goes past it.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"probe-readers");
    close_all_but(socket);
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
            match receive(socket) {
                Ok(Some((access, reader, life))) if readers.len() < MAX_READERS => {
                    if let Some(reader) = spawn(access, reader, life, handlers) {
                        readers.push(reader);
                    }
                }
                Ok(_) => {}
                Err(()) => return,
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

fn spawn(access: Access, socket: OwnedFd, life: OwnedFd, handlers: &[Handler]) -> Option<Reader> {
    match fork_off().ok()? {
        Some(pid) => Some(Reader { process: pidfd_open(pid, PidfdFlags::empty()).ok()?, life: Some(life) }),
        None => {
            close_all_but(&socket);
            fill_standard();
            child::run(&socket, access, handlers);
            exit()
        }
    }
}

/// A request; `None` if it is not understood, an error when nobody asks any more.
fn receive(socket: &OwnedFd) -> Result<Option<(Access, OwnedFd, OwnedFd)>, ()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [io::IoSliceMut::new(&mut byte)];
    let received = retry_on_intr(|| recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)).map_err(drop)?;
    if received.bytes == 0 {
        return Err(());
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let Some(mut descriptors) = descriptors.next() else { return Ok(None) };
    let access = if byte == [Access::Open as u8] { Access::Open } else { Access::Read };
    Ok(descriptors.next().and_then(|socket| Some((access, socket, descriptors.next()?))))
}

/// Others wait for the end of what this process has open, too: of pipes, for example.
fn close_all_but(socket: &OwnedFd) {
    let number = socket.as_raw_fd() as u32;
    let below = number.checked_sub(1).map(|last| (0, last));
    for (first, last) in below.into_iter().chain([(number + 1, u32::MAX)]) {
        #[expect(unsafe_code, reason = "no library closes many")]
        // SAFETY: nobody uses them any more in this process.
        unsafe {
            libc::syscall(libc::SYS_close_range, first, last, 0)
        };
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
