//! `State`: what the collector's thread does: it reads events into the recorder, keeps the kernel's unwind tables current,
//! follows waits and takes dumps.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::collector::{Lifecycle, Request};
use super::dump;
use super::follow::Follows;
use super::heap::{self, Heaps};
use super::recorder::Recorder;
use super::recording::{Events, Recording};
use super::unwinding::Unwinding;
use probe_ebpf::abi::MAX_DELAY_NS;

use crate::kernel::{Clock, Event, HeapOptions, OpenWait, RawStack, RawThread, Sampler, StackId, WaitFilter, Whom};
use crate::supervise::Pulse;
use crate::target::{ThreadState, monotonic_ns};

/// Samples and new mappings are read this often; process events wake the thread at once. The code of a library that is
/// loaded is to be unwound within 100 ms, of which its table takes some 20.
const READ_INTERVAL: Duration = Duration::from_millis(50);
/// And this often while unwind tables are on their way.
const BUSY_INTERVAL: Duration = Duration::from_millis(2);
/// A round of reading takes milliseconds, and an answer to a request seconds.
const DEADLINE: Duration = Duration::from_secs(30);
const SECOND_NS: u64 = 1_000_000_000;
/// Where processes come all the time, the kernel does not wake the reader for each.
const MAX_DELAY: Duration = Duration::from_nanos(MAX_DELAY_NS);
/// The recorder is trimmed this often.
const TRIM_NS: u64 = SECOND_NS;
/// Whoever is there for so long is looked at: most programs that are started again and again end sooner.
const STAY: Duration = Duration::from_millis(30);
/// A sample this near to a dump is as good as one at the same moment.
const NEAR_NS: u64 = 20_000_000;

/// What the thread has; the rest of the world asks it.
pub(super) struct State {
    pub(super) alarm: Arc<OwnedFd>,
    pub(super) sampler: Sampler,
    pub(super) recorder: Recorder,
    pub(super) clock: Option<Clock>,
    pub(super) events: Events,
    pub(super) frequency: u64,
    pub(super) waits: WaitFilter,
    pub(super) user_stacks: bool,
    pub(super) kernel_stacks: bool,
    pub(super) heap: HeapOptions,
    /// Processes have come since it was asked last, and others may have that nobody was woken for.
    pub(super) is_lively: bool,
    /// Whether the kernel keeps newcomers, and when they were asked for.
    pub(super) newcomers: bool,
    pub(super) newcomers_taken_ns: u64,
    /// Mappings that the kernel could not tell of, until the last look.
    pub(super) mappings_lost: u64,
    pub(super) lifecycle: Option<SyncSender<Lifecycle>>,
    pub(super) lifecycle_lost: u64,
    /// Losses that the recorder was told of.
    pub(super) told: BTreeMap<String, u64>,
    pub(super) unwinding: Unwinding,
    /// Processes with a table on its way.
    pub(super) incomplete: HashSet<u32>,
    /// Times that mappings were too many for the kernel's table.
    pub(super) unmapped: u64,
    /// Processes whose allocations are sampled.
    pub(super) heaps: Heaps,
    /// Processes whose allocations are followed, each for a time of its own.
    pub(super) follows: Follows,
    /// Waits that had begun before and were too many for the kernel's table.
    pub(super) unfollowed: u64,
}

