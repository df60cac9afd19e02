//! What is taken out of the flight recorder: stretches of it, with the names of all that they refer to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::dump;
use super::super::growth::{Change, growth};
use super::super::recording::{Allocation, Recording, Sample, SlowCall, Wait};
use super::super::reference::Reference;
use super::super::stacks::Slot;
use super::Recorder;
use super::windows::WINDOW_NS;
use crate::kernel::{RawAllocation, RawWait};

/// Of these processes or (with an empty list) of all, from one time to another.
struct Stretch<'a> {
    pids: &'a [u32],
    from_ns: u64,
    to_ns: u64,
}

impl Stretch<'_> {
    /// Those events that are in it.
    fn of<'e, T: Copy + 'e>(&self, events: impl Iterator<Item = &'e T>) -> Vec<T>
    where
        Reference: From<&'e T>,
    {
        let is_in = |event: &&'e T| {
            let Reference { time_ns, thread: (pid, _), .. } = Reference::from(*event);
            self.has_time(time_ns) && self.has_process(pid)
        };
        events.filter(is_in).copied().collect()
    }

    /// The parts of waits that are in it.
    fn of_waits<'e>(&self, waits: impl Iterator<Item = &'e Wait>) -> Vec<Wait> {
        let waits = waits.filter(|wait| self.has_process(wait.pid));
        waits.filter_map(|wait| wait.within(self.from_ns, self.to_ns)).collect()
    }

    fn has_time(&self, time_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&time_ns)
    }

    fn has_process(&self, pid: u32) -> bool {
        self.pids.is_empty() || self.pids.contains(&pid)
    }
}

impl Recorder {
    /// The samples of a stretch of time, of these processes or (with an empty list) of all.
    pub fn extract(&self, pids: &[u32], from_ns: u64, to_ns: u64) -> Recording {
        let (windows, stretch) = (&self.windows, Stretch { pids, from_ns, to_ns });
        let samples: Vec<Sample> = stretch.of(windows.all(|window| &window.samples));
        let waits = stretch.of_waits(windows.all(|window| &window.waits));
        let calls: Vec<SlowCall> = stretch.of(windows.all(|window| &window.calls));
        let mut changes: Vec<Change> = stretch.of(windows.all(|window| &window.changes));
        changes.sort_by_key(|change| change.time_ns);
        let growth = growth(changes);
        let goroutines = windows.all(|window| &window.goroutines).filter(|((_, at), _)| stretch.has_time(*at));
        // No longer than what was really looked at.
        let oldest = self.started_ns.max(to_ns.saturating_sub(self.retention.window_ns));
        let mut recording = Recording {
            from_ns: from_ns.max(oldest),
            to_ns,
            goroutines: goroutines.copied().collect(),
            losses: self.losses(pids, from_ns, to_ns),
            ..Recording::default()
        };
        self.add_names(&mut recording, &samples);
        self.add_names(&mut recording, &waits);
        self.add_names(&mut recording, &calls);
        self.add_names(&mut recording, &growth);
        Recording { samples, waits, calls, growth, ..recording }
    }

    /// Adds the sampled allocations of its time to a recording, of these processes or (with an empty list) of all.
    pub fn add_allocations(&self, recording: &mut Recording, pids: &[u32]) {
        let stretch = Stretch { pids, from_ns: recording.from_ns, to_ns: recording.to_ns };
        let allocations: Vec<Allocation> = stretch.of(self.windows.all(|window| &window.allocations));
        self.add_names(recording, &allocations);
        recording.allocations = allocations;
    }

    /// Adds sampled allocations that are in use to a recording.
    pub fn add_live(&mut self, recording: &mut Recording, live: &[RawAllocation]) {
        let known = |raw: &RawAllocation| Allocation::new(raw, self.allocation_slot(raw));
        let live: Vec<Allocation> = live.iter().map(known).collect();
        self.add_names(recording, &live);
        recording.heap.live = Some(live);
        let (from_ns, to_ns) = (recording.from_ns, recording.to_ns);
        let pids: Vec<u32> = recording.heap.heaps.keys().copied().collect();
        recording.heap.ended = Stretch { pids: &pids, from_ns, to_ns }.of(self.windows.all(|window| &window.ended));
    }

    /// Adds the part of waits to a recording that have not ended.
    pub fn add_open_waits(&mut self, recording: &mut Recording, open: impl Iterator<Item = RawWait>) {
        let (from_ns, to_ns) = (recording.from_ns, recording.to_ns);
        let waits: Vec<Wait> = open.filter_map(|raw| self.located(&raw).within(from_ns, to_ns)).collect();
        self.add_names(recording, &waits);
        recording.waits.extend(waits);
    }

    /// Adds to a recording what events refer to.
    pub(in super::super) fn add_names<'e, T: 'e>(&self, recording: &mut Recording, events: &'e [T])
    where
        Reference: From<&'e T>,
    {
        for reference in events.iter().map(Reference::from) {
            for slot in reference.slots() {
                if let Some(stack) = self.stacks.get(slot) {
                    recording.stacks.entry(slot).or_insert_with(|| stack.clone());
                }
            }
            let (thread, pid) = (reference.thread, reference.thread.0);
            if let Some(known) = self.processes.thread(thread) {
                recording.threads.entry(thread).or_insert_with(|| known.clone());
            }
            if !recording.processes.contains_key(&pid)
                && let Some(known) = self.processes.recorded(pid)
            {
                recording.processes.insert(pid, known);
            }
        }
    }

    /// What was lost from one time to another: reason → count.
    pub fn losses(&self, pids: &[u32], from_ns: u64, to_ns: u64) -> BTreeMap<String, u64> {
        self.windows.losses(pids, from_ns, to_ns)
    }

    /// When each module was last seen in a stack, by its address.
    pub fn module_use(&self) -> HashMap<usize, u64> {
        let mut used_ns = HashMap::new();
        let mut seen = HashSet::new();
        for window in self.windows.newest_first() {
            let slots = window.references().flat_map(|reference| reference.slots());
            for slot in slots.filter(|slot| seen.insert(*slot)) {
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
        let samples = self.windows.newest_first().flat_map(|window| window.samples.iter().rev());
        let recent = samples.take_while(|sample| sample.time_ns + WINDOW_NS >= from_ns);
        let sample =
            recent.filter(|sample| sample.tid == tid && sample.time_ns >= from_ns).max_by_key(|s| s.time_ns)?;
        let stack = |slot: Option<Slot>| self.stacks.get(slot?).cloned();
        Some((sample.time_ns, dump::Stacks { user: stack(sample.user), kernel: stack(sample.kernel) }))
    }
}
