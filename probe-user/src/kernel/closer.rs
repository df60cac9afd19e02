//! A process that closes links. The kernel takes no trap away on behalf of a thread that is being killed (`__get_user_pages` in
//! mm/gup.c looks for `fatal_signal_pending`; the kernel says "leaking uprobe"): a process that is killed while it closes a
//! link would leave its traps in the code of others. What a killed process still has open is closed later, when it has taken
//! the signal, and then nothing is in the way. So a link's last descriptor is handed to another process, which no signal to
//! this one reaches, and which ends when it has closed what it was given and this one is gone. If it is killed itself, another
//! one takes its place: it only has what it is closing, so that there is nothing to hand over to the new one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Where descriptors are handed over; `None` while there is nobody.
static CLOSER: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// One that ends sooner is not replaced at once.
const PAUSE: Duration = Duration::from_secs(1);

/// What is handed over together: a link, and a socket between both processes about it.
const TOGETHER: usize = 2;

/// Signals by which many are ended who have a name or a control group in common. This process ends by itself.
const NOT_MEANT: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Starts that process, as the caller is by now: what the caller may not, it may not either. If it cannot be started, links
/// are closed here. To be called before there is a second thread; later it does nothing.
pub fn start() {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if !is_alone || lock().is_some() {
        return;
    }
    let started = fork().and_then(|pid| std::thread::Builder::new().name("closer".into()).spawn(move || watch(pid)));
    if let Err(error) = started {
        tracing::warn!("probes are taken away by this process itself: {error}");
    }
}

fn lock() -> MutexGuard<'static, Option<OwnedFd>> {
    CLOSER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts another one whenever it ends: it never does so by itself while this process is there.
fn watch(mut pid: Pid) {
    loop {
        let started = Instant::now();
        let ended = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
        drop(lock().take());
        let Ok(Some((_, status))) = ended else { return };
        let manner = match (status.terminating_signal(), status.exit_status()) {
            (Some(signal), _) => format!("was killed by signal {signal}"),
            (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
        };
        tracing::warn!("probe-closer (pid {pid}), which takes probes away, {manner}; another one is started");
        if started.elapsed() < PAUSE {
            std::thread::sleep(PAUSE);
        }
        match fork() {
            Ok(new) => pid = new,
            Err(error) => return tracing::warn!("probes are taken away by this process itself: {error}"),
        }
    }
}

fn fork() -> io::Result<Pid> {
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    #[expect(unsafe_code, reason = "a second process that is the same program")]
    // SAFETY: with other threads the child may use nothing whose lock one of them may hold. It uses memory and threads, whose
    // locks the C library frees in it (sysdeps/nptl/fork.c of glibc), and system calls; it writes no log.
    match unsafe { libc::fork() } {
        0 => {
            drop(ours);
            run(its)
        }
        -1 => Err(io::Error::last_os_error()),
        pid => {
            *lock() = Some(ours);
            Pid::from_raw(pid).ok_or(io::ErrorKind::Other.into())
        }
    }
}

/// Makes this thread one that comes before others: until it has its turn, probes cost.
pub fn hurry() {
    // Without the privilege it goes on as it is.
    let _ = rustix::process::setpriority_process(None, -20);
}

/// Closes a link, and waits until the kernel is done with it.
pub(super) fn close(link: OwnedFd) {
    let Ok((ours, its)) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None) else {
        return;
    };
    let is_handed_over =
        lock().as_ref().is_some_and(|closer| hand_over(closer.as_fd(), &[link.as_fd(), its.as_fd()]).is_ok());
    // Whoever closes it last takes the probes away: the other process, which waits until this one has let go of it. Without
    // one it is this thread, here.
    drop((link, its));
    if is_handed_over {
        let _ = rustix::net::shutdown(&ours, Shutdown::Write);
        wait_for_end(&ours);
    }
}

/// Until the other end is closed, or says that nothing comes.
fn wait_for_end(socket: &OwnedFd) {
    let _ = retry_on_intr(|| rustix::io::read(socket, &mut [0; 1]));
}

fn hand_over(socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>; TOGETHER]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    let byte = [io::IoSlice::new(&[0])];
    retry_on_intr(|| sendmsg(socket, &byte, &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// The other process: until the socket's other end is closed, and all links are.
fn run(socket: OwnedFd) -> ! {
    for signal in NOT_MEANT {
        #[expect(unsafe_code, reason = "no library ignores signals")]
        // SAFETY: no handler is set.
        unsafe {
            libc::signal(signal, libc::SIG_IGN)
        };
    }
    // What is sent to the terminal's processes, or to a group, goes past it.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"probe-closer");
    close_all_but(&socket);
    let mut busy = Vec::new();
    while let Some([link, its]) = receive(&socket) {
        busy.retain(|thread: &std::thread::JoinHandle<()>| !thread.is_finished());
        let close = move || {
            hurry();
            wait_for_end(&its);
            drop(link);
            drop(its);
        };
        // Without a thread they are closed at once, if not in this order.
        busy.extend(std::thread::Builder::new().name("closing".into()).spawn(close));
    }
    for thread in busy {
        let _ = thread.join();
    }
    #[expect(unsafe_code, reason = "what the other one would do at its end is not done twice")]
    // SAFETY: it only ends the process.
    unsafe {
        libc::_exit(0)
    }
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

/// What was handed over; `None` when nothing more comes.
fn receive(socket: &OwnedFd) -> Option<[OwnedFd; TOGETHER]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [io::IoSliceMut::new(&mut byte)];
    let received = retry_on_intr(|| recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)).ok()?;
    if received.bytes == 0 {
        return None;
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors = descriptors.next()?;
    Some([descriptors.next()?, descriptors.next()?])
}
