//! `Collector`: the thread that owns the kernel programs and the flight recorder. Everybody else asks it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, eventfd};

use super::dump::{self, Dump};
use super::follow::Follows;
use super::heap::Heaps;
use super::recorder::{Recorded, Recorder, Retention};
use super::recording::{Events, Kind, Recording};
use super::state::State;
use super::unwinding::Unwinding;
use crate::kernel::{self, Clock, Newcomer, RawThread, Sampler, Whom};
use crate::target::{ThreadState, monotonic_ns};

/// How often it is looked whether tables or samples have come that somebody waits for.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Requests that may wait: callers wait for their answer, so there are never more than callers.
const REQUESTS: usize = 16;
/// Process events that may wait for a slow listener.
const LIFECYCLE_EVENTS: usize = 4096;

/// What to collect.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the kernel programs do.
    pub kernel: kernel::Options,
    /// What is recorded.
    pub events: Events,
    /// With page faults: also what is mapped and unmapped.
    pub mappings: bool,
    /// How much is kept.
    pub retention: Retention,
    /// Bound on the unwind tables in the kernel, in bytes.
    pub unwind_memory: usize,
}

/// A process came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// One that is watched replaced its program.
    Exec {
        /// Process.
        pid: u32,
    },
    /// One that is watched with its children has made one.
    Fork {
        /// Process that forked.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// It may be one that is to be watched. Where too many come, those that have stayed for some time.
    Newcomer(Newcomer),
    /// It is sampled no more, because it replaced its program too often. It is a newcomer again.
    SetAside {
        /// Process.
        pid: u32,
    },
    /// One that is watched ended.
    Exit {
        /// Process.
        pid: u32,
    },
}

/// Figures about the collector itself.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Samples taken since start.
    pub samples: u64,
    /// Waits that were recorded since start.
    pub waits: u64,
    /// Changes of memory that were recorded since start: pages that became resident, mappings.
    pub memory_changes: u64,
    /// Sampled allocations that were recorded since start.
    pub allocations: u64,
    /// Losses since start, by reason.
    pub losses: BTreeMap<String, u64>,
    /// Bytes in the flight recorder.
    pub bytes: usize,
    /// Bytes of unwind tables in the kernel.
    pub table_bytes: usize,
}

/// A running collector. Dropping it detaches the programs.
pub struct Collector {
    requests: Option<SyncSender<Request>>,
    /// Readable when there is a request.
    alarm: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    clock: Option<Clock>,
}

/// What somebody wants of the thread.
pub(super) type Request = Box<dyn FnOnce(&mut State) + Send>;

impl Collector {
    /// Loads the programs and begins. Nothing is sampled before [`Self::watch`], unless all processes are.
    pub fn start(options: &Options) -> Result<Self> {
        let mut sampler = Sampler::load(&options.kernel)?;
        let frequency = options.kernel.frequency;
        let clock = if options.events.cpu { Some(sampler.start(frequency)?) } else { None };
        if options.events.page_fault {
            sampler.start_memory(options.mappings)?;
        }
        let mut recorder = Recorder::new(options.retention, monotonic_ns());
        if options.kernel.all {
            recorder.processes.follow_strangers();
        }
        let unwinding = Unwinding::start(sampler.unwind_tables(), options.unwind_memory)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot create an eventfd")?;
        let alarm = Arc::new(alarm);
        let mut state = State {
            alarm: alarm.clone(),
            sampler,
            recorder,
            clock,
            events: options.events,
            frequency,
            waits: options.kernel.waits,
            user_stacks: options.kernel.user_stacks,
            kernel_stacks: options.kernel.kernel_stacks,
            heap: options.kernel.heap,
            newcomers: options.kernel.newcomers,
            newcomers_taken_ns: 0,
            is_lively: false,
            mappings_lost: 0,
            lifecycle: None,
            lifecycle_lost: 0,
            told: BTreeMap::new(),
            unwinding,
            incomplete: HashSet::new(),
            unmapped: 0,
            unfollowed: 0,
            heaps: Heaps::default(),
            follows: Follows::default(),
        };
        let (requests, inbox) = sync_channel(REQUESTS);
        let thread = std::thread::Builder::new().name("collector".into()).spawn(move || state.run(&inbox))?;
        Ok(Self { requests: Some(requests), alarm, thread: Some(thread), clock })
    }

