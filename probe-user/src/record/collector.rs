//! `Collector`: the thread that owns the kernel programs and the flight recorder. Everybody else asks it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, eventfd};

use super::dump::{self, Dump};
use super::recorder::{Recorder, Retention};
use super::recording::{Events, Kind, Recording};
use super::unwinding::Unwinding;
use crate::kernel::{self, Clock, Event, OpenWait, RawStack, RawThread, Sampler, StackId, WaitFilter, Whom};
use crate::target::{ThreadState, monotonic_ns};

/// Samples and new mappings are read this often; process events wake the thread at once. The code of a library that is
/// loaded is to be unwound within 100 ms, of which its table takes some 20.
const READ_INTERVAL: Duration = Duration::from_millis(50);
/// And this often while unwind tables are on their way.
const BUSY_INTERVAL: Duration = Duration::from_millis(2);
const SECOND_NS: u64 = 1_000_000_000;
/// The recorder is trimmed this often.
const TRIM_NS: u64 = SECOND_NS;
/// A sample this near to a dump is as good as one at the same moment.
const NEAR_NS: u64 = 20_000_000;
/// Requests that may wait: callers wait for their answer, so there are never more than callers.
const REQUESTS: usize = 16;
/// Process events that may wait for a slow listener: a fork storm of 4,096 processes between two looks.
const LIFECYCLE_EVENTS: usize = 4096;

/// What to collect.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the kernel programs do.
    pub kernel: kernel::Options,
    /// What is recorded.
    pub events: Events,
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
    /// Readable when there is a request.
    alarm: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    clock: Option<Clock>,
}

type Request = Box<dyn FnOnce(&mut State) + Send>;

struct State {
    alarm: Arc<OwnedFd>,
    sampler: Sampler,
    recorder: Recorder,
    clock: Option<Clock>,
    events: Events,
    frequency: u64,
    waits: WaitFilter,
    user_stacks: bool,
    kernel_stacks: bool,
    lifecycle: Option<SyncSender<Lifecycle>>,
    lifecycle_lost: u64,
    /// Losses that the recorder was told of.
    told: BTreeMap<String, u64>,
    unwinding: Unwinding,
    /// Processes with a table on its way.
    incomplete: HashSet<u32>,
    /// Times that mappings were too many for the kernel's table.
    unmapped: u64,
}

