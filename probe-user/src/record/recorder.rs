//! `Recorder`: the flight recorder. Events in, recordings out; it neither waits nor reads a clock.

mod extract;
mod processes;
mod replaced;
mod windows;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use processes::Processes;
use windows::Windows;

use super::growth::Change;
use super::pins::Pins;
use super::recording::{Allocation, Ended, Sample, SlowCall, Wait, Waker};
use super::stacks::{Slot, Stack, Stacks};
use crate::kernel::{
    Event, RawAllocation, RawAllocationEnd, RawCall, RawMemory, RawOrigin, RawSample, RawStack, RawWait, StackId,
};
use crate::target::Module;

/// How often, in the time for which windows are kept, it is looked what they refer to; at once when there is no room.
const SWEEPS: u64 = 12;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Age at which a window is dropped, in nanoseconds; `u64::MAX` keeps all.
    pub window_ns: u64,
    /// Bound on the memory of samples and stacks, in bytes. When it is exceeded the oldest windows are dropped and counted.
    pub memory: usize,
}

/// The flight recorder.
#[derive(Debug)]
pub struct Recorder {
    /// The processes that it is about.
    pub processes: Processes,
    /// What the allocations of processes refer to, to be kept for as long as they may be in use.
    pub pins: Pins,
    windows: Windows,
    stacks: Stacks,
    retention: Retention,
    started_ns: u64,
    /// When it was looked last what the windows refer to, and whether some have gone since.
    swept_ns: u64,
    has_gone: bool,
    recorded: Recorded,
    /// Of single processes, since the beginning: reason → count.
    lost: BTreeMap<String, u64>,
    /// Stacks that the kernel has to send again.
    forgotten: Vec<StackId>,
}

/// How much was recorded since the beginning, besides samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    /// Waits.
    pub waits: u64,
    /// Changes of memory.
    pub memory_changes: u64,
    /// Sampled allocations.
    pub allocations: u64,
}

impl Recorder {
    /// An empty recorder. `now_ns` is the present, `CLOCK_MONOTONIC`.
    pub fn new(retention: Retention, now_ns: u64) -> Self {
        Self {
            processes: Processes::default(),
            pins: Pins::default(),
            windows: Windows::default(),
            stacks: Stacks::default(),
            retention,
            started_ns: now_ns,
            swept_ns: now_ns,
            has_gone: false,
            recorded: Recorded::default(),
            lost: BTreeMap::new(),
            forgotten: Vec::new(),
        }
    }

    /// How much there was.
    pub fn recorded(&self) -> Recorded {
        self.recorded
    }

    /// Keeps at most so many bytes from now on.
    pub fn set_memory(&mut self, memory: usize) {
        self.retention.memory = memory;
    }

    /// Takes an event in. `now_ns` is the present, `CLOCK_MONOTONIC`.
    pub fn handle(&mut self, event: Event, now_ns: u64) {
        match event {
            Event::Sample(sample) => self.sample(&sample),
            Event::Wait(wait) => self.wait(&wait),
            Event::Call(call) => self.call(&call),
            Event::Memory(memory) => self.memory(&memory),
            Event::Origin(origin) => self.origin(&origin),
            Event::Allocation(allocation, comm) => self.allocation(&allocation, &comm),
            Event::AllocationEnd(end) => self.allocation_end(&end),
            Event::Stack(stack) => self.stack(stack, now_ns),
            Event::NewImage { pid } => self.processes.begin_exec(pid),
            Event::Exec { pid, path, .. } => self.processes.exec(pid, &path, now_ns),
            Event::Fork { parent, child } => self.processes.fork(parent, child),
            Event::Exit { pid } | Event::SetAside { pid } => {
                self.processes.release(pid);
                self.pins.origins.forget(pid);
            }
            Event::Newcomer(_) => {}
            Event::Map { pid, time_ns, mapping } => {
                self.processes.map(pid, time_ns, &mapping);
                self.retire_renewed();
            }
        }
    }

    /// Reads the mappings again of those processes of which more is known by now. `now_ns` is the present.
    pub fn find_homes(&mut self, now_ns: u64) {
        self.processes.find_homes(now_ns);
        self.retire_renewed();
    }

