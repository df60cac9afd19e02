//! `Symbolizer`: a recording in, a profile out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::heap::{self, LIVE_EVENT};
use super::modules;
use super::named::Named;
use super::naming;
use super::profile::{
    DERIVED_STACKS, Header, Kind, Location, Module as ModuleInfo, OFF_CPU, PAGE_FAULT, PAGE_FAULTS, ProcessInfo,
    Profile, SCHED_SWITCH, Sample, Stack as ProfileStack, ThreadInfo,
};
use crate::kernel::End;
use crate::record::{Events, HeapRecord, Kind as RecordingKind, Recording, Space, Stack};
use crate::target::{self, Module, ThreadState};
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

/// Modules that are named at once, each by a reader.
const NAMERS: usize = 3;

/// Looks names up: those of files by readers, those of the kernel, which it remembers, itself. It is not `Send`: give it a
/// thread of its own.
pub struct Symbolizer {
    kernel: blazesym::symbolize::Symbolizer,
    limit: Option<Duration>,
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbolizer {
    /// One that looks for debug files in the usual folders.
    pub fn new() -> Self {
        Self { kernel: blazesym::symbolize::Symbolizer::builder().enable_demangling(false).build(), limit: None }
    }

    /// One that looks names up for so long for each recording. What has no name by then stays without, which is counted.
    pub fn within(limit: Duration) -> Self {
        Self { limit: Some(limit), ..Self::new() }
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
        builder.name_locations(&self.kernel, self.limit.map(|limit| Instant::now() + limit));
        builder.cut_tracing(recording);
        for sample in &recording.samples {
            builder.add_sample(recording, sample);
        }
        for wait in &recording.waits {
            builder.add_wait(recording, wait);
        }
        for wait in &recording.unseen {
            builder.add_unseen(recording, wait);
        }
        for growth in &recording.growth {
            builder.add_growth(recording, growth);
        }
        builder.add_allocations(recording);
        builder.count_unnamed();
        builder.profile
    }
}

fn header(recording: &Recording) -> Header {
    let uname = rustix::system::uname();
    let Events { cpu, off_cpu, page_fault, malloc } = match recording.kind {
        RecordingKind::Events(events) => events,
        RecordingKind::Dump | RecordingKind::Calls | RecordingKind::Makings => Events::default(),
    };
    let all = |of_cpu: &str, of_waits: &str, of_memory: &str| {
        let parts = [(cpu, of_cpu), (off_cpu, of_waits), (page_fault, of_memory)];
        let parts = parts.into_iter().filter(|(is_there, _)| *is_there);
        parts.map(|(_, part)| part).collect::<Vec<_>>().join(",")
    };
    let (event, unit, sampler, period) = match malloc {
        true => {
            let HeapRecord { sample_bytes, live, .. } = &recording.heap;
            let event = if live.is_some() { LIVE_EVENT } else { "malloc" };
            (event.to_owned(), "bytes", heap::sampler(&recording.heap), *sample_bytes)
        }
        false => {
            let event = match recording.kind {
                RecordingKind::Events(_) => all("cpu", OFF_CPU, PAGE_FAULT),
                RecordingKind::Dump => "threads".into(),
                RecordingKind::Calls => "calls".into(),
                RecordingKind::Makings => "makings".into(),
            };
            let unit = match recording.kind {
                RecordingKind::Makings => "count",
                _ if page_fault && !cpu && !off_cpu => "bytes",
                _ => "nanoseconds",
            };
            let period = 1_000_000_000u64.checked_div(recording.frequency).unwrap_or(0);
            (event, unit, all(recording.clock, SCHED_SWITCH, PAGE_FAULTS), period)
        }
    };
    Header {
        event,
        unit: unit.into(),
        sampler,
        frequency: recording.frequency,
        period,
        started_at_ns: target::wall_ns(recording.from_ns),
        duration_ns: recording.to_ns.saturating_sub(recording.from_ns),
        host: sanitize(&uname.nodename().to_string_lossy()),
        kernel: sanitize(&uname.release().to_string_lossy()),
        in_use: None,
    }
}

/// A profile that grows.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) profile: Profile,
    /// Module's address → index and the module.
    modules: HashMap<*const Module, (u32, Arc<Module>)>,
    kernel_module: Option<u32>,
    /// (module index, address, kind) → location index.
    locations: HashMap<(Option<u32>, u64, Kind), u32>,
    /// Why a location has no name.
    unnamed: HashMap<u32, &'static str>,
    /// Why a location with a name has no more than that.
    poorer: HashMap<u32, &'static str>,
    /// Slot of the recording → its locations and how it ends.
    pub(super) stacks: HashMap<u32, (Vec<u32>, End)>,
    /// Slots of stacks with a frame that was found by its frame pointer only because no unwind information told of it.
    guessed: HashSet<u32>,
    /// And of those with one that was found by what its instructions do, for the same reason.
    derived: HashSet<u32>,
    stack_index: HashMap<(Option<u32>, Option<u32>), u32>,
    /// Indexes of a stack and of its waker's, and the waker's name → index of both together.
    pub(super) woken_index: HashMap<(u32, u32, [u8; 16]), u32>,
    /// Name → location that is no code, as what stands between a stack and its waker's.
    pub(super) separators: HashMap<String, u32>,
    processes: HashMap<u32, u32>,
    threads: HashMap<(u32, u32), u32>,
}