impl Collector {
    /// Loads the programs and begins. Nothing is sampled before [`Self::watch`], unless all processes are.
    pub fn start(options: &Options) -> Result<Self> {
        let mut sampler = Sampler::load(&options.kernel)?;
        let frequency = options.kernel.frequency;
        let clock = if options.events.cpu { Some(sampler.start(frequency)?) } else { None };
        let mut recorder = Recorder::new(options.retention, monotonic_ns());
        if options.kernel.all {
            recorder.follow_strangers();
        }
        let unwinding = Unwinding::start(sampler.unwind_tables(), options.unwind_memory)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot make an eventfd")?;
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
            lifecycle: None,
            lifecycle_lost: 0,
            told: BTreeMap::new(),
            unwinding,
            incomplete: HashSet::new(),
            unmapped: 0,
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

    /// Waits until the unwind tables of all watched processes are in the kernel, or none has come for as long as the limit:
    /// a busy machine may take its time for each.
    pub fn wait_for_tables(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        let (mut progress, mut missing) = (begin, usize::MAX);
        loop {
            let (pending, incomplete, tables, bytes) = self.ask(|state| {
                let unwinding = &state.unwinding;
                (unwinding.pending(), state.incomplete.len(), unwinding.tables(), unwinding.bytes())
            })?;
            let waited_ms = begin.elapsed().as_millis() as u64;
            if pending == 0 && incomplete == 0 {
                tracing::debug!(tables, bytes, waited_ms, "the unwind tables are complete");
                return Ok(());
            }
            if pending < missing {
                (progress, missing) = (Instant::now(), pending);
            }
            if progress.elapsed() >= limit {
                tracing::warn!(pending, waited_ms, "unwind tables are late: stacks are cut until they are there");
                return Ok(());
            }
            std::thread::sleep(BUSY_INTERVAL);
        }
    }

    /// Follows from now on where the threads of all watched processes wait. Those that wait already are taken to have begun
    /// now. `wakers` also asks who wakes them. Says since when.
    pub fn start_waits(&self, wakers: bool) -> Result<u64> {
        self.ask(move |state| {
            state.sampler.start_waits(wakers)?;
            let now_ns = monotonic_ns();
            for thread in state.sampler.dump(Whom::Targets, true)? {
                let RawThread { pid, tid, comm, state: thread_state, state_bits, user_stack, kernel_stack, .. } =
                    thread;
                if matches!(thread_state, ThreadState::Running | ThreadState::Dead) {
                    continue;
                }
                let mut keep = |stack: Option<RawStack>, is_wanted: bool| {
                    let Some(stack) = stack.filter(|_| is_wanted) else { return StackId::NONE };
                    let id = stack.id;
                    state.recorder.handle(Event::Stack(stack), now_ns);
                    id
                };
                let user_stack = keep(user_stack, state.user_stacks);
                let kernel_stack = keep(kernel_stack, state.kernel_stacks);
                let wait = OpenWait { pid, tid, since_ns: now_ns, state: state_bits, user_stack, kernel_stack, comm };
                state.sampler.insert_wait(&wait)?;
            }
            Ok(now_ns)
        })?
    }

    /// Ends following waits, and says when that was. Those that have not ended are recorded as far as they have come.
    pub fn stop_waits(&self) -> Result<u64> {
        self.ask(|state| {
            let now_ns = monotonic_ns();
            let (ended, open) = state.sampler.stop_waits()?;
            let stopped_ns = monotonic_ns();
            state.read(Duration::ZERO)?;
            let threads = state.sampler.dump(Whom::Targets, false)?;
            let running = threads.iter().filter(|thread| thread.state == ThreadState::Running);
            let running: HashSet<u32> = running.map(|thread| thread.tid).collect();
            let open = open.iter().filter(|wait| !running.contains(&wait.tid)).map(|wait| wait.until(now_ns));
            let open = open.filter(|wait| state.waits.admits(wait.total_ns));
            for wait in ended.into_iter().chain(open) {
                state.recorder.handle(Event::Wait(wait), now_ns);
            }
            Ok(stopped_ns)
        })?
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
            recording.kind = Kind::Events(state.events);
            if let Some(clock) = state.clock {
                recording.clock = clock.name();
                recording.frequency = state.frequency;
            }
            Ok(recording)
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
            std::thread::sleep(BUSY_INTERVAL);
        }
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

impl State {
    /// Until nobody can ask any more.
    fn run(&mut self, inbox: &Receiver<Request>) {
        let mut trimmed_ns = monotonic_ns();
        loop {
            // Silence first: what is asked from here on rings again.
            let _ = rustix::io::read(&*self.alarm, &mut [0; 8]);
            loop {
                match inbox.try_recv() {
                    Ok(request) => request(self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let busy = self.unwinding.pending() > 0;
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
                let mut has_forgotten = false;
                recorder.trim(now, |id| {
                    sampler.forget_stack(id);
                    has_forgotten = true;
                });
                if has_forgotten && let Err(error) = sampler.unwind_again() {
                    tracing::error!(error = format!("{error:#}"), "some stacks may be lost");
                }
                self.unwinding.sweep();
            }
        }
    }

    fn read(&mut self, timeout: Duration) -> Result<()> {
        let Self { sampler, recorder, lifecycle, lifecycle_lost, alarm, .. } = self;
        sampler
            .read(timeout, alarm.as_fd(), |event| {
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

    fn dump(&mut self, pid: u32) -> Result<(u64, Vec<(RawThread, dump::Stacks)>)> {
        // New code is to be known before its addresses are looked up.
        self.read(Duration::ZERO)?;
        let threads = self.sampler.dump(Whom::Process(pid), true)?;
        let now_ns = monotonic_ns();
        Ok((now_ns, dump::locate(threads, |stack| self.recorder.locate(stack, now_ns)).collect()))
    }

    /// Gives the threads that ran the stacks of a sample near `now_ns`; at the end of patience of any in the second before.
    fn add_running(
        &mut self,
        mut threads: Vec<(RawThread, dump::Stacks)>,
        missing: &HashSet<u32>,
        now_ns: u64,
        is_last: bool,
    ) -> Result<Vec<(RawThread, dump::Stacks)>> {
        self.read(Duration::ZERO)?;
        let age = if is_last { SECOND_NS } else { NEAR_NS };
        for (thread, stacks) in threads.iter_mut().filter(|(thread, _)| missing.contains(&thread.tid)) {
            if let Some((_, found)) = self.recorder.latest(thread.tid, now_ns.saturating_sub(age)) {
                *stacks = found;
            }
        }
        Ok(threads)
    }

    /// Tells the kernel what processes have mapped, and by which tables it is unwound.
    fn sync_unwinding(&mut self) -> Result<()> {
        let Self { sampler, recorder, unwinding, incomplete, unmapped, .. } = self;
        let built = if unwinding.take_built() { std::mem::take(incomplete) } else { HashSet::new() };
        recorder.mark_changed(built.iter().copied());
        let changed = recorder.take_changed();
        let has_changed = !changed.is_empty();
        for (pid, mappings) in changed {
            incomplete.remove(&pid);
            let Some(mappings) = mappings else {
                sampler.mapping_table().remove_mappings(pid);
                continue;
            };
            let (ranges, complete) = unwinding.ranges(mappings);
            if !complete {
                incomplete.insert(pid);
            }
            // What does not fit is unwound by frame pointer; the others need theirs nevertheless.
            match sampler.mapping_table().set_mappings(pid, &ranges) {
                Ok(left_out) => *unmapped += left_out as u64,
                Err(error) => {
                    tracing::debug!(pid, error = format!("{error:#}"), "the kernel is not told what is mapped");
                    *unmapped += 1;
                }
            }
        }
        for pid in built {
            recorder.tables_came(pid, |id| sampler.forget_stack(id));
        }
        if has_changed {
            sampler.unwind_again()?;
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
        if self.unmapped > 0 {
            losses.insert("mappings without unwind table: too many of them".into(), self.unmapped);
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
        Event::Sample(_) | Event::Wait(_) | Event::Stack(_) | Event::NewImage { .. } | Event::Map { .. } => None,
    }
}
