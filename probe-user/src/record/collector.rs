//! `Collector`: the thread that owns the kernel programs and the flight recorder. Everybody else asks it.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::recorder::{Recorder, Retention};
use super::recording::Recording;
use super::unwinding::Unwinding;
use crate::kernel::{self, Clock, Event, Sampler};
use crate::target::monotonic_ns;

/// Samples are read this often; process events wake the thread at once.
const READ_INTERVAL: Duration = Duration::from_millis(100);
/// And this often while unwind tables are on their way.
const BUSY_INTERVAL: Duration = Duration::from_millis(2);
/// The recorder is trimmed this often.
const TRIM_NS: u64 = 1_000_000_000;
/// Requests that may wait: callers wait for their answer, so there are never more than callers.
const REQUESTS: usize = 16;
/// Process events that may wait for a slow listener: a fork storm of 4,096 processes between two looks.
const LIFECYCLE_EVENTS: usize = 4096;

/// What to collect.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the kernel programs do.
    pub kernel: kernel::Options,
    /// How much is kept.
    pub retention: Retention,
    /// Bound on the unwind tables in the kernel, in bytes.
    pub unwind_memory: usize,
}

/// A process came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It replaced its program.
    Exec {
        /// Process.
        pid: u32,
    },
    /// It was created.
    Fork {
        /// Process that forked.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// It ended.
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
    thread: Option<JoinHandle<()>>,
    clock: Clock,
}

type Request = Box<dyn FnOnce(&mut State) + Send>;

struct State {
    sampler: Sampler,
    recorder: Recorder,
    clock: Clock,
    frequency: u64,
    lifecycle: Option<SyncSender<Lifecycle>>,
    lifecycle_lost: u64,
    /// Losses that the recorder was told of.
    told: BTreeMap<String, u64>,
    unwinding: Unwinding,
    /// Processes with a table on its way.
    incomplete: HashSet<u32>,
}

