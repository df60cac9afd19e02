//! Waits on their way into a profile: their stacks without what took them, and with whoever woke them on top.

use std::collections::HashSet;

use super::profile::{Kind, Line, Location, Sample};
use super::symbolizer::Builder;
use crate::kernel::thread_name;
use crate::record::{Recording, Wait, Waker};

/// What stands between a tracepoint and the program that is attached to it.
const TRACING: [&str; 3] = ["bpf_trace_run", "__traceiter_", "bpf_trampoline"];

impl Builder {
    /// The kernel stacks of waits begin with what took them: they are of the tracepoint's caller.
    pub(super) fn cut_tracing(&mut self, recording: &Recording) {
        /// No tracer is further from its tracepoint.
        const FRAMES: usize = 6;
        let kernel_stacks = recording.waits.iter().flat_map(|wait| [wait.kernel, wait.waker.and_then(|w| w.kernel)]);
        for slot in kernel_stacks.flatten().collect::<HashSet<_>>() {
            let Some((locations, _)) = self.stacks.get_mut(&slot) else { continue };
            let is_tracing = |location: &u32| {
                let line = self.profile.locations[*location as usize].lines.last();
                line.is_some_and(|line| TRACING.iter().any(|name| line.function.starts_with(name)))
            };
            let cut = locations.iter().take(FRAMES).rposition(is_tracing).map_or(0, |last| last + 1);
            locations.drain(..cut);
        }
    }

    pub(super) fn add_wait(&mut self, recording: &Recording, wait: &Wait) {
        let thread = self.thread(recording, wait.pid, wait.tid);
        let stack = match &wait.waker {
            None => self.stack(wait.user, wait.kernel),
            Some(waker) => self.stack_with_waker(wait, waker),
        };
        self.count_losses(stack, wait.user, wait.count);
        let time_ns = wait.time_ns.saturating_sub(recording.from_ns);
        let (count, value, state) = (wait.count, wait.total_ns, wait.state);
        self.profile.samples.push(Sample { thread, stack, time_ns, count, value, state, ..Sample::default() });
    }

    /// The stack of a wait with, on top of its leaf, the stack of the thread that woke it turned round: read from the leaf
    /// of the one to the root of the other, it tells what had to happen (as offwaketime of bcc shows it).
    fn stack_with_waker(&mut self, wait: &Wait, waker: &Waker) -> u32 {
        let (below, above) = (self.stack(wait.user, wait.kernel), self.stack(waker.user, waker.kernel));
        let key = (below, above, waker.comm);
        if let Some(&index) = self.woken_index.get(&key) {
            return index;
        }
        let mut stack = self.profile.stacks[below as usize].clone();
        let mut waking = self.profile.stacks[above as usize].locations.clone();
        // Whatever thread an interrupt hits has nothing to do with it.
        let name = match waking.iter().position(|&location| self.is_interrupt(location)) {
            Some(entry) => {
                waking.truncate(entry + 1);
                "[woken by an interrupt]".to_owned()
            }
            None => format!("[woken by {}]", thread_name(&waker.comm)),
        };
        let separator = self.separator(name);
        let mut locations: Vec<u32> = waking.into_iter().rev().collect();
        locations.push(separator);
        locations.append(&mut stack.locations);
        stack.locations = locations;
        self.profile.stacks.push(stack);
        let index = self.profile.stacks.len() as u32 - 1;
        self.woken_index.insert(key, index);
        index
    }

    /// Adds time of calls in which nobody saw what was done: above the function itself there is only that.
    pub(super) fn add_unseen(&mut self, recording: &Recording, wait: &Wait) {
        let thread = self.thread(recording, wait.pid, wait.tid);
        let called = self.stack(wait.user, None) as usize;
        let mut stack = self.profile.stacks[called].clone();
        stack.locations.insert(0, self.separator("[not seen on a thread]".to_owned()));
        self.profile.stacks.push(stack);
        let stack = self.profile.stacks.len() as u32 - 1;
        let time_ns = wait.time_ns.saturating_sub(recording.from_ns);
        let (count, value, state) = (wait.count, wait.total_ns, wait.state);
        self.profile.samples.push(Sample { thread, stack, time_ns, count, value, state, ..Sample::default() });
    }

    /// A location that is no code, but says something.
    fn separator(&mut self, name: String) -> u32 {
        let next = self.profile.locations.len() as u32;
        let separator = *self.separators.entry(name.clone()).or_insert(next);
        if separator == next {
            let lines = vec![Line { function: name, ..Line::default() }];
            self.profile.locations.push(Location { lines, ..Location::default() });
        }
        separator
    }

    /// True for the kernel's first function of an interrupt.
    fn is_interrupt(&self, location: u32) -> bool {
        let Location { kind, lines, .. } = &self.profile.locations[location as usize];
        let is_entry = |name: &str| name.starts_with("asm_sysvec_") || name.starts_with("asm_common_interrupt");
        *kind == Kind::Kernel && lines.last().is_some_and(|line| is_entry(&line.function))
    }
}
