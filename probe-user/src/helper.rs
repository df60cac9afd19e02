//! Helpers: processes beside this one that are the same program and do one thing for it. They are forked off, and replaced when
//! they end while this process is there. They are handed descriptors over a socket, whose end tells them that nobody needs them.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, WaitOptions, waitpid};

/// One that ends sooner is not replaced at once.
const PAUSE: Duration = Duration::from_secs(1);
/// Descriptors that are handed over at once.
pub const TOGETHER: usize = 2;
/// Signals by which many are ended who have a name or a control group in common. Helpers end by themselves.
const NOT_MEANT: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// A helper, as the process knows it that has it.
pub struct Helper {
    name: &'static CStr,
    /// What the log says where there is none.
    without: &'static str,
    run: fn(&OwnedFd),
    /// Where descriptors are handed over; `None` while there is nobody.
    socket: Mutex<Option<OwnedFd>>,
    pid: AtomicI32,
    is_watched: AtomicBool,
}

impl Helper {
    /// One that is not there yet. `run` is what it does, with its end of the socket.
    pub const fn new(name: &'static CStr, without: &'static str, run: fn(&OwnedFd)) -> Self {
        Self {
            name,
            without,
            run,
            socket: Mutex::new(None),
            pid: AtomicI32::new(0),
            is_watched: AtomicBool::new(false),
        }
    }

    /// Starts it, as the caller is by now: what the caller may not, it may not either. To be called before there is a second
    /// thread; later it does nothing. True if it is there.
    pub fn start(&'static self) -> bool {
        let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
        if is_alone
            && self.pid.load(Ordering::Relaxed) == 0
            && let Err(error) = self.fork()
        {
            tracing::warn!("{}: {error}", self.without);
        }
        self.was_started()
    }

    /// True if it was started, whether it is there now or not.
    pub fn was_started(&self) -> bool {
        self.pid.load(Ordering::Relaxed) != 0
    }

    /// Sees to it that another one is started whenever it ends: it never does so by itself while this process is there. This
    /// takes a thread, once.
    pub fn watch(&'static self) {
        let pid = self.pid.load(Ordering::Relaxed);
        if pid == 0 || self.is_watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let watch = move || self.replace(pid);
        let name = self.name.to_string_lossy().into_owned();
        if let Err(error) = std::thread::Builder::new().name(name).spawn(watch) {
            tracing::warn!("{}, should its process end: {error}", self.without);
        }
    }

    fn replace(&self, mut pid: i32) {
        loop {
            let started = Instant::now();
            let ended = retry_on_intr(|| waitpid(Pid::from_raw(pid), WaitOptions::empty()));
            drop(self.lock().take());
            let Ok(Some((_, status))) = ended else { return };
            let manner = match (status.terminating_signal(), status.exit_status()) {
                (Some(signal), _) => format!("was killed by signal {signal}"),
                (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
            };
            tracing::warn!("{} (pid {pid}) {manner}; another one is started", self.name.to_string_lossy());
            if started.elapsed() < PAUSE {
                std::thread::sleep(PAUSE);
            }
            if let Err(error) = self.fork() {
                return tracing::warn!("{}: {error}", self.without);
            }
            pid = self.pid.load(Ordering::Relaxed);
        }
    }

    fn fork(&self) -> io::Result<()> {
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        match fork()? {
            Some(pid) => {
                self.pid.store(pid.as_raw_nonzero().get(), Ordering::Relaxed);
                *self.lock() = Some(ours);
                Ok(())
            }
            None => {
                drop(ours);
                become_apart(self.name, &its);
                // Where this process has other threads, one of them may hold what is needed to write a log.
                tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || (self.run)(&its));
                exit()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands descriptors over, with a byte. Fails where there is no helper.
    pub fn hand_over(&self, byte: u8, descriptors: &[BorrowedFd<'_>; TOGETHER]) -> io::Result<()> {
        let socket = self.lock();
        let socket = socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(descriptors));
        let bytes = [byte];
        let bytes = [io::IoSlice::new(&bytes)];
        retry_on_intr(|| sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }
}

/// What was handed over, as the helper gets it; `None` in place of what is not understood, an error when nobody hands over
/// any more.
pub fn receive(socket: &OwnedFd) -> io::Result<Option<(u8, [OwnedFd; TOGETHER])>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [io::IoSliceMut::new(&mut byte)];
    let received = retry_on_intr(|| recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights =
        |message| if let RecvAncillaryMessage::ScmRights(descriptors) = message { Some(descriptors) } else { None };
    let descriptors: Vec<OwnedFd> = control.drain().filter_map(rights).flatten().collect();
    Ok(descriptors.try_into().ok().map(|descriptors| (byte[0], descriptors)))
}

/// Another process that is the same program; `None` in that one.
pub fn fork() -> io::Result<Option<Pid>> {
    #[expect(unsafe_code, reason = "a second process that is the same program")]
    // SAFETY: with other threads the child may use nothing whose lock one of them may hold. It uses memory and threads, whose
    // locks the C library frees in it (sysdeps/nptl/fork.c of glibc), and system calls; it writes no log.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends such a process.
pub fn exit() -> ! {
    #[expect(unsafe_code, reason = "what the other process would do at its end is not done twice")]
    // SAFETY: it only ends the process.
    unsafe {
        libc::_exit(0)
    }
}

/// What is sent to the terminal's processes, or to a group, goes past this one, and it keeps nothing open but the socket.
fn become_apart(name: &CStr, socket: &OwnedFd) {
    for signal in NOT_MEANT {
        #[expect(unsafe_code, reason = "no library ignores signals")]
        // SAFETY: no handler is set.
        unsafe {
            libc::signal(signal, libc::SIG_IGN)
        };
    }
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(name);
    close_all_but(socket);
}

/// Others wait for the end of what this process has open, too: of pipes, for example.
pub fn close_all_but(socket: &OwnedFd) {
    let number = socket.as_fd().as_raw_fd() as u32;
    let below = number.checked_sub(1).map(|last| (0, last));
    for (first, last) in below.into_iter().chain([(number + 1, u32::MAX)]) {
        #[expect(unsafe_code, reason = "no library closes many")]
        // SAFETY: nobody uses them any more in this process.
        unsafe {
            libc::syscall(libc::SYS_close_range, first, last, 0)
        };
    }
}