    /// What makes the samples, if there are any.
    pub fn clock(&self) -> Option<Clock> {
        self.clock
    }

    /// Samples a process from now on. `service` names it in profiles instead of its command name; `flags` are
    /// [`kernel::target_flags`].
    pub fn watch(&self, pid: u32, service: Option<String>, flags: u32) -> Result<()> {
        self.ask(move |state| {
            // Mappings are read when the kernel already reports changes, so that none is missed in between.
            state.sampler.watch(pid, flags)?;
            state.recorder.processes.watch(pid, service);
            state.sync_unwinding()
        })?
    }

    /// Samples a process that is watched at the fast rate from now on, or at the usual one again.
    pub fn set_fast(&self, pid: u32, is_fast: bool) -> Result<()> {
        self.ask(move |state| {
            // The stacks that are on their way belong to the samples before.
            state.read(Duration::ZERO)?;
            state.sampler.set_fast(pid, is_fast)
        })?
    }

    /// Follows the waits of a process that is watched from now on as these [`kernel::target_flags`] say.
    pub fn set_waits(&self, pid: u32, flags: u32) -> Result<()> {
        self.ask(move |state| state.set_waits(pid, flags))?
    }

    /// From now on the children of a process are sampled from their exec on, but not the process itself.
    pub fn spawner(&self, pid: u32) -> Result<()> {
        self.ask(move |state| {
            state.recorder.processes.follow_strangers();
            state.sampler.watch(pid, kernel::target_flags::SPAWNER)
        })?
    }

