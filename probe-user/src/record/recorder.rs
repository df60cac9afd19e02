//! `Recorder`: the flight recorder. Events in, recordings out; it neither waits nor reads a clock.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::dump;
use super::growth::{Change, growth};
use super::recording::{Allocation, RecordedProcess, Recording, Sample, SlowCall, Thread, Wait, Waker};
use super::stacks::{Frame, Slot, Space, Stack, Stacks};
use crate::functions::Finder;
use crate::kernel::{
    End, Event, RawAllocation, RawCall, RawLive, RawMemory, RawSample, RawStack, RawWait, StackId, thread_name,
};
use crate::target::{Mappings, Modules, Process};

/// Length of a window in nanoseconds.
const WINDOW_NS: u64 = 1_000_000_000;
/// Mappings of a process are read again for an unknown address at most once in this time.
const REFRESH_NS: u64 = 100_000_000;

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
    retention: Retention,
    modules: Modules,
    processes: HashMap<u32, Tracked>,
    threads: HashMap<(u32, u32), Thread>,
    stacks: Stacks,
    windows: VecDeque<Window>,
    follow_strangers: bool,
    started_ns: u64,
    /// Processes in which other code took the place of some: their stacks mean something else from then on.
    remapped: Vec<u32>,
    /// Bytes of processes and threads, at the last trim.
    process_bytes: usize,
    /// Processes whose mappings are not what the kernel was last told.
    changed: HashSet<u32>,
}

/// One second of samples.
#[derive(Debug, Default)]
struct Window {
    start_ns: u64,
    samples: Vec<Sample>,
    waits: Vec<Wait>,
    calls: Vec<SlowCall>,
    changes: Vec<Change>,
    allocations: Vec<Allocation>,
    losses: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Tracked {
    process: Process,
    /// Name given by whoever watches it.
    service: Option<String>,
    refreshed_ns: u64,
    /// It ended, or nobody watches it any more: forgotten when its last sample is.
    released: bool,
    /// It gave samples that are still kept.
    sampled: bool,
}

impl Recorder {
    /// An empty recorder. `now_ns` is the present, `CLOCK_MONOTONIC`.
    pub fn new(retention: Retention, now_ns: u64) -> Self {
        Self {
            retention,
            modules: Modules::default(),
            processes: HashMap::new(),
            threads: HashMap::new(),
            stacks: Stacks::default(),
            windows: VecDeque::new(),
            follow_strangers: false,
            started_ns: now_ns,
            remapped: Vec::new(),
            process_bytes: 0,
            changed: HashSet::new(),
        }
    }

    /// Reads a process that is watched from now on, before its samples matter.
    pub fn watch(&mut self, pid: u32, service: Option<String>) {
        let process = Process::read(pid, &mut self.modules);
        self.processes.insert(pid, Tracked { process, service, ..Tracked::default() });
        self.changed.insert(pid);
    }

    /// From now on also the mappings of processes are followed whose parent is not watched.
    pub fn follow_strangers(&mut self) {
        self.follow_strangers = true;
    }

    /// Takes an event in. `now_ns` is the present, `CLOCK_MONOTONIC`.
    pub fn handle(&mut self, event: Event, now_ns: u64) {
        match event {
            Event::Sample(sample) => self.sample(&sample),
            Event::Wait(wait) => self.wait(&wait),
            Event::Call(call) => self.call(&call),
            Event::Memory(memory) => self.memory(&memory),
            Event::Allocation(allocation) => self.allocation(&allocation),
            Event::Stack(stack) => self.stack(stack, now_ns),
            Event::NewImage { pid } => {
                if let Some(tracked) = self.processes.get_mut(&pid) {
                    tracked.process.begin_exec();
                }
            }
            // The mappings of the new image were reported before the exec itself: what /proc says replaces them, and if
            // the process is gone already they stay.
            Event::Exec { pid, path } => {
                if let Some(tracked) = self.processes.get_mut(&pid) {
                    tracked.process.replaced_by(&path);
                    tracked.process.refresh(&mut self.modules);
                    tracked.refreshed_ns = now_ns;
                    self.changed.insert(pid);
                }
            }
            Event::Fork { parent, child } => self.fork(parent, child),
            Event::Exit { pid } => {
                if let Some(tracked) = self.processes.get_mut(&pid) {
                    tracked.released = true;
                    self.changed.insert(pid);
                }
            }
            // Mappings of every process on the host are reported; those of strangers do not matter.
            Event::Map { pid, mapping } => {
                if let Some(tracked) = self.processes.get_mut(&pid) {
                    self.changed.insert(pid);
                    if tracked.process.add_mapping(&mapping, &mut self.modules) {
                        self.remapped.push(pid);
                    }
                }
            }
        }
    }

