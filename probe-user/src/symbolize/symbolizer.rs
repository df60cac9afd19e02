//! `Symbolizer`: a recording in, a profile out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::modules::{self, Named};
use super::profile::{
    Header, Kind, Line, Location, Module as ModuleInfo, ProcessInfo, Profile, Sample, Stack as ProfileStack, ThreadInfo,
};
use crate::kernel::{End, thread_name};
use crate::record::{Events, Kind as RecordingKind, Recording, Space, Stack, Wait, Waker};
use crate::target::{self, Module, ModuleKind, ThreadState};
use crate::text::sanitize;

/// Functions at which threads begin. A stack that reaches one of them is whole, even if that function keeps no frame
/// pointer to say so.
const ROOTS: [&str; 22] = [
    "_start",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "generic_start_main",
    "libc_start_main_stage2",
    "_start_c",
    "start_c",
    "start_thread",
    "start",
    "__clone",
    "clone",
    "__clone3",
    "clone3",
    "__pthread_start",
    "runtime.goexit",
    "runtime.goexit.abi0",
    "runtime.mstart",
    "runtime.mstart.abi0",
    "runtime.rt0_go.abi0",
    "_rt0_amd64_linux",
    "runtime.mcall",
];

/// What stands between a tracepoint and the program that is attached to it.
const TRACING: [&str; 3] = ["bpf_trace_run", "__traceiter_", "bpf_trampoline"];

/// Looks names up, and remembers the files it has read. It is not `Send`: give it a thread of its own. What it remembers
/// grows with the files it sees, so a long-lived process makes a new one for each piece of work.
pub struct Symbolizer {
    inner: blazesym::symbolize::Symbolizer,
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbolizer {
    /// One that looks for debug files in the usual folders.
    pub fn new() -> Self {
        Self {
            inner: blazesym::symbolize::Symbolizer::builder().enable_code_info(true).enable_inlined_fns(true).build(),
        }
    }

    /// Names everything in a recording. What has no name is data with a reason, not an error.
    pub fn symbolize(&self, recording: &Recording) -> Profile {
        let mut builder = Builder::default();
        builder.profile.header = header(recording);
        builder.profile.losses = recording.losses.clone();
        // Sorted, so that the same recording gives the same profile.
        let mut slots: Vec<_> = recording.stacks.iter().collect();
        slots.sort_by_key(|(slot, _)| **slot);
        for (&slot, stack) in slots {
            builder.add_stack(slot, stack);
        }
        builder.name_locations(&self.inner);
        builder.cut_tracing(recording);
        for sample in &recording.samples {
            builder.add_sample(recording, sample);
        }
        for wait in &recording.waits {
            builder.add_wait(recording, wait);
        }
        builder.count_unnamed();
        builder.profile
    }
}

fn header(recording: &Recording) -> Header {
    let uname = rustix::system::uname();
    let Events { cpu, off_cpu } = match recording.kind {
        RecordingKind::Events(events) => events,
        RecordingKind::Dump => Events::default(),
    };
    let both = |of_cpu: &str, of_waits: &str| {
        let parts = [(cpu, of_cpu), (off_cpu, of_waits)].into_iter().filter(|(is_there, _)| *is_there);
        parts.map(|(_, part)| part).collect::<Vec<_>>().join(",")
    };
    Header {
        event: if recording.kind == RecordingKind::Dump { "threads".into() } else { both("cpu", "off-cpu") },
        unit: "nanoseconds".into(),
        sampler: both(recording.clock, "sched_switch"),
        frequency: recording.frequency,
        period: 1_000_000_000u64.checked_div(recording.frequency).unwrap_or(0),
        started_at_ns: target::wall_ns(recording.from_ns),
        duration_ns: recording.to_ns.saturating_sub(recording.from_ns),
        host: sanitize(&uname.nodename().to_string_lossy()),
        kernel: sanitize(&uname.release().to_string_lossy()),
    }
}

#[derive(Default)]
struct Builder {
    profile: Profile,
    /// Module's address → index and the module.
    modules: HashMap<*const Module, (u32, Arc<Module>)>,
    kernel_module: Option<u32>,
    /// (module index, address, kind) → location index.
    locations: HashMap<(Option<u32>, u64, Kind), u32>,
    /// Why a location has no name.
    unnamed: HashMap<u32, &'static str>,
    /// Slot of the recording → its locations and how it ends.
    stacks: HashMap<u32, (Vec<u32>, End)>,
    /// Slots of stacks with a frame that was found by its frame pointer only because no unwind information told of it.
    guessed: HashSet<u32>,
    stack_index: HashMap<(Option<u32>, Option<u32>), u32>,
    /// Indexes of a stack and of its waker's, and the waker's name → index of both together.
    woken_index: HashMap<(u32, u32, [u8; 16]), u32>,
    /// Name → location that stands between a stack and its waker's.
    separators: HashMap<String, u32>,
    processes: HashMap<u32, u32>,
    threads: HashMap<(u32, u32), u32>,
}

impl Builder {
    fn add_stack(&mut self, slot: u32, stack: &Stack) {
        if stack.guessed {
            self.guessed.insert(slot);
        }
        let mut locations = Vec::with_capacity(stack.frames.len());
        for (depth, frame) in stack.frames.iter().enumerate() {
            // Above the leaf, addresses are return addresses: the call is before them, maybe in another function.
            let address = frame.offset - u64::from(depth > 0 && frame.offset > 0);
            let (kind, module) = match (stack.space, &frame.module) {
                (Space::Kernel, _) => (Kind::Kernel, Some(self.kernel_module())),
                (Space::User, Some(module)) => (Kind::User, Some(self.module(module))),
                (Space::User, None) => (Kind::User, None),
            };
            let next = self.profile.locations.len() as u32;
            let index = *self.locations.entry((module, address, kind)).or_insert(next);
            if index == next {
                self.profile.locations.push(Location { kind, module, address, lines: Vec::new() });
            }
            locations.push(index);
        }
        self.stacks.insert(slot, (locations, stack.end));
    }

