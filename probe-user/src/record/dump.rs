//! `Dump`: every thread of a process at one moment, as a recording that can be named like any other.

use std::collections::HashMap;
use std::sync::Arc;

use super::recorder::Recorder;
use super::recording::{Kind, Recording, Thread, Wait};
use super::stacks::{Slot, Stack};
use crate::kernel::{RawStack, RawThread, StackId, thread_name};
use crate::target::ThreadState;

/// All threads of a process.
#[derive(Debug)]
pub struct Dump {
    /// A wait for each thread, in the order of `threads`, as long as the thread has been in its state.
    pub recording: Recording,
    /// What is known beside their stacks.
    pub threads: Vec<DumpedThread>,
}

/// A thread of a dump.
#[derive(Clone, Debug, PartialEq)]
pub struct DumpedThread {
    /// Thread.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: ThreadState,
    /// For how long, in nanoseconds; `None` where the kernel does not keep it.
    pub since_ns: Option<u64>,
    /// CPU time of its life, in nanoseconds.
    pub cpu_ns: u64,
}

/// The two stacks of a thread.
#[derive(Clone, Debug, Default)]
pub struct Stacks {
    pub user: Option<Arc<Stack>>,
    pub kernel: Option<Arc<Stack>>,
}

/// Normalises stacks while their process lives; identical ones once.
pub fn locate(
    threads: Vec<RawThread>,
    mut normalise: impl FnMut(RawStack) -> Stack,
) -> impl Iterator<Item = (RawThread, Stacks)> {
    let mut known: HashMap<StackId, Arc<Stack>> = HashMap::new();
    threads.into_iter().map(move |mut thread| {
        let mut locate = |stack: Option<RawStack>| {
            let stack = stack?;
            Some(known.entry(stack.id).or_insert_with(|| Arc::new(normalise(stack))).clone())
        };
        let stacks = Stacks { user: locate(thread.user_stack.take()), kernel: locate(thread.kernel_stack.take()) };
        (thread, stacks)
    })
}

/// Puts a dump together. `threads` are of one process, `now_ns` is when they were seen.
pub fn assemble(pid: u32, threads: Vec<(RawThread, Stacks)>, recorder: &Recorder, now_ns: u64) -> Dump {
    let mut recording = Recording { kind: Kind::Dump, from_ns: now_ns, to_ns: now_ns, ..Recording::default() };
    if let Some(process) = recorder.processes.recorded(pid) {
        recording.processes.insert(pid, process);
    }
    let mut slots: HashMap<*const Stack, Slot> = HashMap::new();
    let mut dumped = Vec::with_capacity(threads.len());
    for (thread, stacks) in threads {
        let RawThread { tid, comm, state, since_ns, cpu_ns, .. } = thread;
        let mut keep = |stack: Option<Arc<Stack>>| {
            let stack = stack?;
            let next = slots.len() as Slot;
            let slot = *slots.entry(Arc::as_ptr(&stack)).or_insert(next);
            recording.stacks.insert(slot, stack);
            Some(slot)
        };
        let (user, kernel) = (keep(stacks.user), keep(stacks.kernel));
        let since_ns = since_ns.map(|since_ns| now_ns.saturating_sub(since_ns));
        let total_ns = since_ns.unwrap_or(0);
        let wait = Wait { time_ns: now_ns, pid, tid, state, count: 1, total_ns, user, kernel, waker: None };
        recording.waits.push(wait);
        let name = thread_name(&comm);
        recording.threads.insert((pid, tid), Thread { name: name.clone() });
        dumped.push(DumpedThread { tid, name, state, since_ns, cpu_ns });
        if state == ThreadState::Running && user.is_none() && kernel.is_none() {
            *recording.losses.entry("running threads that no sample saw".into()).or_default() += 1;
        }
    }
    Dump { recording, threads: dumped }
}