    fn fork(&mut self, parent: u32, child: u32) {
        let (process, service) = match self.processes.get(&parent) {
            Some(parent) => (parent.process.forked(child), parent.service.clone()),
            None if self.follow_strangers => (Process::unknown(child), None),
            None => return,
        };
        // The kernel may have reused the id of a process that is still remembered.
        self.processes.insert(child, Tracked { process, service, ..Tracked::default() });
        self.changed.insert(child);
    }

    /// The window of a time, made if it is new.
    fn window(&mut self, time_ns: u64) -> &mut Window {
        let start_ns = time_ns - time_ns % WINDOW_NS;
        // CPUs deliver out of order by a little: look from the newest window back.
        let at = self.windows.iter().rposition(|window| window.start_ns <= start_ns);
        let index = match at {
            Some(index) if self.windows[index].start_ns == start_ns => index,
            at => {
                let index = at.map_or(0, |index| index + 1);
                self.windows.insert(index, Window { start_ns, ..Window::default() });
                index
            }
        };
        &mut self.windows[index]
    }

    /// Counts what was lost up to `time_ns` since the last call.
    pub fn lose(&mut self, time_ns: u64, losses: impl IntoIterator<Item = (String, u64)>) {
        for (reason, count) in losses {
            *self.window(time_ns).losses.entry(reason).or_default() += count;
        }
    }

    fn sample(&mut self, raw: &RawSample) {
        let (user, kernel) = (self.slot(raw.user_stack), self.slot(raw.kernel_stack));
        let sample = Sample { time_ns: raw.time_ns, pid: raw.pid, tid: raw.tid, user, kernel };
        self.window(raw.time_ns).samples.push(sample);
        self.seen(raw.pid, raw.tid, &raw.comm);
    }

    fn wait(&mut self, raw: &RawWait) {
        let (user, kernel) = (self.slot(raw.user_stack), self.slot(raw.kernel_stack));
        let waker = raw.waker.as_ref().map(|waker| Waker {
            comm: waker.comm,
            user: self.slot(waker.user_stack),
            kernel: self.slot(waker.kernel_stack),
        });
        let RawWait { time_ns, pid, tid, state, count, total_ns, .. } = *raw;
        let wait = Wait { time_ns, pid, tid, state, count, total_ns, user, kernel, waker };
        self.window(time_ns).waits.push(wait);
        self.seen(pid, tid, &raw.comm);
    }

    fn call(&mut self, raw: &RawCall) {
        let RawCall { function, since_ns, time_ns, pid, tid, user_stack, comm } = *raw;
        let stack = self.slot(user_stack);
        self.window(time_ns).calls.push(SlowCall { function, since_ns, time_ns, pid, tid, stack });
        self.seen(pid, tid, &comm);
    }

    fn memory(&mut self, raw: &RawMemory) {
        let user = self.slot(raw.user_stack);
        let RawMemory { time_ns, pid, tid, change, start, bytes, count, .. } = *raw;
        let change = Change { time_ns, pid, tid, change, start, bytes, count, user };
        self.window(time_ns).changes.push(change);
        self.seen(pid, tid, &raw.comm);
    }

    fn allocation(&mut self, raw: &RawAllocation) {
        let RawAllocation { time_ns, pid, tid, size, mean, user_stack, comm } = *raw;
        let user = self.slot(user_stack);
        self.window(time_ns).allocations.push(Allocation { time_ns, pid, tid, size, mean, user });
        self.seen(pid, tid, &comm);
    }