    fn kernel_module(&mut self) -> u32 {
        *self.kernel_module.get_or_insert_with(|| {
            self.profile.modules.push(ModuleInfo {
                path: "[kernel]".into(),
                memory_limit: u64::MAX,
                ..ModuleInfo::default()
            });
            self.profile.modules.len() as u32 - 1
        })
    }

    fn module(&mut self, module: &Arc<Module>) -> u32 {
        let modules = &mut self.profile.modules;
        let (index, _) = self.modules.entry(Arc::as_ptr(module)).or_insert_with(|| {
            let (memory_start, memory_limit, file_offset) = module.mapped;
            modules.push(ModuleInfo {
                path: sanitize(&module.path),
                build_id: module.build_id.clone(),
                memory_start,
                memory_limit,
                file_offset,
            });
            (modules.len() as u32 - 1, module.clone())
        });
        *index
    }

    /// One question to blazesym for each module, not one for each address.
    fn name_locations(&mut self, symbolizer: &blazesym::symbolize::Symbolizer) {
        let mut by_module: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
        for (index, location) in self.profile.locations.iter().enumerate() {
            by_module.entry(location.module).or_default().push(index as u32);
        }
        let modules: HashMap<u32, Arc<Module>> = self.modules.values().cloned().collect();
        for (module, indexes) in by_module {
            let addresses: Vec<u64> = indexes.iter().map(|&i| self.profile.locations[i as usize].address).collect();
            let named: Vec<Named> = match module {
                None => vec![Err("address in no mapping"); addresses.len()],
                module if module == self.kernel_module => modules::kernel(symbolizer, &addresses),
                Some(module) => match modules.get(&module) {
                    Some(module) if module.kind == ModuleKind::Anonymous => {
                        vec![Err("code without a file"); addresses.len()]
                    }
                    Some(module) => modules::module(symbolizer, module, &addresses),
                    None => vec![Err("file unreadable"); addresses.len()],
                },
            };
            for (index, named) in indexes.into_iter().zip(named) {
                match named {
                    Ok(lines) => self.profile.locations[index as usize].lines = lines,
                    Err(reason) => drop(self.unnamed.insert(index, reason)),
                }
            }
        }
    }