    /// Waits until the unwind tables of all watched processes are in the kernel, or none has come for as long as the limit:
    /// a busy machine may take its time for each. Rows that take long to derive are waited for no longer than the limit.
    pub fn wait_for_tables(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        let (mut progress, mut missing) = (begin, usize::MAX);
        loop {
            let (pending, improving, incomplete, tables, bytes) = self.ask(|state| {
                let unwinding = &state.unwinding;
                let (pending, improving) = (unwinding.pending(), unwinding.improving());
                (pending, improving, state.incomplete.len(), unwinding.tables(), unwinding.bytes())
            })?;
            let waited_ms = begin.elapsed().as_millis() as u64;
            if pending == 0 && incomplete == 0 && (improving == 0 || begin.elapsed() >= limit) {
                tracing::debug!(tables, improving, bytes, waited_ms, "the unwind tables are complete");
                return Ok(());
            }
            if pending < missing {
                (progress, missing) = (Instant::now(), pending);
            }
            if progress.elapsed() >= limit {
                tracing::warn!(pending, waited_ms, "unwind tables are late: stacks are cut until they are there");
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Follows from now on where the threads of all watched processes wait. Those that wait already are taken to have begun
    /// now. `wakers` also asks who wakes them. Says since when.
    pub fn start_waits(&self, wakers: bool) -> Result<u64> {
        self.ask(move |state| state.start_waits(wakers))?
    }

    /// Ends following waits, and says when that was. Those that have not ended are recorded as far as they have come.
    pub fn stop_waits(&self) -> Result<u64> {
        self.ask(State::stop_waits)?
    }

    /// Samples `frequency` times a second and CPU, those of [`Self::set_fast`] `fast_frequency` times, and keeps at most
    /// `memory` bytes, from now on.
    pub fn pace(&self, frequency: u32, fast_frequency: u32, memory: usize) -> Result<()> {
        self.ask(move |state| state.pace(frequency.into(), fast_frequency.into(), memory))?
    }

    /// Lets a process go. What was recorded of it stays until it is too old.
    pub fn unwatch(&self, pid: u32) -> Result<()> {
        self.ask(move |state| {
            state.sampler.unwatch(pid);
            state.recorder.processes.release(pid);
        })
    }

    /// Processes that come and go, from now on. One listener at a time; a slow one misses events, which are counted.
    pub fn lifecycle(&self) -> Result<Receiver<Lifecycle>> {
        let (sender, receiver) = sync_channel(LIFECYCLE_EVENTS);
        self.ask(move |state| state.lifecycle = Some(sender))?;
        Ok(receiver)
    }

    /// What was seen of these processes (of all, with an empty list) from one monotonic time to another.
    pub fn extract(&self, pids: &[u32], from_ns: u64, to_ns: u64) -> Result<Recording> {
        let pids = pids.to_vec();
        self.ask(move |state| {
            // What is still in the buffer belongs to the past, too.
            state.read(Duration::ZERO)?;
            state.tell_losses(monotonic_ns())?;
            let mut recording = state.recorder.extract(&pids, from_ns, to_ns);
            state.add_open_waits(&pids, &mut recording)?;
            recording.kind = Kind::Events(state.events);
            if let Some(clock) = state.clock {
                recording.clock = clock.name();
                recording.frequency = state.frequency;
            }
            if state.events.malloc {
                state.recorder.add_allocations(&mut recording, &pids);
                state.heaps.report(&mut state.recorder, &mut recording);
            }
            Ok(recording)
        })?
    }

    /// The processes of which something was seen since the last call: they were at work, waited or took memory.
    pub fn active(&self) -> Result<BTreeSet<u32>> {
        self.ask(|state| {
            state.read(Duration::ZERO)?;
            Ok(state.recorder.processes.take_active())
        })?
    }

    /// CPU time that each thread of a process has used in its life, in nanoseconds.
    pub fn cpu_times(&self, pid: u32) -> Result<HashMap<u32, u64>> {
        self.ask(move |state| {
            let threads = state.sampler.dump(Whom::Process(pid), false)?;
            Ok(threads.into_iter().map(|thread| (thread.tid, thread.cpu_ns)).collect())
        })?
    }

    /// Every thread of a process now. The stacks of those that run are of their latest sample: one that was taken a moment
    /// before, or else the next, for which it waits up to `patience`.
    pub fn dump(&self, pid: u32, patience: Duration) -> Result<Dump> {
        let deadline = Instant::now() + patience;
        let (now_ns, mut threads) = self.ask(move |state| state.dump(pid))??;
        loop {
            let is_missing = |(thread, stacks): &&(RawThread, dump::Stacks)| {
                thread.state == ThreadState::Running && stacks.user.is_none() && stacks.kernel.is_none()
            };
            let missing: HashSet<u32> = threads.iter().filter(is_missing).map(|(thread, _)| thread.tid).collect();
            let is_over = missing.is_empty() || Instant::now() >= deadline;
            threads = self.ask(move |state| state.add_running(threads, &missing, now_ns, is_over))??;
            if is_over {
                return self.ask(move |state| dump::assemble(pid, threads, &state.recorder, now_ns));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Lends the kernel programs out: nothing is recorded until they are back.
    pub fn with_kernel<T: Send + 'static>(&self, borrow: impl FnOnce(&mut Sampler) -> T + Send + 'static) -> Result<T> {
        self.ask(move |state| borrow(&mut state.sampler))
    }

    /// Counts something of a process as lost now. There must not be ever new reasons: they are kept.
    pub fn lose(&self, pid: u32, reason: String, count: u64) -> Result<()> {
        self.ask(move |state| state.recorder.lose_of(pid, monotonic_ns(), reason, count))
    }

    /// Figures about the collector itself.
    pub fn stats(&self) -> Result<Stats> {
        self.ask(|state| {
            let (samples, _) = state.sampler.counters()?;
            let Recorded { waits, memory_changes, allocations } = state.recorder.recorded();
            Ok(Stats {
                samples,
                waits,
                memory_changes,
                allocations,
                losses: state.losses()?,
                bytes: state.recorder.bytes(),
                table_bytes: state.unwinding.bytes(),
            })
        })?
    }

    pub(super) fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut State) -> T + Send + 'static) -> Result<T> {
        let (answer, inbox) = sync_channel(1);
        let request: Request = Box::new(move |state| drop(answer.send(question(state))));
        let stopped = || anyhow!("the collector has stopped");
        self.requests.as_ref().ok_or_else(stopped)?.send(request).map_err(|_| stopped())?;
        self.ring();
        inbox.recv().map_err(|_| stopped())
    }
}

impl Collector {
    /// Has the thread look for requests. That the counter is full means that it rings already.
    fn ring(&self) {
        let _ = rustix::io::write(&*self.alarm, &1u64.to_ne_bytes());
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.requests = None;
        self.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