    /// Adds sampled allocations that are in use to a recording.
    pub fn add_live(&mut self, recording: &mut Recording, live: &[RawLive]) {
        let known = |raw: &RawLive| {
            let RawLive { time_ns, pid, tid, size, mean, user_stack } = *raw;
            let user = self.slot(user_stack);
            self.add_names(recording, (pid, tid), user.into_iter());
            Allocation { time_ns, pid, tid, size, mean, user }
        };
        let live = live.iter().map(known).collect();
        recording.heap.live = Some(live);
    }

    /// Finds functions in what a process has mapped; `None` if it is not watched.
    pub fn finder(&self, pid: u32) -> Option<Finder> {
        self.processes.get(&pid).map(|tracked| Finder::of_process(&tracked.process))
    }

    fn slot(&mut self, id: StackId) -> Option<Slot> {
        (id != StackId::NONE).then(|| self.stacks.slot(id))
    }

    /// A thread has left a trace.
    fn seen(&mut self, pid: u32, tid: u32, comm: &[u8]) {
        match self.threads.entry((pid, tid)) {
            Entry::Vacant(entry) => drop(entry.insert(Thread { name: thread_name(comm) })),
            Entry::Occupied(mut entry) => {
                if !entry.get().name.as_bytes().eq(until_zero(comm)) {
                    entry.get_mut().name = thread_name(comm);
                }
            }
        }
        tracked(&mut self.processes, &mut self.changed, pid, &mut self.modules).sampled = true;
    }

    fn stack(&mut self, raw: RawStack, now_ns: u64) {
        let (id, pid) = (raw.id, raw.pid);
        let stack = self.locate(raw, now_ns);
        self.stacks.fill(id, pid, stack);
    }

    /// Normalises a stack. `now_ns` is the present, `CLOCK_MONOTONIC`.
    pub fn locate(&mut self, mut raw: RawStack, now_ns: u64) -> Stack {
        let frames = match raw.pid {
            None => raw.frames.iter().map(|&offset| Frame { module: None, offset }).collect(),
            Some(pid) => {
                let tracked = tracked(&mut self.processes, &mut self.changed, pid, &mut self.modules);
                let is_known = |tracked: &Tracked, address: &u64| tracked.process.locate(*address).is_some();
                // New code that no event told of: an event was lost.
                if !raw.frames.iter().all(|address| is_known(tracked, address))
                    && !tracked.released
                    && now_ns.saturating_sub(tracked.refreshed_ns) >= REFRESH_NS
                {
                    tracked.process.refresh_mappings(&mut self.modules);
                    tracked.refreshed_ns = now_ns;
                    self.changed.insert(pid);
                }
                // A return address where no code is was no return address: the frame pointer led astray.
                if let Some(leaf) = raw.frames.first()
                    && is_known(tracked, leaf)
                    && let Some(astray) = raw.frames.iter().position(|address| !is_known(tracked, address))
                {
                    raw.frames.truncate(astray);
                    raw.end = End::NoFramePointer;
                }
                let locate = |&address| match tracked.process.locate(address) {
                    Some((module, offset)) => Frame { module: Some(module.clone()), offset },
                    None => Frame { module: None, offset: address },
                };
                raw.frames.iter().map(locate).collect()
            }
        };
        let space = if raw.pid.is_some() { Space::User } else { Space::Kernel };
        Stack { space, frames, end: raw.end, guessed: raw.guessed }
    }

    /// Drops what is too old or does not fit, and what nothing refers to any more. Call it about once a second;
    /// `forget` is told the stacks that the kernel has to send again.
    pub fn trim(&mut self, now_ns: u64, mut forget: impl FnMut(StackId)) {
        for pid in std::mem::take(&mut self.remapped) {
            self.stacks.retire(pid, &mut forget);
        }
        let oldest = now_ns.saturating_sub(self.retention.window_ns);
        let before = self.windows.len();
        while self.windows.front().is_some_and(|window| window.start_ns + WINDOW_NS < oldest) {
            self.windows.pop_front();
        }
        if self.bytes() > self.retention.memory {
            self.drop_oldest();
        }
        // What is kept for ever is not swept: a thread may wait for long, and its stack is named when the wait has ended.
        if self.windows.len() != before || (self.windows.is_empty() && self.retention.window_ns != u64::MAX) {
            self.sweep(forget);
        }
        // A process that is gone needs its mappings no more: its stacks are located. One without samples is forgotten.
        self.processes.retain(|_, tracked| !tracked.released || tracked.sampled);
        for tracked in self.processes.values_mut().filter(|tracked| tracked.released) {
            tracked.process.forget_mappings();
        }
        self.process_bytes = self.threads.len() * size_of::<((u32, u32), Thread)>() * 2
            + self.processes.values().map(|tracked| tracked.process.bytes()).sum::<usize>();
        self.modules.sweep();
    }