impl Builder {
    fn add_stack(&mut self, slot: u32, stack: &Stack) {
        if stack.guessed {
            self.guessed.insert(slot);
        }
        if stack.derived {
            self.derived.insert(slot);
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
                build_id: module.build_id().to_owned(),
                memory_start,
                memory_limit,
                file_offset,
            });
            (modules.len() as u32 - 1, module.clone())
        });
        *index
    }

    /// One question for each module, not one for each address; several at a time.
    fn name_locations(&mut self, kernel: &blazesym::symbolize::Symbolizer, deadline: Option<Instant>) {
        let mut by_module: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
        for (index, location) in self.profile.locations.iter().enumerate() {
            by_module.entry(location.module).or_default().push(index as u32);
        }
        let modules: HashMap<u32, Arc<Module>> = self.modules.values().cloned().collect();
        let mut files: Vec<(Arc<Module>, Vec<u32>, Vec<u64>)> = Vec::new();
        for (module, indexes) in by_module {
            let addresses: Vec<u64> = indexes.iter().map(|&i| self.profile.locations[i as usize].address).collect();
            let named = match module {
                None => vec![Named::unknown("address in no mapping"); addresses.len()],
                module if module == self.kernel_module => modules::kernel(kernel, &addresses),
                Some(module) => match modules.get(&module) {
                    Some(module) => {
                        files.push((module.clone(), indexes, addresses));
                        continue;
                    }
                    None => vec![Named::unknown("file unreadable"); addresses.len()],
                },
            };
            self.set_names(&indexes, named);
        }
        let named: Vec<Mutex<Vec<Named>>> = files.iter().map(|_| Mutex::default()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((module, _, addresses)) = files.get(at) else { return };
                let answer = naming::module(module, addresses, deadline);
                *named[at].lock().unwrap_or_else(PoisonError::into_inner) = answer;
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..NAMERS.min(files.len()) {
                // Without it the others do its work.
                let _ = std::thread::Builder::new().name("namer".into()).spawn_scoped(scope, work);
            }
            work();
        });
        for ((_, indexes, _), named) in files.iter().zip(named) {
            self.set_names(indexes, named.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn set_names(&mut self, indexes: &[u32], named: Vec<Named>) {
        for (&index, named) in indexes.iter().zip(named) {
            let location = &mut self.profile.locations[index as usize];
            match (named.lines.is_empty(), named.problem) {
                (true, problem) => {
                    // All of a function's code without a name is one frame.
                    location.address = named.start.unwrap_or(location.address);
                    self.unnamed.insert(index, problem.unwrap_or("no symbol"));
                }
                (false, Some(problem)) => drop(self.poorer.insert(index, problem)),
                (false, None) => {}
            }
            location.lines = named.lines;
        }
    }

    fn add_sample(&mut self, recording: &Recording, sample: &crate::record::Sample) {
        let thread = self.thread(recording, sample.pid, sample.tid);
        let stack = self.stack(sample.user, sample.kernel);
        self.count_losses(stack, sample.user, 1);
        let time_ns = sample.time_ns.saturating_sub(recording.from_ns);
        let (value, state) = (sample.period_ns, ThreadState::Running);
        self.profile.samples.push(Sample { thread, stack, time_ns, count: 1, value, state, ..Sample::default() });
    }

    pub(super) fn count_losses(&mut self, stack: u32, user: Option<u32>, count: u64) {
        let losses = &mut self.profile.losses;
        if let Some(reason) = &self.profile.stacks[stack as usize].truncated {
            *losses.entry(format!("stacks truncated: {reason}")).or_default() += count;
        }
        if user.is_some_and(|slot| self.guessed.contains(&slot)) {
            *losses.entry("stacks with frames guessed by frame pointer".into()).or_default() += count;
        }
        if user.is_some_and(|slot| self.derived.contains(&slot)) {
            *losses.entry(DERIVED_STACKS.into()).or_default() += count;
        }
    }

    pub(super) fn stack(&mut self, user: Option<u32>, kernel: Option<u32>) -> u32 {
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

    pub(super) fn thread(&mut self, recording: &Recording, pid: u32, tid: u32) -> u32 {
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
        let is_memory = self.profile.header.unit == "bytes";
        for sample in self.profile.samples.iter().filter(|sample| sample.count > 0) {
            let locations = &self.profile.stacks[sample.stack as usize].locations;
            // How many objects a sample of memory stands for is another matter.
            let count = if is_memory { 1 } else { sample.count };
            let kinds = [(&self.unnamed, "unnamed frames"), (&self.poorer, "frames named by their symbol only")];
            for (reasons, what) in kinds {
                if let Some(reason) = locations.iter().find_map(|location| reasons.get(location)) {
                    *self.profile.losses.entry(format!("samples with {what}: {reason}")).or_default() += count;
                }
            }
        }
    }
}
