//! Calls that are going on: those of which the kernel saw no end, less those that have ended all the same.

use std::collections::HashMap;

use anyhow::Result;

use crate::kernel::{Caller, Calls, OpenCall};
use crate::target::{self, Memory};

/// Everything that is going on: number of the function or span, and since when, `CLOCK_MONOTONIC` in nanoseconds. To go through
/// a table of spans takes time even if it is empty: `has_spans` says whether there may be any.
pub fn since(calls: &Calls, has_spans: bool) -> Result<Vec<(u32, u64)>> {
    let spans = if has_spans { calls.open_spans() } else { Vec::new() };
    let spans = spans.into_iter().map(|span| (span.function, span.since_ns));
    Ok(going_on(calls.open()?).into_iter().map(|call| (call.function, call.since_ns)).chain(spans).collect())
}

/// The calls that are really going on. Those of one caller have to follow each other, the outermost first.
///
/// A thread leaves calls by jumps and exceptions, which no probe sees. Then their return addresses are no more where they
/// were, or the thread's stack ends above them; and what was called later has been left as well.
fn going_on(open: Vec<OpenCall>) -> Vec<OpenCall> {
    let mut kept = Vec::with_capacity(open.len());
    let mut memories: HashMap<u32, Option<Memory>> = HashMap::new();
    for calls in open.chunk_by(|one, other| one.caller == other.caller) {
        let Some(first) = calls.first() else { continue };
        // What cannot be looked at is believed.
        let memory = memories.entry(first.caller.tgid).or_insert_with(|| Memory::of(first.caller.tgid));
        let thread = memory.as_ref().and_then(|memory| Thread::of(&first.caller, memory));
        kept.extend(calls.iter().take_while(|call| thread.as_ref().is_none_or(|thread| thread.is_in(call))));
    }
    kept
}

/// Whoever is in calls.
struct Thread<'memory> {
    memory: &'memory Memory,
    /// `None` for a thread that runs, and a goroutine.
    stack_pointer: Option<u64>,
    /// Positions are relative to it.
    stack_end: u64,
}

impl<'memory> Thread<'memory> {
    fn of(caller: &Caller, memory: &'memory Memory) -> Option<Self> {
        if caller.is_goroutine == 0 {
            let stack_pointer = target::stack_pointer(caller.tgid, caller.id as u32);
            return Some(Self { memory, stack_pointer, stack_end: 0 });
        }
        // `runtime.g` begins with the bounds of the stack (runtime/runtime2.go).
        let stack_end = memory.word(caller.id.wrapping_add(8))?;
        Some(Self { memory, stack_pointer: None, stack_end })
    }

    fn is_in(&self, call: &OpenCall) -> bool {
        if self.stack_pointer.is_some_and(|stack_pointer| call.was_left(stack_pointer)) {
            return false;
        }
        let address = call.position.wrapping_add(self.stack_end);
        self.memory.word(address).is_none_or(|word| word == call.return_address)
    }
}