    /// Drops a tenth of the windows. What else they refer to leaves at the sweeps after, so that this is no loop until it
    /// fits; and the last window stays.
    fn drop_oldest(&mut self) {
        let mut dropped = 0;
        for _ in 0..self.windows.len().div_ceil(10).min(self.windows.len().saturating_sub(1)) {
            let waits = |window: &Window| window.waits.iter().map(|wait| wait.count).sum::<u64>();
            let all = |window: &Window| {
                (window.samples.len() + window.changes.len() + window.allocations.len()) as u64 + waits(window)
            };
            dropped += self.windows.pop_front().map_or(0, |window| all(&window));
        }
        // Whoever asks for the time from here on is told.
        if let Some(window) = self.windows.front_mut() {
            *window.losses.entry("samples dropped: memory bound".into()).or_default() += dropped;
        }
    }

    fn sweep(&mut self, forget: impl FnMut(StackId)) {
        let samples = || self.windows.iter().flat_map(|window| &window.samples);
        let waits = || self.windows.iter().flat_map(|window| &window.waits);
        let calls = || self.windows.iter().flat_map(|window| &window.calls);
        let changes = || self.windows.iter().flat_map(|window| &window.changes);
        let used = samples().flat_map(|s| s.user.into_iter().chain(s.kernel)).chain(waits().flat_map(Wait::slots));
        let allocations = || self.windows.iter().flat_map(|window| &window.allocations);
        let used = used.chain(allocations().filter_map(|allocation| allocation.user));
        let used = used.chain(calls().filter_map(|call| call.stack)).chain(changes().filter_map(|change| change.user));
        self.stacks.sweep(used, forget);
        let mut threads = HashSet::new();
        let mut processes = HashSet::new();
        let of_samples = samples().map(|s| (s.pid, s.tid)).chain(waits().map(|w| (w.pid, w.tid)));
        let of_others = calls().map(|call| (call.pid, call.tid)).chain(changes().map(|c| (c.pid, c.tid)));
        let of_allocations = allocations().map(|a| (a.pid, a.tid));
        for thread in of_samples.chain(of_others).chain(of_allocations) {
            threads.insert(thread);
            processes.insert(thread.0);
        }
        self.threads.retain(|thread, _| threads.contains(thread));
        for (pid, tracked) in &mut self.processes {
            tracked.sampled = processes.contains(pid);
        }
    }

    /// Bytes in use, roughly: samples, stacks, processes.
    pub fn bytes(&self) -> usize {
        self.sample_bytes() + self.stacks.bytes() + self.process_bytes
    }

    fn sample_bytes(&self) -> usize {
        let bytes = |window: &Window| {
            window.samples.capacity() * size_of::<Sample>()
                + window.waits.capacity() * size_of::<Wait>()
                + window.calls.capacity() * size_of::<SlowCall>()
                + window.changes.capacity() * size_of::<Change>()
                + window.allocations.capacity() * size_of::<Allocation>()
        };
        self.windows.iter().map(bytes).sum()
    }