impl State {
    /// Until nobody can ask any more.
    pub(super) fn run(&mut self, inbox: &Receiver<Request>) {
        let mut trimmed_ns = monotonic_ns();
        let pulse = Pulse::new("collector", DEADLINE);
        loop {
            let _busy = pulse.begin();
            // Silence first: what is asked from here on rings again.
            let _ = rustix::io::read(&*self.alarm, &mut [0; 8]);
            loop {
                match inbox.try_recv() {
                    Ok(request) => request(self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let interval = match self.unwinding.pending() {
                0 if self.heaps.is_empty() && self.follows.is_empty() => READ_INTERVAL,
                0 => heap::LOOK_INTERVAL,
                _ => BUSY_INTERVAL,
            };
            let interval = if std::mem::take(&mut self.is_lively) { interval.min(MAX_DELAY) } else { interval };
            if let Err(error) = self.heaps.look(&mut self.sampler) {
                tracing::error!(error = format!("{error:#}"), "the probes of allocators cannot be looked after");
            }
            self.follows.look(&mut self.sampler);
            if let Err(error) = self.read(interval) {
                tracing::error!(error = format!("{error:#}"), "the events of the kernel cannot be read");
                // Not a busy loop, should it persist.
                match inbox.recv_timeout(READ_INTERVAL) {
                    Ok(request) => request(self),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            let now = monotonic_ns();
            if let Err(error) = self.tell_newcomers(now) {
                tracing::error!(error = format!("{error:#}"), "the kernel's newcomers cannot be read");
            }
            if now - trimmed_ns >= TRIM_NS {
                trimmed_ns = now;
                if let Err(error) = self.tell_losses(now) {
                    tracing::error!(error = format!("{error:#}"), "the kernel's counters cannot be read");
                }
                // Who maps that much takes what others map along: those that are sampled are read again.
                let lost = self.sampler.mappings_lost();
                if std::mem::replace(&mut self.mappings_lost, lost) != lost {
                    self.recorder.processes.doubt_mappings();
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
                if let Err(error) = self.sampler.vary_periods(now) {
                    tracing::error!(error = format!("{error:#}"), "the sampling keeps its period");
                }
                self.unwinding.sweep();
                self.unwinding.tell_files(self.sampler.mapping_table());
                if self.unwinding.is_short() && self.unwinding.make_room(&self.recorder.module_use(), now) {
                    self.recorder.processes.mark_all_changed();
                    if let Err(error) = self.sync_unwinding() {
                        tracing::error!(error = format!("{error:#}"), "the kernel is not told of its unwind tables");
                    }
                    self.unwinding.tell_files(self.sampler.mapping_table());
                    self.unwinding.free_evicted();
                }
            }
        }
    }

    pub(super) fn read(&mut self, timeout: Duration) -> Result<()> {
        let Self { sampler, recorder, lifecycle, lifecycle_lost, alarm, heaps, is_lively, .. } = self;
        sampler
            .read(timeout, alarm.as_fd(), |event| {
                if let (Some(listener), Some(change)) = (&lifecycle, lifecycle_of(&event)) {
                    match listener.try_send(change) {
                        Ok(()) => {}
                        Err(TrySendError::Full(_)) => *lifecycle_lost += 1,
                        Err(TrySendError::Disconnected(_)) => *lifecycle = None,
                    }
                }
                *is_lively |= matches!(event, Event::Fork { .. } | Event::Exec { .. } | Event::Newcomer(_));
                heaps.note(&event);
                recorder.handle(event, monotonic_ns());
            })
            .context("cannot read the ring buffer")?;
        heaps.catch_up(sampler, recorder)?;
        self.sync_unwinding()
    }

    /// Tells of the processes that have come and stayed.
    fn tell_newcomers(&mut self, now_ns: u64) -> Result<()> {
        let Some(listener) = self.lifecycle.as_ref().filter(|_| self.newcomers) else { return Ok(()) };
        if now_ns.saturating_sub(self.newcomers_taken_ns) < STAY.as_nanos() as u64 {
            return Ok(());
        }
        self.newcomers_taken_ns = now_ns;
        for newcomer in self.sampler.take_newcomers(STAY)? {
            // Who does not fit is found when all processes are looked at.
            if listener.try_send(Lifecycle::Newcomer(newcomer)).is_err() {
                self.lifecycle_lost += 1;
            }
        }
        Ok(())
    }

    /// Samples at other rates, and keeps at most so many bytes, from now on.
    pub(super) fn pace(&mut self, frequency: u64, fast_frequency: u64, memory: usize) -> Result<()> {
        self.recorder.set_memory(memory);
        self.sampler.set_fast_frequency(fast_frequency)?;
        if frequency != self.frequency {
            self.sampler.set_frequency(frequency)?;
            self.frequency = frequency;
        }
        Ok(())
    }

    pub(super) fn start_waits(&mut self, wakers: bool) -> Result<u64> {
        self.sampler.start_waits(wakers)?;
        self.events.off_cpu = true;
        self.insert_waits(Whom::Targets)
    }

    /// Follows the waits of a process from now on as these flags say; others than those of running threads have begun now.
    pub(super) fn set_waits(&mut self, pid: u32, flags: u32) -> Result<()> {
        // The stacks that are on their way belong to the samples before.
        self.read(Duration::ZERO)?;
        // Those in the plainest of states, and all others.
        let followed = |sampler: &Sampler| [0, u32::MAX].map(|state_bits| sampler.follows_waits(pid, state_bits));
        let before = followed(&self.sampler);
        self.sampler.set_waits(pid, flags)?;
        let after = followed(&self.sampler);
        if self.events.off_cpu && after != before && after != [false; 2] {
            self.insert_waits(Whom::Process(pid))?;
        }
        Ok(())
    }

    /// Takes waits that are going on to have begun now, and says when that is.
    fn insert_waits(&mut self, whom: Whom) -> Result<u64> {
        let now_ns = monotonic_ns();
        for thread in self.sampler.dump(whom, true)? {
            let RawThread { pid, tid, comm, state: thread_state, state_bits, user_stack, kernel_stack, .. } = thread;
            if matches!(thread_state, ThreadState::Running | ThreadState::Dead)
                || !self.sampler.follows_waits(pid, state_bits)
            {
                continue;
            }
            let user_stack = self.keep(user_stack, self.user_stacks, now_ns);
            let kernel_stack = self.keep(kernel_stack, self.kernel_stacks, now_ns);
            let wait = OpenWait { pid, tid, since_ns: now_ns, state: state_bits, user_stack, kernel_stack, comm };
            // A full table costs the waits of this thread that has waited for long, not the recording.
            if let Err(error) = self.sampler.insert_wait(&wait) {
                tracing::debug!(pid, tid, error = format!("{error:#}"), "a wait is not followed");
                self.unfollowed += 1;
            }
        }
        Ok(now_ns)
    }

    pub(super) fn stop_waits(&mut self) -> Result<u64> {
        let now_ns = monotonic_ns();
        let (ended, open) = self.sampler.stop_waits()?;
        let stopped_ns = monotonic_ns();
        self.read(Duration::ZERO)?;
        let threads = self.sampler.dump(Whom::Targets, false)?;
        let running = threads.iter().filter(|thread| thread.state == ThreadState::Running);
        let running: HashSet<u32> = running.map(|thread| thread.tid).collect();
        let open = open.iter().filter(|wait| !running.contains(&wait.tid)).map(|wait| wait.until(now_ns));
        let open = open.filter(|wait| self.waits.admits(wait.total_ns));
        for wait in ended.into_iter().chain(open) {
            self.recorder.handle(Event::Wait(wait), now_ns);
        }
        Ok(stopped_ns)
    }

    /// Adds what waits have come to that have not ended. Their stacks are taken again: those that were told of when they
    /// began may be forgotten since.
    pub(super) fn add_open_waits(&mut self, pids: &[u32], recording: &mut Recording) -> Result<()> {
        let (waits, now_ns) = (self.waits, monotonic_ns());
        let is_meant = |wait: &OpenWait| pids.is_empty() || pids.contains(&wait.pid);
        let mut open: Vec<OpenWait> = self.sampler.open_waits()?.into_iter().filter(is_meant).collect();
        if !open.is_empty() {
            for &pid in pids {
                for thread in self.sampler.dump(Whom::Process(pid), true)? {
                    let RawThread { tid, user_stack, kernel_stack, .. } = thread;
                    let Some(wait) = open.iter_mut().find(|wait| wait.tid == tid) else { continue };
                    wait.user_stack = self.keep(user_stack, self.user_stacks, now_ns);
                    wait.kernel_stack = self.keep(kernel_stack, self.kernel_stacks, now_ns);
                }
            }
        }
        let open = open.into_iter().map(|wait| wait.until(now_ns)).filter(|wait| waits.admits(wait.total_ns));
        self.recorder.add_open_waits(recording, open);
        Ok(())
    }

    /// Records a stack, if it is wanted and there is one.
    fn keep(&mut self, stack: Option<RawStack>, is_wanted: bool, now_ns: u64) -> StackId {
        let Some(stack) = stack.filter(|_| is_wanted) else { return StackId::NONE };
        let id = stack.id;
        self.recorder.handle(Event::Stack(stack), now_ns);
        id
    }

    pub(super) fn dump(&mut self, pid: u32) -> Result<(u64, Vec<(RawThread, dump::Stacks)>)> {
        // New code is to be known before its addresses are looked up.
        self.read(Duration::ZERO)?;
        let threads = self.sampler.dump(Whom::Process(pid), true)?;
        let now_ns = monotonic_ns();
        Ok((now_ns, dump::locate(threads, |stack| self.recorder.processes.locate(stack, now_ns).0).collect()))
    }

    /// Gives the threads that ran the stacks of a sample near `now_ns`; at the end of patience of any in the second before.
    pub(super) fn add_running(
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
    pub(super) fn sync_unwinding(&mut self) -> Result<()> {
        let Self { sampler, recorder, unwinding, incomplete, unmapped, .. } = self;
        let mut built = if unwinding.take_built() { std::mem::take(incomplete) } else { HashSet::new() };
        let improved = unwinding.take_improved();
        if !improved.is_empty() {
            built.extend(recorder.processes.with_modules(&improved));
        }
        recorder.processes.mark_changed(built.iter().copied());
        recorder.find_homes(monotonic_ns());
        let changed = recorder.processes.take_changed();
        let has_changed = !changed.is_empty();
        let told: Vec<u32> = changed.iter().map(|(pid, ..)| *pid).collect();
        for (pid, mappings, is_watched) in changed {
            incomplete.remove(&pid);
            if !is_watched {
                sampler.mapping_table().remove_mappings(pid);
            }
            let Some(mappings) = mappings else { continue };
            // Also of one that has ended: the next one that runs the same program ends as soon.
            let (ranges, complete) = unwinding.ranges(mappings);
            if !complete {
                incomplete.insert(pid);
            }
            if !is_watched {
                continue;
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
        if has_changed || !improved.is_empty() {
            unwinding.tell_files(sampler.mapping_table());
        }
        if !improved.is_empty() {
            unwinding.free_evicted();
        }
        // What was taken until now may have been crossed by tables of what was there before.
        let now_ns = monotonic_ns();
        told.into_iter().for_each(|pid| recorder.processes.told(pid, now_ns));
        for pid in built {
            recorder.tables_came(pid, |id| sampler.forget_stack(id));
        }
        let forgotten = recorder.take_forgotten();
        let has_forgotten = !forgotten.is_empty();
        if has_forgotten {
            sampler.has_helped();
        }
        forgotten.into_iter().for_each(|id| sampler.forget_stack(id));
        if has_changed || has_forgotten {
            sampler.unwind_again()?;
        }
        Ok(())
    }

    /// Gives what was lost since the last call to the present window.
    pub(super) fn tell_losses(&mut self, now_ns: u64) -> Result<()> {
        let mut losses = self.losses()?;
        // These were given to their processes.
        for (reason, _) in self.recorder.losses_of_processes() {
            losses.remove(&reason);
        }
        let new = losses.iter().map(|(reason, total)| (reason.clone(), total - self.told.get(reason).unwrap_or(&0)));
        self.recorder.lose(now_ns, new.filter(|(_, count)| *count > 0));
        self.told = losses;
        Ok(())
    }

    pub(super) fn losses(&self) -> Result<BTreeMap<String, u64>> {
        let (_, losses) = self.sampler.counters()?;
        let mut losses: BTreeMap<String, u64> = losses.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        if self.unwinding.refused() > 0 {
            losses.insert("executables without unwind table: memory bound".into(), self.unwinding.refused());
        }
        if self.unmapped > 0 {
            losses.insert("mappings without unwind table: too many of them".into(), self.unmapped);
        }
        if self.unfollowed > 0 {
            losses.insert("waits lost: table of waiting threads full at the start".into(), self.unfollowed);
        }
        for (reason, count) in self.recorder.losses_of_processes() {
            *losses.entry(reason).or_default() += count;
        }
        losses.extend(self.heaps.losses().map(|(reason, count)| (reason.to_owned(), count)));
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
        Event::Newcomer(newcomer) => Some(Lifecycle::Newcomer(newcomer)),
        Event::SetAside { pid } => Some(Lifecycle::SetAside { pid }),
        Event::Exit { pid } => Some(Lifecycle::Exit { pid }),
        Event::Sample(_)
        | Event::Wait(_)
        | Event::Call(_)
        | Event::Memory(_)
        | Event::Origin(_)
        | Event::Allocation(..)
        | Event::AllocationEnd(_)
        | Event::Stack(_)
        | Event::NewImage { .. }
        | Event::Map { .. } => None,
    }
}
