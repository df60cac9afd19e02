//! `Seeker`: a thread that looks for the allocators of processes and sets the probes in them, so that nobody waits who reads
//! events: symbols of large files take their time, and so does the kernel.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use anyhow::{Context, Result, ensure};

use crate::heap::{Allocators, Found};
use crate::kernel::{MAX_HEAPS, Prober, Probes, Wanted, takes};
use crate::target::{Identity, Module, exists, folder, monotonic_ns};

/// Files of which it is remembered what is in them: those of some hundred different programs.
const MAX_FILES: usize = 4096;

/// How allocators are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// The cheapest that a process has, instead of the functions of its allocators.
    pub cheapest: bool,
    /// What is allocated is followed until it is freed.
    pub live: bool,
}

/// A process in which there may be new allocators.
pub struct Request {
    pub pid: u32,
    /// Of its heap.
    pub number: u32,
    /// What it has mapped, or is going to.
    pub files: Vec<Arc<Module>>,
    /// What is probed already.
    pub known: Option<(Arc<Allocators>, Arc<[Wanted]>)>,
}

/// What came of it.
pub struct Answer {
    pub pid: u32,
    pub result: Result<Set>,
}

/// Allocators and their probes.
pub struct Set {
    /// All that are known of the process.
    pub allocators: Arc<Allocators>,
    /// They are seen by another way than those before, whose probes have to go.
    pub is_other_tier: bool,
    /// The new probes.
    pub wanted: Vec<Wanted>,
    /// These, set; `None` where they can only be set one by one, by the thread that reads events.
    pub probes: Option<Vec<Probes>>,
    /// When they were, `CLOCK_MONOTONIC`, nanoseconds.
    pub set_ns: u64,
}

/// The thread. It ends when this is dropped.
pub struct Seeker {
    requests: SyncSender<Request>,
    answers: Receiver<Answer>,
}

impl Seeker {
    /// Starts it.
    pub fn start(prober: Prober, way: Way) -> Result<Self> {
        // A process asks once at a time, and there are never more of them than heaps: nobody waits for a channel.
        let (requests, asked) = sync_channel::<Request>(MAX_HEAPS as usize);
        let (answer, answers) = sync_channel(MAX_HEAPS as usize);
        let mut memory = Memory { way, prober, files: HashMap::new(), probes: HashMap::new() };
        let work = move || {
            for request in asked {
                let pid = request.pid;
                if answer.send(Answer { pid, result: memory.look(request) }).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("seeker".into()).spawn(work).context("cannot start a thread")?;
        Ok(Self { requests, answers })
    }

    /// Asks it; false if it has to be asked later.
    pub fn ask(&self, request: Request) -> bool {
        !matches!(self.requests.try_send(request), Err(TrySendError::Full(_)))
    }

    /// What it has done since the last call, one at a time.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

struct Memory {
    way: Way,
    prober: Prober,
    /// By file. A file that was found in two ways is one.
    files: HashMap<Identity, Arc<Found>>,
    /// By the addresses of those files that have something: processes mostly have the same allocators.
    probes: HashMap<Vec<usize>, (Allocators, Vec<Wanted>)>,
}

impl Memory {
    fn look(&mut self, request: Request) -> Result<Set> {
        let Request { pid, number, files, known } = request;
        ensure!(exists(pid), "pid {pid} has ended");
        let mut found: Vec<Arc<Found>> = files.iter().map(|file| self.found(pid, file)).collect();
        let mut seen = HashSet::new();
        found.retain(|found| !found.is_empty() && seen.insert(Arc::as_ptr(found)));
        let (now, mut wanted) = self.allocators(pid, &found)?;
        wanted.iter_mut().for_each(|probe| probe.number |= number << takes::BITS);
        let same = known.as_ref().filter(|(before, _)| before.tier() == now.tier());
        let is_other_tier = known.is_some() && same.is_none();
        let mut allocators = now;
        if let Some((before, probes)) = same {
            let is_same = |one: &Wanted, other: &Wanted| {
                (one.offset, one.role, &one.file) == (other.offset, other.role, &other.file)
            };
            wanted.retain(|new| !probes.iter().any(|probe| is_same(new, probe)));
            allocators = allocators.join(before);
        }
        let probes = if wanted.is_empty() { Some(Vec::new()) } else { self.prober.set(pid, &wanted)? };
        let set_ns = monotonic_ns();
        tracing::debug!(pid, probes = wanted.len(), ?wanted, "sampling allocations");
        Ok(Set { allocators: Arc::new(allocators), is_other_tier, wanted, probes, set_ns })
    }

    /// The allocators that a process has with these, and their probes, those of heap number 0.
    fn allocators(&mut self, pid: u32, found: &[Arc<Found>]) -> Result<(Allocators, Vec<Wanted>)> {
        let key: Vec<usize> = found.iter().map(|found| Arc::as_ptr(found).addr()).collect();
        if let Some(known) = self.probes.get(&key) {
            return Ok(known.clone());
        }
        let Way { cheapest, live } = self.way;
        let found = found.iter().map(|found| &**found);
        let found = if cheapest { Allocators::cheapest(found, pid, live)? } else { Allocators::of(found, pid, live)? };
        let number = |layout: &_| {
            let number = self.prober.layout(layout);
            number.inspect_err(|error| tracing::warn!("a tracepoint is left out: {error:#}")).ok()
        };
        let mut wanted = found.probes(0, live);
        wanted.extend(found.published(0, number));
        self.probes.insert(key, (found.clone(), wanted.clone()));
        Ok((found, wanted))
    }

    fn found(&mut self, pid: u32, file: &Arc<Module>) -> Arc<Found> {
        let Some(key) = file.identity() else { return Arc::default() };
        if let Some(found) = self.files.get(&key) {
            return found.clone();
        }
        // Debug files are installed beside the program, which may be in a container, or on the host.
        let roots = [folder(pid).join("root"), PathBuf::from("/")];
        let found = Arc::new(Found::look(file, roots));
        if self.files.len() >= MAX_FILES {
            self.files.clear();
            self.probes.clear();
        }
        self.files.insert(key, found.clone());
        found
    }
}