    /// The samples of a stretch of time, of these processes or (with an empty list) of all.
    pub fn extract(&self, pids: &[u32], from_ns: u64, to_ns: u64) -> Recording {
        // No longer than what was really looked at.
        let oldest = self.started_ns.max(to_ns.saturating_sub(self.retention.window_ns));
        let mut recording = Recording { from_ns: from_ns.max(oldest), to_ns, ..Recording::default() };
        for window in self.windows.iter().filter(|w| w.start_ns < to_ns && w.start_ns + WINDOW_NS > from_ns) {
            for (reason, count) in &window.losses {
                *recording.losses.entry(reason.clone()).or_default() += count;
            }
        }
        let wanted =
            |time_ns: u64, pid| (from_ns..to_ns).contains(&time_ns) && (pids.is_empty() || pids.contains(&pid));
        let samples = self.windows.iter().flat_map(|window| &window.samples);
        recording.samples = samples.filter(|sample| wanted(sample.time_ns, sample.pid)).copied().collect();
        let waits = self.windows.iter().flat_map(|window| &window.waits);
        recording.waits = waits.filter(|wait| wanted(wait.time_ns, wait.pid)).copied().collect();
        let calls = self.windows.iter().flat_map(|window| &window.calls);
        recording.calls = calls.filter(|call| wanted(call.time_ns, call.pid)).copied().collect();
        for index in 0..recording.calls.len() {
            let call = recording.calls[index];
            self.add_names(&mut recording, (call.pid, call.tid), call.stack.into_iter());
        }
        let changes = self.windows.iter().flat_map(|window| &window.changes);
        let mut changes: Vec<Change> = changes.filter(|c| wanted(c.time_ns, c.pid)).copied().collect();
        changes.sort_by_key(|change| change.time_ns);
        recording.growth = growth(changes);
        for index in 0..recording.growth.len() {
            let grown = recording.growth[index];
            self.add_names(&mut recording, (grown.pid, grown.tid), grown.user.into_iter());
        }
        let allocations = self.windows.iter().flat_map(|window| &window.allocations);
        recording.allocations = allocations.filter(|a| wanted(a.time_ns, a.pid)).copied().collect();
        for index in 0..recording.allocations.len() {
            let Allocation { pid, tid, user, .. } = recording.allocations[index];
            self.add_names(&mut recording, (pid, tid), user.into_iter());
        }
        for index in 0..recording.samples.len() {
            let Sample { pid, tid, user, kernel, .. } = recording.samples[index];
            self.add_names(&mut recording, (pid, tid), user.into_iter().chain(kernel));
        }
        for index in 0..recording.waits.len() {
            let wait = recording.waits[index];
            self.add_names(&mut recording, (wait.pid, wait.tid), wait.slots());
        }
        recording
    }

    /// Adds to a recording what something in it refers to.
    fn add_names(&self, recording: &mut Recording, thread: (u32, u32), slots: impl Iterator<Item = Slot>) {
        for slot in slots {
            if let Some(stack) = self.stacks.get(slot) {
                recording.stacks.entry(slot).or_insert_with(|| stack.clone());
            }
        }
        if let Some(known) = self.threads.get(&thread) {
            recording.threads.entry(thread).or_insert_with(|| known.clone());
        }
        if let Some(tracked) = self.processes.get(&thread.0) {
            recording.processes.entry(thread.0).or_insert_with(|| tracked.recorded());
        }
    }

    /// What is known of a process.
    pub fn process(&self, pid: u32) -> Option<RecordedProcess> {
        self.processes.get(&pid).map(Tracked::recorded)
    }

    /// When each module was last seen in a stack of a sample or wait, by its address.
    pub fn module_use(&self) -> HashMap<usize, u64> {
        let mut used_ns = HashMap::new();
        let mut seen = HashSet::new();
        for window in self.windows.iter().rev() {
            let samples = window.samples.iter().flat_map(|sample| sample.user);
            let waits = window.waits.iter().flat_map(|wait| wait.user);
            let changes = window.changes.iter().filter_map(|change| change.user);
            let allocations = window.allocations.iter().filter_map(|allocation| allocation.user);
            let all = samples.chain(waits).chain(changes).chain(allocations);
            for slot in all.filter(|slot| seen.insert(*slot)) {
                let frames = self.stacks.get(slot).into_iter().flat_map(|stack| stack.frames.iter());
                for module in frames.filter_map(|frame| frame.module.as_ref()) {
                    used_ns.entry(Arc::as_ptr(module) as usize).or_insert(window.start_ns + WINDOW_NS);
                }
            }
        }
        used_ns
    }

    /// The latest sample of a thread, not older than `from_ns`: its time and stacks.
    pub fn latest(&self, tid: u32, from_ns: u64) -> Option<(u64, dump::Stacks)> {
        let samples = self.windows.iter().rev().flat_map(|window| window.samples.iter().rev());
        let recent = samples.take_while(|sample| sample.time_ns + WINDOW_NS >= from_ns);
        let sample =
            recent.filter(|sample| sample.tid == tid && sample.time_ns >= from_ns).max_by_key(|s| s.time_ns)?;
        let stack = |slot: Option<Slot>| self.stacks.get(slot?).cloned();
        Some((sample.time_ns, dump::Stacks { user: stack(sample.user), kernel: stack(sample.kernel) }))
    }

