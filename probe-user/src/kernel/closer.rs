//! A process that closes links. The kernel takes no trap away on behalf of a thread that is being killed (`__get_user_pages` in
//! mm/gup.c looks for `fatal_signal_pending`; the kernel says "leaking uprobe"): a process that is killed while it closes a
//! link would leave its traps in the code of others. What a killed process still has open is closed later, when it has taken
//! the signal, and then nothing is in the way. So a link's last descriptor is handed to another process, which no signal to
//! this one reaches, and which ends when it has closed what it was given and this one is gone. If it is killed itself, another
//! one takes its place (`helper`): it only has what it is closing, so that there is nothing to hand over to the new one.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};

use crate::helper::{self, Helper};

static CLOSER: Helper = Helper::new(c"probe-closer", "probes are taken away by this process itself", run);

/// Starts that process. If it cannot be started, links are closed here. To be called before there is a second thread; later
/// it does nothing.
pub fn start() {
    if CLOSER.start() {
        CLOSER.watch();
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
    let is_handed_over = CLOSER.hand_over(0, &[link.as_fd(), its.as_fd()]).is_ok();
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

/// The other process: until the socket's other end is closed, and all links are.
fn run(socket: &OwnedFd) {
    let mut busy = Vec::new();
    while let Ok(Some((_, [link, its]))) = helper::receive(socket) {
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
}