impl Collector {
    /// Loads the programs and begins. Nothing is sampled before [`Self::watch`], unless all processes are.
    pub fn start(options: &Options) -> Result<Self> {
        let mut sampler = Sampler::load(&options.kernel)?;
        let frequency = options.kernel.frequency;
        let clock = sampler.start(frequency)?;
        let mut recorder = Recorder::new(options.retention, monotonic_ns());
        if options.kernel.all {
            recorder.follow_strangers();
        }
        let unwinding = Unwinding::start(sampler.unwind_tables(), options.unwind_memory)?;
        let mut state = State {
            sampler,
            recorder,
            clock,
            frequency,
            lifecycle: None,
            lifecycle_lost: 0,
            told: BTreeMap::new(),
            unwinding,
            incomplete: HashSet::new(),
        };
        let (requests, inbox) = sync_channel(REQUESTS);
        let thread = std::thread::Builder::new().name("collector".into()).spawn(move || state.run(&inbox))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), clock })
    }

    /// What makes the samples.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Samples a process from now on. `service` names it in profiles instead of its command name; `flags` are
    /// [`kernel::target_flags`].
    pub fn watch(&self, pid: u32, service: Option<String>, flags: u32) -> Result<()> {
        self.ask(move |state| {
            // Mappings are read when the kernel already reports changes, so that none is missed in between.
            state.sampler.watch(pid, flags)?;
            state.recorder.watch(pid, service);
            state.sync_unwinding()
        })?
    }

    /// From now on the children of a process are sampled from their exec on, but not the process itself.
    pub fn spawner(&self, pid: u32) -> Result<()> {
        self.ask(move |state| {
            state.recorder.follow_strangers();
            state.sampler.watch(pid, kernel::target_flags::SPAWNER)
        })?
    }

    /// Waits until the unwind tables of all watched processes are in the kernel, or the limit is over.
    pub fn wait_for_tables(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let (busy, tables, bytes) = self.ask(|state| {
                let busy = state.unwinding.is_busy() || !state.incomplete.is_empty();
                (busy, state.unwinding.tables(), state.unwinding.bytes())
            })?;
            let waited_ms = begin.elapsed().as_millis() as u64;
            if !busy {
                tracing::debug!(tables, bytes, waited_ms, "the unwind tables are complete");
                return Ok(());
            }
            if begin.elapsed() >= limit {
                tracing::debug!(
                    tables,
                    bytes,
                    waited_ms,
                    "the unwind tables are not complete, sampling begins without"
                );
                return Ok(());
            }
            std::thread::sleep(BUSY_INTERVAL);
        }
    }

    /// Lets a process go. What was recorded of it stays until it is too old.
    pub fn unwatch(&self, pid: u32) -> Result<()> {
        self.ask(move |state| {
            state.sampler.unwatch(pid);
            state.recorder.unwatch(pid);
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
            recording.clock = state.clock.name();
            recording.frequency = state.frequency;
            Ok(recording)
        })?
    }

    /// Figures about the collector itself.
    pub fn stats(&self) -> Result<Stats> {
        self.ask(|state| {
            let (samples, _) = state.sampler.counters()?;
            Ok(Stats {
                samples,
                losses: state.losses()?,
                bytes: state.recorder.bytes(),
                table_bytes: state.unwinding.bytes(),
            })
        })?
    }

    fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut State) -> T + Send + 'static) -> Result<T> {
        let (answer, inbox) = sync_channel(1);
        let request: Request = Box::new(move |state| drop(answer.send(question(state))));
        let stopped = || anyhow!("the collector has stopped");
        self.requests.as_ref().ok_or_else(stopped)?.send(request).map_err(|_| stopped())?;
        inbox.recv().map_err(|_| stopped())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    /// Until nobody can ask any more.
    fn run(&mut self, inbox: &Receiver<Request>) {
        let mut trimmed_ns = monotonic_ns();
        loop {
            loop {
                match inbox.try_recv() {
                    Ok(request) => request(self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let busy = self.unwinding.is_busy();
            if let Err(error) = self.read(if busy { BUSY_INTERVAL } else { READ_INTERVAL }) {
                tracing::error!(error = format!("{error:#}"), "the events of the kernel cannot be read");
                // Not a busy loop, should it persist.
                match inbox.recv_timeout(READ_INTERVAL) {
                    Ok(request) => request(self),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            let now = monotonic_ns();
            if now - trimmed_ns >= TRIM_NS {
                trimmed_ns = now;
                if let Err(error) = self.tell_losses(now) {
                    tracing::error!(error = format!("{error:#}"), "the kernel's counters cannot be read");
                }
                let (recorder, sampler) = (&mut self.recorder, &mut self.sampler);
                recorder.trim(now, |id| sampler.forget_stack(id));
                self.unwinding.sweep();
            }
        }
    }

    fn read(&mut self, timeout: Duration) -> Result<()> {
        let Self { sampler, recorder, lifecycle, lifecycle_lost, .. } = self;
        sampler
            .read(timeout, |event| {
                if let (Some(listener), Some(change)) = (&lifecycle, lifecycle_of(&event)) {
                    match listener.try_send(change) {
                        Ok(()) => {}
                        Err(TrySendError::Full(_)) => *lifecycle_lost += 1,
                        Err(TrySendError::Disconnected(_)) => *lifecycle = None,
                    }
                }
                recorder.handle(event, monotonic_ns());
            })
            .context("cannot read the ring buffer")?;
        self.sync_unwinding()
    }

    /// Tells the kernel what processes have mapped, and by which tables it is unwound.
    fn sync_unwinding(&mut self) -> Result<()> {
        let Self { sampler, recorder, unwinding, incomplete, .. } = self;
        if unwinding.take_built() {
            recorder.mark_changed(incomplete.drain());
        }
        for (pid, mappings) in recorder.take_changed() {
            incomplete.remove(&pid);
            let Some(mappings) = mappings else {
                sampler.mapping_table().remove_mappings(pid);
                continue;
            };
            let (ranges, complete) = unwinding.ranges(mappings);
            if !complete {
                incomplete.insert(pid);
            }
            sampler.mapping_table().set_mappings(pid, &ranges)?;
        }
        Ok(())
    }

    /// Gives what was lost since the last call to the present window.
    fn tell_losses(&mut self, now_ns: u64) -> Result<()> {
        let losses = self.losses()?;
        let new = losses.iter().map(|(reason, total)| (reason.clone(), total - self.told.get(reason).unwrap_or(&0)));
        self.recorder.lose(now_ns, new.filter(|(_, count)| *count > 0));
        self.told = losses;
        Ok(())
    }

    fn losses(&self) -> Result<BTreeMap<String, u64>> {
        let (_, losses) = self.sampler.counters()?;
        let mut losses: BTreeMap<String, u64> = losses.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        if self.unwinding.refused() > 0 {
            losses.insert("executables without unwind table: memory bound".into(), self.unwinding.refused());
        }
        if self.lifecycle_lost > 0 {
            losses.insert("process events lost: listener too slow".into(), self.lifecycle_lost);
        }
        Ok(losses)
    }
}

fn lifecycle_of(event: &Event) -> Option<Lifecycle> {
    match *event {
        Event::Exec { pid, .. } => Some(Lifecycle::Exec { pid }),
        Event::Fork { parent, child } => Some(Lifecycle::Fork { parent, child }),
        Event::Exit { pid } => Some(Lifecycle::Exit { pid }),
        Event::Sample(_) | Event::Stack(_) | Event::NewImage { .. } | Event::Map { .. } => None,
    }
}