    /// Forgets a process when its last sample is too old.
    pub fn unwatch(&mut self, pid: u32) {
        if let Some(tracked) = self.processes.get_mut(&pid) {
            tracked.released = true;
            self.changed.insert(pid);
        }
    }

    /// The processes whose mappings have changed since the last call, with their mappings; `None` for one that is gone.
    pub fn take_changed(&mut self) -> Vec<(u32, Option<&Mappings>)> {
        let changed = std::mem::take(&mut self.changed);
        let live = |pid| self.processes.get(&pid).filter(|tracked| !tracked.released);
        changed.into_iter().map(|pid| (pid, live(pid).map(|tracked| &tracked.process.mappings))).collect()
    }

    /// The kernel has unwind tables of a process that it had not: it has to send stacks again that it could not follow.
    pub fn tables_came(&mut self, pid: u32, forget: impl FnMut(StackId)) {
        self.stacks.doubt(pid, forget);
    }

    /// Has all processes reported as changed again.
    pub fn mark_all_changed(&mut self) {
        self.changed.extend(self.processes.keys());
    }

    /// Has these processes reported as changed again.
    pub fn mark_changed(&mut self, pids: impl IntoIterator<Item = u32>) {
        self.changed.extend(pids);
    }
}

impl Tracked {
    fn recorded(&self) -> RecordedProcess {
        let Process { comm, exe, cmdline, .. } = &self.process;
        let name = self.service.as_ref().unwrap_or(comm);
        RecordedProcess { name: name.clone(), exe: exe.clone(), cmdline: cmdline.clone() }
    }
}

/// The entry of a process, read now if it is new.
fn tracked<'a>(
    processes: &'a mut HashMap<u32, Tracked>,
    changed: &mut HashSet<u32>,
    pid: u32,
    modules: &mut Modules,
) -> &'a mut Tracked {
    processes.entry(pid).or_insert_with(|| {
        changed.insert(pid);
        Tracked { process: Process::read(pid, modules), ..Tracked::default() }
    })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn recorder(window_ns: u64, memory: usize) -> Recorder {
        Recorder::new(Retention { window_ns, memory }, 0)
    }

    fn id(lo: u64) -> StackId {
        StackId { lo, hi: 7 }
    }

    fn sample(time_ns: u64, tid: u32, stack: u64) -> Event {
        let mut comm = [0; 16];
        comm[..3].copy_from_slice(b"abc");
        let (user_stack, kernel_stack) = (id(stack), StackId::NONE);
        // Above any real process id, so that /proc has nothing to say.
        Event::Sample(RawSample { time_ns, cpu: 0, pid: u32::MAX, tid, value: 1, user_stack, kernel_stack, comm })
    }

    fn stack(stack: u64, depth: u64) -> Event {
        let frames = (0..depth).map(|i| 0x1000 + i).collect();
        Event::Stack(RawStack { id: id(stack), pid: Some(u32::MAX), end: End::Root, guessed: false, frames })
    }

    #[test]
    fn a_stretch_is_cut_out_with_all_it_refers_to() {
        let mut recorder = recorder(60 * SECOND, 1 << 20);
        for second in 0..10 {
            recorder.handle(sample(second * SECOND, 1, second), second * SECOND);
            recorder.handle(stack(second, 3), second * SECOND);
        }
        let recording = recorder.extract(&[u32::MAX], 3 * SECOND, 6 * SECOND);
        let times: Vec<u64> = recording.samples.iter().map(|s| s.time_ns / SECOND).collect();
        assert_eq!(times, [3, 4, 5]);
        assert_eq!(recording.stacks.len(), 3);
        assert_eq!(recording.threads[&(u32::MAX, 1)].name, "abc");
        assert!(recorder.extract(&[5], 0, u64::MAX).samples.is_empty(), "another process has none");
    }

    #[test]
    fn old_windows_leave_and_take_their_stacks_with_them() {
        let mut recorder = recorder(3 * SECOND, 1 << 20);
        let mut forgotten = Vec::new();
        for second in 0..10 {
            recorder.handle(stack(second, 3), second * SECOND);
            recorder.handle(sample(second * SECOND, second as u32, second), second * SECOND);
            recorder.trim(second * SECOND, |id| forgotten.push(id.lo));
        }
        let recording = recorder.extract(&[], 0, u64::MAX);
        assert_eq!(recording.samples.len(), 5, "3 s and the windows they touch");
        assert_eq!(forgotten, [0, 1, 2, 3, 4]);
        assert_eq!(recorder.threads.len(), 5);
    }

    #[test]
    fn samples_that_arrive_late_are_put_where_they_belong() {
        let mut recorder = recorder(60 * SECOND, 1 << 20);
        for time in [5 * SECOND, 6 * SECOND, 5 * SECOND + 1, 4 * SECOND] {
            recorder.handle(sample(time, 1, 1), time);
        }
        let starts: Vec<u64> = recorder.windows.iter().map(|w| w.start_ns / SECOND).collect();
        assert_eq!(starts, [4, 5, 6]);
        assert_eq!(recorder.windows[1].samples.len(), 2);
    }

    #[test]
    fn other_code_at_the_same_addresses_makes_other_stacks() {
        let mut recorder = recorder(60 * SECOND, 1 << 20);
        recorder.handle(sample(SECOND, 1, 7), SECOND);
        recorder.handle(stack(7, 3), SECOND);
        recorder.remapped.push(u32::MAX);
        let mut forgotten = Vec::new();
        recorder.trim(SECOND, |id| forgotten.push(id.lo));
        assert_eq!(forgotten, [7]);
        recorder.handle(stack(7, 5), 2 * SECOND);
        recorder.handle(sample(2 * SECOND, 1, 7), 2 * SECOND);
        let recording = recorder.extract(&[], 0, u64::MAX);
        let depths: Vec<usize> =
            recording.samples.iter().map(|s| recording.stacks[&s.user.unwrap()].frames.len()).collect();
        assert_eq!(depths, [3, 5], "the sample before keeps its stack");
    }

    #[test]
    fn processes_without_samples_are_forgotten_when_they_end() {
        let mut recorder = recorder(u64::MAX, 1 << 20);
        recorder.follow_strangers();
        recorder.handle(sample(SECOND, 1, 7), SECOND);
        for child in 1..1000 {
            recorder.handle(Event::Fork { parent: 0, child: u32::MAX - child }, SECOND);
            recorder.handle(Event::Exit { pid: u32::MAX - child }, SECOND);
        }
        recorder.trim(SECOND, |_| {});
        assert_eq!(recorder.processes.len(), 1);
    }

    #[test]
    fn losses_belong_to_their_window() {
        let mut recorder = recorder(60 * SECOND, 1 << 20);
        recorder.lose(3 * SECOND, [("full".to_owned(), 2)]);
        recorder.lose(5 * SECOND, [("full".to_owned(), 3)]);
        let lost = |from, to| recorder.extract(&[], from * SECOND, to * SECOND).losses.get("full").copied();
        assert_eq!((lost(0, 4), lost(4, 9), lost(0, 9), lost(6, 9)), (Some(2), Some(3), Some(5), None));
    }

    #[test]
    fn memory_is_bounded_and_what_is_dropped_is_counted() {
        let mut recorder = recorder(u64::MAX, 256 << 10);
        for second in 0..100 {
            for stack_id in 0..100 {
                recorder.handle(stack(second * 100 + stack_id, 50), second * SECOND);
                recorder.handle(sample(second * SECOND + stack_id, 1, second * 100 + stack_id), second * SECOND);
            }
            recorder.trim(second * SECOND, |_| {});
        }
        // A stack stays for one more sweep after its last window, so the bound may be exceeded by two seconds' worth.
        assert!(recorder.bytes() < (256 << 10) + 2 * 100 * 50 * 24, "{} bytes", recorder.bytes());
        let kept = recorder.extract(&[], 0, u64::MAX);
        assert!(!kept.samples.is_empty());
        assert!(kept.losses["samples dropped: memory bound"] > 0);
    }
}
