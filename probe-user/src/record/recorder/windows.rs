//! `Windows`: what was seen, a second each, in the order of time. What the events refer to is kept elsewhere.

use std::collections::{BTreeMap, VecDeque};

use super::super::growth::Change;
use super::super::recording::{Allocation, Ended, Sample, SlowCall, Wait};
use super::super::reference::Reference;

/// Length of a window in nanoseconds.
pub const WINDOW_NS: u64 = 1_000_000_000;

/// The oldest first.
#[derive(Debug, Default)]
pub struct Windows(pub(super) VecDeque<Window>);

/// One second.
#[derive(Debug, Default)]
pub struct Window {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub start_ns: u64,
    /// In the order of their arrival, as everything here.
    pub samples: Vec<Sample>,
    /// Waits that ended in it.
    pub waits: Vec<Wait>,
    /// Calls that ended in it.
    pub calls: Vec<SlowCall>,
    /// Of samples and waits that have one: thread and time, goroutine.
    pub goroutines: Vec<((u32, u64), u64)>,
    /// Changes of memory.
    pub changes: Vec<Change>,
    /// Sampled allocations.
    pub allocations: Vec<Allocation>,
    /// Sampled allocations that ended in it.
    pub ended: Vec<Ended>,
    /// Reason → count.
    pub losses: BTreeMap<String, u64>,
    /// Of single processes: process and reason → count.
    pub losses_of: BTreeMap<(u32, String), u64>,
}

impl Windows {
    /// The window of a time, made if it is new.
    pub fn at(&mut self, time_ns: u64) -> &mut Window {
        let start_ns = time_ns - time_ns % WINDOW_NS;
        // CPUs deliver out of order by a little: look from the newest window back.
        let at = self.0.iter().rposition(|window| window.start_ns <= start_ns);
        let index = match at {
            Some(index) if self.0[index].start_ns == start_ns => index,
            at => {
                let index = at.map_or(0, |index| index + 1);
                self.0.insert(index, Window { start_ns, ..Window::default() });
                index
            }
        };
        &mut self.0[index]
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Window> {
        self.0.iter().rev()
    }

    /// The events of one kind, window by window.
    pub fn all<'a, T: 'a>(&'a self, of: impl Fn(&'a Window) -> &'a Vec<T>) -> impl Iterator<Item = &'a T> {
        self.0.iter().flat_map(of)
    }

    /// What all events refer to.
    pub fn references(&self) -> impl Iterator<Item = Reference> {
        self.0.iter().flat_map(Window::references)
    }

    /// What was lost from one time to another, of these processes (of all, with an empty list): reason → count.
    pub fn losses(&self, pids: &[u32], from_ns: u64, to_ns: u64) -> BTreeMap<String, u64> {
        let mut losses = BTreeMap::new();
        for window in self.0.iter().filter(|w| w.start_ns < to_ns && w.start_ns + WINDOW_NS > from_ns) {
            for (reason, count) in &window.losses {
                *losses.entry(reason.clone()).or_default() += count;
            }
            for ((pid, reason), count) in &window.losses_of {
                if pids.is_empty() || pids.contains(pid) {
                    *losses.entry(reason.clone()).or_default() += count;
                }
            }
        }
        losses
    }

    /// Drops the windows that ended before a time. Returns whether there were any.
    pub fn drop_before(&mut self, oldest_ns: u64) -> bool {
        let before = self.0.len();
        while self.0.front().is_some_and(|window| window.start_ns + WINDOW_NS < oldest_ns) {
            self.0.pop_front();
        }
        self.0.len() != before
    }

    /// Drops the oldest tenth, but never the last window. Returns whether there were any.
    pub fn drop_tenth(&mut self) -> bool {
        let count = self.0.len().div_ceil(10).min(self.0.len().saturating_sub(1));
        let dropped = self.0.drain(..count).map(|window| window.events()).sum::<u64>();
        // Whoever asks for the time from here on is told.
        if let Some(window) = self.0.front_mut() {
            *window.losses.entry("samples dropped: memory bound".into()).or_default() += dropped;
        }
        count > 0
    }

    /// Bytes of the events.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Window::bytes).sum()
    }
}

impl Window {
    /// What its events refer to.
    pub fn references(&self) -> impl Iterator<Item = Reference> {
        let Self { samples, waits, calls, changes, allocations, ended, .. } = self;
        let (samples, waits) = (samples.iter().map(Reference::from), waits.iter().map(Reference::from));
        let (calls, changes) = (calls.iter().map(Reference::from), changes.iter().map(Reference::from));
        samples
            .chain(waits)
            .chain(calls)
            .chain(changes)
            .chain(allocations.iter().map(Reference::from))
            .chain(ended.iter().map(Reference::from))
    }

    /// How many events there were in it: waits that were added up count each.
    fn events(&self) -> u64 {
        let Self { samples, waits, calls, changes, allocations, .. } = self;
        let waits = waits.iter().map(|wait| wait.count).sum::<u64>();
        (samples.len() + calls.len() + changes.len() + allocations.len()) as u64 + waits
    }

    fn bytes(&self) -> usize {
        fn held<T>(events: &Vec<T>) -> usize {
            events.capacity() * size_of::<T>()
        }
        let Self {
            start_ns: _,
            samples,
            waits,
            calls,
            goroutines,
            changes,
            allocations,
            ended,
            losses: _,
            losses_of: _,
        } = self;
        held(samples) + held(waits) + held(calls) + held(goroutines) + held(changes) + held(allocations) + held(ended)
    }
}
