//! Opening what processes have mapped, while they live, by readers: threads ask them, so that the thread that reads events
//! never waits for a file system.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::mappings::Mapping;
use super::modules::{Headers, Module, Opened, find};
use super::perf_map;
use crate::reader::{self, Access, Done, Failure, Job};

/// Threads that ask: a file system that does not answer holds one of them up.
const OPENERS: usize = 3;
/// Files that may wait: those of hundred processes that begin at once.
const WAITING: usize = 8192;
/// Nothing is opened for so long on a device that did not answer.
const DEAF: Duration = Duration::from_secs(30);
/// Devices that are remembered.
const MAX_DEAF: usize = 256;

/// To open a file of a process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Open {
    /// A mapped one.
    Mapped {
        /// The process.
        pid: u32,
        /// Where it is mapped.
        range: (u64, u64),
        /// Which file it is.
        inode: u64,
        /// Its path as the process sees it.
        path: String,
    },
    /// The perf map that the process writes.
    PerfMap {
        /// The process.
        pid: u32,
    },
}

impl Job for Open {
    const NAME: &'static str = "open";
    const ACCESS: Access = Access::Open;
    const TIME: Duration = Duration::from_secs(2);
    const MEMORY: u64 = 64 << 20;
    type Answer = Result<Headers, String>;

    fn run(self, _: Vec<OwnedFd>) -> Done<Self::Answer> {
        let found = match self {
            Self::Mapped { pid, range, inode, path } => find(pid, range, inode, &path),
            Self::PerfMap { pid } => perf_map::find(pid).map(|handle| (Headers::default(), handle)),
        };
        match found {
            Ok((headers, handle)) => Done { answer: Ok(headers), bytes: Vec::new(), files: vec![handle] },
            Err(error) => Done::answer(Err(format!("{error:#}"))),
        }
    }
}

struct Request {
    job: Open,
    /// What it is, in case it cannot be opened.
    what: String,
    device: Device,
    module: Arc<Module>,
}

/// Has the file of a mapping opened.
pub(super) fn request(pid: u32, mapping: &Mapping, module: &Arc<Module>) {
    let Mapping { start, end, inode, ref path, device, .. } = *mapping;
    let job = Open::Mapped { pid, range: (start, end), inode, path: path.clone() };
    send(Request { job, what: format!("{path} of pid {pid}"), device, module: module.clone() });
}

/// Has the perf map of a process opened.
pub(super) fn request_perf_map(pid: u32, module: &Arc<Module>) {
    // Where it lies is not known before it is looked for.
    let device = (0, 0);
    send(Request {
        job: Open::PerfMap { pid },
        what: format!("the perf map of pid {pid}"),
        device,
        module: module.clone(),
    });
}

/// Opens the perf map of a process, within a time; `None` if there is none that can be opened.
pub fn open_perf_map(pid: u32, limit: Duration) -> Option<OwnedFd> {
    let Done { answer, mut files, .. } = reader::ask(Open::PerfMap { pid }, &[], limit).ok()?;
    answer.ok().and_then(|_| files.pop())
}

fn send(request: Request) {
    static QUEUE: OnceLock<Option<SyncSender<Request>>> = OnceLock::new();
    let queue = if reader::is_there() { QUEUE.get_or_init(start_threads).as_ref() } else { None };
    let module = request.module.clone();
    match queue {
        // There are no readers: it is opened here.
        None => answer(request),
        Some(queue) => {
            if queue.try_send(request).is_err() {
                module.set(Opened::problem("too many files to be opened at once".into()));
            }
        }
    }
}

fn start_threads() -> Option<SyncSender<Request>> {
    let (queue, inbox) = sync_channel::<Request>(WAITING);
    let inbox = Arc::new(Mutex::new(inbox));
    let start = |_| {
        let inbox = inbox.clone();
        std::thread::Builder::new().name("opener".into()).spawn(move || work(&inbox)).is_ok()
    };
    (0..OPENERS).map(start).fold(false, |any, one| any | one).then_some(queue)
}

fn work(inbox: &Mutex<Receiver<Request>>) {
    loop {
        let Ok(request) = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        answer(request);
    }
}

fn answer(Request { job, what, device, module }: Request) {
    let opened = if is_deaf(device) {
        Opened::problem(format!("cannot open {what}: its file system did not answer"))
    } else {
        match reader::ask(job, &[], Open::TIME) {
            Ok(Done { answer: Ok(headers), mut files, .. }) => match files.pop() {
                Some(handle) => Opened::file(headers, handle),
                None => Opened::problem(format!("cannot open {what}")),
            },
            Ok(Done { answer: Err(problem), .. }) => Opened::problem(problem),
            Err(failure) => {
                if failure == Failure::TooLong && device != (0, 0) {
                    note_deaf(device);
                }
                Opened::problem(format!("cannot open {what}: {failure}"))
            }
        }
    };
    if !opened.problem.is_empty() {
        tracing::debug!(what, error = opened.problem, "a mapped file cannot be opened");
    }
    module.set(opened);
}

type Device = (u32, u32);

/// Devices that did not answer, and when.
static DEVICES: Mutex<Option<HashMap<Device, Instant>>> = Mutex::new(None);

fn is_deaf(device: Device) -> bool {
    let devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    devices.as_ref().and_then(|devices| devices.get(&device)).is_some_and(|since| since.elapsed() < DEAF)
}

fn note_deaf(device: Device) {
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let devices = devices.get_or_insert_default();
    devices.retain(|_, since| since.elapsed() < DEAF);
    if devices.len() < MAX_DEAF {
        devices.insert(device, Instant::now());
    }
}