    /// Stacks through code whose place other code took are other stacks from then on.
    fn retire_renewed(&mut self) {
        for (pid, since_ns, others) in self.processes.take_renewed() {
            let is_other = |module: &Arc<Module>| others.iter().any(|other| Arc::ptr_eq(other, module));
            let is_meant = |stack: &Stack| stack.frames.iter().filter_map(|frame| frame.module.as_ref()).any(is_other);
            self.stacks.retire(pid, since_ns, is_meant, |id| self.forgotten.push(id));
        }
    }

    /// The stacks that the kernel has to send again, since the last call: what they were walked by was not what it is now.
    pub fn take_forgotten(&mut self) -> Vec<StackId> {
        std::mem::take(&mut self.forgotten)
    }

    /// Counts what was lost up to `time_ns` since the last call.
    pub fn lose(&mut self, time_ns: u64, losses: impl IntoIterator<Item = (String, u64)>) {
        for (reason, count) in losses {
            *self.windows.at(time_ns).losses.entry(reason).or_default() += count;
        }
    }

    /// Counts something of a process as lost at a time: the recordings of others do not miss it.
    pub fn lose_of(&mut self, pid: u32, time_ns: u64, reason: String, count: u64) {
        *self.lost.entry(reason.clone()).or_default() += count;
        *self.windows.at(time_ns).losses_of.entry((pid, reason)).or_default() += count;
    }

    /// What was lost of single processes since the beginning: reason → count.
    pub fn losses_of_processes(&self) -> impl Iterator<Item = (String, u64)> {
        self.lost.iter().map(|(reason, count)| (reason.clone(), *count))
    }

    fn sample(&mut self, raw: &RawSample) {
        let RawSample { time_ns, pid, tid, .. } = *raw;
        let (user, kernel) = (self.slot(raw.user_stack, time_ns), self.slot(raw.kernel_stack, time_ns));
        let sample = Sample { time_ns, pid, tid, user, kernel, period_ns: raw.value };
        self.windows.at(time_ns).samples.push(sample);
        self.goroutine(tid, time_ns, raw.goroutine);
        self.processes.seen(pid, tid, &raw.comm);
    }

    fn wait(&mut self, raw: &RawWait) {
        let wait = self.located(raw);
        self.recorded.waits += wait.count;
        self.windows.at(wait.time_ns).waits.push(wait);
        self.goroutine(wait.tid, wait.time_ns, raw.goroutine);
        self.processes.seen(wait.pid, wait.tid, &raw.comm);
    }

    fn located(&mut self, raw: &RawWait) -> Wait {
        let RawWait { time_ns, pid, tid, state, count, total_ns, .. } = *raw;
        let (user, kernel) = (self.slot(raw.user_stack, time_ns), self.slot(raw.kernel_stack, time_ns));
        let waker = raw.waker.as_ref().map(|waker| Waker {
            comm: waker.comm,
            user: self.slot(waker.user_stack, time_ns),
            kernel: self.slot(waker.kernel_stack, time_ns),
        });
        Wait { time_ns, pid, tid, state, count, total_ns, user, kernel, waker }
    }

    /// What a thread did at a time was a goroutine's, unless that is 0.
    fn goroutine(&mut self, tid: u32, time_ns: u64, goroutine: u64) {
        if goroutine != 0 {
            self.windows.at(time_ns).goroutines.push(((tid, time_ns), goroutine));
        }
    }

    fn call(&mut self, raw: &RawCall) {
        let RawCall { function, since_ns, time_ns, pid, tid, goroutine, user_stack, comm } = *raw;
        let stack = self.slot(user_stack, time_ns);
        self.windows.at(time_ns).calls.push(SlowCall { function, since_ns, time_ns, pid, tid, goroutine, stack });
        self.processes.seen(pid, tid, &comm);
    }

    fn memory(&mut self, raw: &RawMemory) {
        let user = self.slot(raw.user_stack, raw.time_ns);
        let RawMemory { time_ns, pid, tid, change, start, bytes, count, .. } = *raw;
        let change = Change { time_ns, pid, tid, change, start, bytes, count, user };
        self.recorded.memory_changes += 1;
        self.windows.at(time_ns).changes.push(change);
        self.processes.seen(pid, tid, &raw.comm);
    }