    /// The kernel stacks of waits begin with what took them: they are of the tracepoint's caller.
    fn cut_tracing(&mut self, recording: &Recording) {
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

    fn add_sample(&mut self, recording: &Recording, sample: &crate::record::Sample) {
        let thread = self.thread(recording, sample.pid, sample.tid);
        let stack = self.stack(sample.user, sample.kernel);
        self.count_losses(stack, sample.user, 1);
        let time_ns = sample.time_ns.saturating_sub(recording.from_ns);
        let (value, state) = (self.profile.header.period, ThreadState::Running);
        self.profile.samples.push(Sample { thread, stack, time_ns, count: 1, value, state });
    }

    fn add_wait(&mut self, recording: &Recording, wait: &Wait) {
        let thread = self.thread(recording, wait.pid, wait.tid);
        let stack = match &wait.waker {
            None => self.stack(wait.user, wait.kernel),
            Some(waker) => self.stack_with_waker(wait, waker),
        };
        self.count_losses(stack, wait.user, wait.count);
        let time_ns = wait.time_ns.saturating_sub(recording.from_ns);
        let (count, value, state) = (wait.count, wait.total_ns, wait.state);
        self.profile.samples.push(Sample { thread, stack, time_ns, count, value, state });
    }

    fn count_losses(&mut self, stack: u32, user: Option<u32>, count: u64) {
        let losses = &mut self.profile.losses;
        if let Some(reason) = &self.profile.stacks[stack as usize].truncated {
            *losses.entry(format!("stacks truncated: {reason}")).or_default() += count;
        }
        if user.is_some_and(|slot| self.guessed.contains(&slot)) {
            *losses.entry("stacks with frames guessed by frame pointer".into()).or_default() += count;
        }
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
        let name = format!("[woken by {}]", thread_name(&waker.comm));
        let next = self.profile.locations.len() as u32;
        let separator = *self.separators.entry(name.clone()).or_insert(next);
        if separator == next {
            let lines = vec![Line { function: name, ..Line::default() }];
            self.profile.locations.push(Location { lines, ..Location::default() });
        }
        let mut locations: Vec<u32> = self.profile.stacks[above as usize].locations.iter().rev().copied().collect();
        locations.push(separator);
        locations.append(&mut stack.locations);
        stack.locations = locations;
        self.profile.stacks.push(stack);
        let index = self.profile.stacks.len() as u32 - 1;
        self.woken_index.insert(key, index);
        index
    }

    fn stack(&mut self, user: Option<u32>, kernel: Option<u32>) -> u32 {
        if let Some(&index) = self.stack_index.get(&(user, kernel)) {
            return index;
        }
        let mut stack = ProfileStack::default();
        for slot in [kernel, user].into_iter().flatten() {
            match self.stacks.get(&slot) {
                Some((locations, end)) => {
                    stack.locations.extend(locations);
                    stack.truncated = end.reason().filter(|_| !self.reaches_root(locations)).map(str::to_owned);
                }
                None => stack.truncated = Some("stack lost".into()),
            }
        }
        self.profile.stacks.push(stack);
        let index = self.profile.stacks.len() as u32 - 1;
        self.stack_index.insert((user, kernel), index);
        index
    }

    /// True if the outermost frames are those at which threads begin: one of [`ROOTS`], or `main` with at most one
    /// frame (the C library's, often without a name) above it.
    fn reaches_root(&self, locations: &[u32]) -> bool {
        let name = |from_end: usize| {
            let index = *locations.get(locations.len().checked_sub(from_end)?)?;
            self.profile.locations[index as usize].lines.last().map(|line| line.function.as_str())
        };
        name(1).is_some_and(|name| ROOTS.contains(&name) || name == "main") || name(2) == Some("main")
    }

    fn thread(&mut self, recording: &Recording, pid: u32, tid: u32) -> u32 {
        if let Some(&index) = self.threads.get(&(pid, tid)) {
            return index;
        }
        let name = recording.threads.get(&(pid, tid)).map_or_else(String::new, |thread| thread.name.clone());
        let process = self.process(recording, pid, &name);
        self.profile.threads.push(ThreadInfo { process, tid, name });
        let index = self.profile.threads.len() as u32 - 1;
        self.threads.insert((pid, tid), index);
        index
    }

    fn process(&mut self, recording: &Recording, pid: u32, thread_name: &str) -> u32 {
        if let Some(&index) = self.processes.get(&pid) {
            return index;
        }
        let known = recording.processes.get(&pid).cloned().unwrap_or_default();
        // A process that was gone before it could be read still has the name of its thread.
        let name = if known.name.is_empty() { thread_name.to_owned() } else { known.name };
        self.profile.processes.push(ProcessInfo { pid, name, exe: known.exe, cmdline: known.cmdline });
        let index = self.profile.processes.len() as u32 - 1;
        self.processes.insert(pid, index);
        index
    }

    /// Counts samples with a frame that has no name, by the reason of the frame nearest to the leaf.
    fn count_unnamed(&mut self) {
        for sample in &self.profile.samples {
            let locations = &self.profile.stacks[sample.stack as usize].locations;
            if let Some(reason) = locations.iter().find_map(|location| self.unnamed.get(location)) {
                *self.profile.losses.entry(format!("samples with unnamed frames: {reason}")).or_default() +=
                    sample.count;
            }
        }
    }
}
