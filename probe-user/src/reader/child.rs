//! A reader: it does one job after the other until its socket is closed. What it may do is given away first; what it may
//! use is limited for each job.

use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::wire;
use super::{Access, Done, Handler};
use crate::sandbox;

/// Descriptors of a reader: some hundred files, each found and opened, and their debug files.
const MAX_DESCRIPTORS: u64 = 4096;

/// What comes before a job.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub job: String,
    /// Processor time, in seconds.
    pub seconds: u64,
    /// Memory, in bytes.
    pub memory: u64,
}

/// Until the socket is closed.
pub(super) fn run(socket: &OwnedFd, access: Access, handlers: &[Handler]) {
    // The nursery is the parent. Whoever it lost has nobody who kills it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::thread::set_name(c"probe-reader");
    // Where memory is short, a reader goes before anybody else does.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (what, most) in [(Resource::Fsize, 0), (Resource::Core, 0), (Resource::Nofile, MAX_DESCRIPTORS)] {
        let _ = setrlimit(what, Rlimit { current: Some(most), maximum: Some(most) });
    }
    if sandbox::reader(access.capabilities()).is_err() {
        return;
    }
    // What is wrong with a file is told in the answer.
    std::panic::set_hook(Box::new(|_| {}));
    while let Ok(message) = wire::receive(socket, None) {
        let answer = catch_unwind(AssertUnwindSafe(|| work(message, handlers)));
        let Ok(Some(Done { answer, bytes, files })) = answer else { return };
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        if wire::send(socket, &answer, &bytes, &files, None).is_err() {
            return;
        }
    }
}

fn work(message: wire::Message, handlers: &[Handler]) -> Option<Done<Vec<u8>>> {
    let order: Order = serde_json::from_slice(&message.text).ok()?;
    limit(Resource::Cpu, used_seconds() + order.seconds + 1);
    limit(Resource::Data, order.memory);
    let handler = handlers.iter().find(|handler| handler.name == order.job)?;
    (handler.run)(&message.bytes, message.files).ok()
}

/// What may be raised again for the next job.
fn limit(what: Resource, most: u64) {
    let maximum = getrlimit(what).maximum;
    let most = maximum.map_or(most, |maximum| most.min(maximum));
    let _ = setrlimit(what, Rlimit { current: Some(most), maximum });
}

fn used_seconds() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec.unsigned_abs()
}