    fn allocation(&mut self, raw: &RawAllocation, comm: &[u8]) {
        let user = self.slot(raw.user_stack, raw.time_ns);
        self.recorded.allocations += 1;
        self.pins.add(raw.pid, raw.tid, (raw.user_stack, user));
        self.windows.at(raw.time_ns).allocations.push(Allocation::new(raw, user));
        self.processes.seen(raw.pid, raw.tid, comm);
    }

    fn origin(&mut self, raw: &RawOrigin) {
        let user = self.slot(raw.user_stack, raw.time_ns);
        self.pins.origins.add(raw, user);
        self.processes.seen(raw.pid, raw.tid, &raw.comm);
    }

    fn allocation_end(&mut self, raw: &RawAllocationEnd) {
        let RawAllocationEnd { ref allocation, ended_ns, is_reused } = *raw;
        let user = self.allocation_slot(allocation);
        let ended = Ended { allocation: Allocation::new(allocation, user), ended_ns, is_reused };
        self.windows.at(ended_ns).ended.push(ended);
    }

    /// Where the stack of an allocation is that may have been made long ago.
    fn allocation_slot(&mut self, raw: &RawAllocation) -> Option<Slot> {
        self.pins.slot(raw.pid, raw.user_stack).or_else(|| self.slot(raw.user_stack, raw.time_ns))
    }

    fn slot(&mut self, id: StackId, time_ns: u64) -> Option<Slot> {
        (id != StackId::NONE).then(|| self.stacks.slot_at(id, time_ns))
    }

    fn stack(&mut self, raw: RawStack, now_ns: u64) {
        let (id, pid) = (raw.id, raw.pid);
        let (stack, is_early) = self.processes.locate(raw, now_ns);
        self.retire_renewed();
        self.stacks.fill(id, pid, stack);
        if is_early {
            self.stacks.doubt_one(id);
            self.forgotten.push(id);
        }
    }

    /// The kernel has unwind tables of a process that it had not: it has to send stacks again that it could not follow.
    pub fn tables_came(&mut self, pid: u32, forget: impl FnMut(StackId)) {
        self.stacks.doubt(pid, forget);
    }

    /// Drops what is too old or does not fit, and what nothing refers to any more. Call it about once a second;
    /// `forget` is told the stacks that the kernel has to send again.
    pub fn trim(&mut self, now_ns: u64, forget: impl FnMut(StackId)) {
        self.has_gone |= self.windows.drop_before(now_ns.saturating_sub(self.retention.window_ns));
        let is_full = self.bytes() > self.retention.memory;
        if is_full {
            // What else the windows refer to leaves at the sweeps after, so that this is no loop until it fits.
            self.has_gone |= self.windows.drop_tenth();
        }
        self.has_gone |= self.windows.is_empty() && self.retention.window_ns != u64::MAX;
        // What is kept for ever is not swept: a thread may wait for long, and its stack is named when the wait has ended.
        let is_due = is_full || now_ns.saturating_sub(self.swept_ns) >= self.retention.window_ns / SWEEPS;
        if self.has_gone && is_due {
            (self.swept_ns, self.has_gone) = (now_ns, false);
            self.sweep(forget);
        }
        for (pid, reason, count) in self.processes.take_lost() {
            self.lose_of(pid, now_ns, reason, count);
        }
        self.processes.trim();
        self.processes.catch_up();
        self.retire_renewed();
    }

    fn sweep(&mut self, forget: impl FnMut(StackId)) {
        let mut threads = HashSet::new();
        let used = self.windows.references().flat_map(|reference| {
            threads.insert(reference.thread);
            reference.slots()
        });
        self.stacks.sweep(used.chain(self.pins.slots()), forget);
        self.processes.keep(&threads, &self.pins);
    }

    /// Bytes in use, roughly: samples, stacks, processes.
    pub fn bytes(&self) -> usize {
        self.windows.bytes() + self.stacks.bytes() + self.processes.bytes()
    }
}

#[cfg(test)]
mod tests;
