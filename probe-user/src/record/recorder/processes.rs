//! `Processes`: the processes that are watched, or were: what they have mapped, and how they and their threads are called.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::sync::Arc;

use super::super::pins::Pins;
use super::super::recording::{RecordedProcess, Thread};
use super::super::stacks::{Frame, Space, Stack};
use super::replaced::Replaced;
use probe_ebpf::abi::EXACT_FRAME;

use crate::kernel::{End, RawStack, thread_name};
use crate::target::{Mapping, Mappings, Module, ModuleKind, Modules, Opened, Process, monotonic_ns};
use crate::text::until_zero;

/// Mappings of a process are read again for an unknown address at most once in this time.
const REFRESH_NS: u64 = 100_000_000;

/// And takes at most one part in so many of the time.
const SHARE: u64 = 100;
/// Reading again takes at most this long at once.
const CATCH_UP_NS: u64 = 5_000_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Processes {
    modules: Modules,
    pub(super) tracked: HashMap<u32, Tracked>,
    pub(super) threads: HashMap<(u32, u32), Thread>,
    follow_strangers: bool,
    /// Code whose place other code took: process, since when (`CLOCK_MONOTONIC`, nanoseconds), what it was.
    renewed: Vec<(u32, u64, Vec<Arc<Module>>)>,
    /// Processes whose mappings are not what the kernel was last told.
    changed: HashSet<u32>,
    /// Processes with code of which it is not known yet where it came from.
    awaiting: HashSet<u32>,
    /// At the last trim.
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Tracked {
    process: Process,
    /// Name given by whoever watches it.
    service: Option<String>,
    /// Code that took the place of other code lately.
    replaced: Replaced,
    /// When its mappings may be read again: the more there are of them, the later.
    readable_ns: u64,
    /// It is replacing its program, of which the mappings are reported.
    is_told: bool,
    /// Its mappings are not all that there are.
    is_stale: bool,
    /// Mappings that were not followed.
    missed: u64,
    /// It ended, or nobody watches it any more: forgotten when its last sample is.
    released: bool,
    /// It gave samples that are still kept.
    sampled: bool,
    /// It has left a trace since that was asked last.
    is_active: bool,
}

impl Processes {
    /// Reads a process that is watched from now on, before its samples matter.
    pub fn watch(&mut self, pid: u32, service: Option<String>) {
        let process = Process::read(pid, &mut self.modules);
        self.tracked.insert(pid, Tracked { process, service, ..Tracked::default() });
        self.changed.insert(pid);
    }

    /// From now on also the mappings of processes are followed whose parent is not watched.
    pub fn follow_strangers(&mut self) {
        self.follow_strangers = true;
    }

    /// Forgets a process when its last sample is too old.
    pub fn release(&mut self, pid: u32) {
        if let Some(tracked) = self.tracked.get_mut(&pid) {
            tracked.released = true;
            self.changed.insert(pid);
        }
    }

    /// A process was created.
    pub fn fork(&mut self, parent: u32, child: u32) {
        let (process, service) = match self.tracked.get(&parent) {
            Some(parent) => (parent.process.forked(child), parent.service.clone()),
            None if self.follow_strangers => (Process::unknown(child), None),
            None => return,
        };
        // The kernel may have reused the id of a process that is still remembered.
        self.tracked.insert(child, Tracked { process, service, ..Tracked::default() });
        self.changed.insert(child);
    }

    /// A process is replacing its program: what it maps from here on is of the new one.
    pub fn begin_exec(&mut self, pid: u32) {
        if let Some(tracked) = self.tracked.get_mut(&pid) {
            tracked.process.begin_exec();
            tracked.is_told = true;
        }
    }

    /// A process has replaced its program. The mappings of the new image were reported before; /proc is read where those reports
    /// were lost. If the process is gone already, or does so all the time, what was reported stays.
    pub fn exec(&mut self, pid: u32, path: &OsStr, now_ns: u64) {
        if let Some(tracked) = self.tracked.get_mut(&pid) {
            tracked.process.replaced_by(path);
            self.changed.insert(pid);
            let is_complete = std::mem::take(&mut tracked.is_told) && !tracked.process.mappings.is_empty();
            if !self.modules.admits(pid) {
                tracked.is_stale |= !is_complete;
                return;
            }
            tracked.process.refresh_names();
            if !is_complete {
                tracked.process.refresh_mappings(&mut self.modules);
                tracked.readable_ns = now_ns + REFRESH_NS;
            }
        }
    }

    /// A process mapped code at a time. Mappings of every process on the host are reported; those of strangers do not matter.
    pub fn map(&mut self, pid: u32, time_ns: u64, mapping: &Mapping) {
        if let Some(tracked) = self.tracked.get_mut(&pid) {
            if !self.modules.admits(pid) {
                tracked.is_stale = true;
                tracked.missed += 1;
                return;
            }
            self.modules.charge(pid);
            self.changed.insert(pid);
            let others = tracked.process.add_mapping(mapping, &mut self.modules);
            if !others.is_empty() {
                tracked.replaced.add(mapping.start..mapping.end);
                self.renewed.push((pid, time_ns, others));
            }
        }
    }

    /// Reads the mappings again of those processes of which more is known by now. `now_ns` is the present.
    pub fn find_homes(&mut self, now_ns: u64) {
        let Self { tracked, modules, renewed, changed, awaiting, .. } = self;
        awaiting.retain(|&pid| {
            let Some(tracked) = tracked.get_mut(&pid).filter(|tracked| !tracked.released) else { return false };
            if tracked.process.knows_more() && modules.admits(pid) {
                renewed.extend(tracked.read_mappings(modules).into_iter().map(|others| (pid, now_ns, others)));
                changed.insert(pid);
            }
            tracked.process.awaits_files()
        });
    }

    /// Code whose place other code took since the last call: stacks of the process through it mean something else since a time.
    pub fn take_renewed(&mut self) -> Vec<(u32, u64, Vec<Arc<Module>>)> {
        std::mem::take(&mut self.renewed)
    }

    /// The kernel knows the mappings of a process as they are now.
    pub fn told(&mut self, pid: u32, now_ns: u64) {
        if let Some(tracked) = self.tracked.get_mut(&pid) {
            tracked.replaced.told(now_ns);
        }
    }

    /// A thread has left a trace.
    pub fn seen(&mut self, pid: u32, tid: u32, comm: &[u8]) {
        match self.threads.entry((pid, tid)) {
            Entry::Vacant(entry) => drop(entry.insert(Thread { name: thread_name(comm) })),
            Entry::Occupied(mut entry) => {
                if !entry.get().name.as_bytes().eq(until_zero(comm)) {
                    entry.get_mut().name = thread_name(comm);
                }
            }
        }
        let tracked = tracked(&mut self.tracked, &mut self.changed, pid, &mut self.modules);
        (tracked.sampled, tracked.is_active) = (true, true);
    }

    /// The processes that have left a trace since the last call.
    pub fn take_active(&mut self) -> BTreeSet<u32> {
        let was_active = |tracked: &mut Tracked| std::mem::take(&mut tracked.is_active);
        self.tracked.iter_mut().filter_map(|(&pid, tracked)| was_active(tracked).then_some(pid)).collect()
    }

    /// Normalises a stack, and says whether it was taken too early: before the kernel knew the code. `now_ns` is the present,
    /// `CLOCK_MONOTONIC`.
    pub fn locate(&mut self, mut raw: RawStack, now_ns: u64) -> (Stack, bool) {
        let mut is_early = false;
        let frames = match raw.pid {
            None => raw.frames.iter().map(|&offset| Frame { module: None, offset }).collect(),
            Some(pid) => {
                let tracked = tracked(&mut self.tracked, &mut self.changed, pid, &mut self.modules);
                let exact = take_exact(&mut raw.frames);
                let is_known = |tracked: &Tracked, address: &u64| tracked.process.locate(*address).is_some();
                // New code that no event told of: an event was lost.
                if !raw.frames.iter().all(|address| is_known(tracked, address))
                    && !tracked.released
                    && now_ns >= tracked.readable_ns
                {
                    // The events of some may be still to come, and find them there.
                    let renewed = tracked.read_mappings(&mut self.modules);
                    self.renewed.extend(renewed.into_iter().map(|others| (pid, raw.time_ns, others)));
                    self.changed.insert(pid);
                }
                is_early = tracked.replaced.cut(&mut raw);
                // A return address where no code is was no return address: the frame pointer led astray.
                if let Some(leaf) = raw.frames.first()
                    && is_known(tracked, leaf)
                    && let Some(astray) = raw.frames.iter().position(|address| !is_known(tracked, address))
                {
                    raw.frames.truncate(astray);
                    raw.end = End::NoFramePointer;
                }
                let locate = |(&address, is_exact): (&u64, bool)| match tracked.process.locate(address) {
                    Some((module, offset)) => {
                        Frame { module: Some(module.clone()), offset: offset + u64::from(is_exact) }
                    }
                    None => Frame { module: None, offset: address + u64::from(is_exact) },
                };
                raw.frames.iter().zip(exact).map(locate).collect()
            }
        };
        let space = if raw.pid.is_some() { Space::User } else { Space::Kernel };
        (Stack { space, frames, end: raw.end, guessed: raw.guessed, derived: raw.derived }, is_early)
    }

    /// Keeps the names of these threads and of those that are pinned, and their processes also when they are gone.
    pub fn keep(&mut self, threads: &HashSet<(u32, u32)>, pins: &Pins) {
        self.threads.retain(|thread, _| threads.contains(thread) || pins.has_thread(*thread));
        let pids: HashSet<u32> = threads.iter().map(|(pid, _)| *pid).collect();
        for (pid, tracked) in &mut self.tracked {
            tracked.sampled = pids.contains(pid) || pins.has_process(*pid);
        }
    }

    /// A process that is gone needs its mappings no more: its stacks are located. One without samples is forgotten.
    pub fn trim(&mut self) {
        let modules = &mut self.modules;
        self.tracked.retain(|&pid, tracked| {
            let is_kept = !tracked.released || tracked.sampled;
            if !is_kept {
                modules.leave(pid);
            }
            is_kept
        });
        for tracked in self.tracked.values_mut().filter(|tracked| tracked.released) {
            tracked.process.forget_mappings();
        }
        self.bytes = self.threads.len() * size_of::<((u32, u32), Thread)>() * 2
            + self.tracked.values().map(|tracked| tracked.process.bytes()).sum::<usize>();
        self.modules.sweep();
    }

    /// Mappings that were not followed since the last call: process, reason, count.
    pub fn take_lost(&mut self) -> Vec<(u32, String, u64)> {
        let lost = self.tracked.iter_mut().filter(|(_, tracked)| tracked.missed > 0);
        let reason = |tracked: &Tracked| {
            let name = tracked.service.as_ref().unwrap_or(&tracked.process.comm);
            format!("mappings not followed: {name} maps too much code")
        };
        lost.map(|(&pid, tracked)| (pid, reason(tracked), std::mem::take(&mut tracked.missed))).collect()
    }

    /// Some of what processes have mapped was not told.
    pub fn doubt_mappings(&mut self) {
        for tracked in self.tracked.values_mut().filter(|tracked| tracked.sampled && !tracked.released) {
            tracked.is_stale = true;
        }
    }

    /// Reads again what some processes have mapped of which not all was told; those that are not reached have the next turn.
    pub fn catch_up(&mut self) {
        let (begin_ns, modules) = (monotonic_ns(), &mut self.modules);
        let stale = self.tracked.iter_mut().filter(|(_, tracked)| tracked.is_stale && !tracked.released);
        for (&pid, tracked) in stale {
            let now_ns = monotonic_ns();
            if now_ns - begin_ns >= CATCH_UP_NS {
                break;
            }
            if now_ns >= tracked.readable_ns && modules.admits(pid) {
                let renewed = tracked.read_mappings(modules);
                self.renewed.extend(renewed.into_iter().map(|others| (pid, now_ns, others)));
                self.changed.insert(pid);
            }
        }
    }

    /// Bytes of processes and threads at the last trim, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The processes whose mappings have changed since the last call, with their mappings, as far as they are known, and whether
    /// they are still watched.
    pub fn take_changed(&mut self) -> Vec<(u32, Option<&Mappings>, bool)> {
        let changed = std::mem::take(&mut self.changed);
        let awaits = |pid: &&u32| self.tracked.get(pid).is_some_and(|tracked| tracked.process.awaits_files());
        self.awaiting.extend(changed.iter().filter(awaits));
        let of = |pid| match self.tracked.get(&pid) {
            Some(tracked) => (pid, Some(&tracked.process.mappings), !tracked.released),
            None => (pid, None, false),
        };
        changed.into_iter().map(of).collect()
    }

    /// Has all processes reported as changed again.
    pub fn mark_all_changed(&mut self) {
        self.changed.extend(self.tracked.keys());
    }

    /// Has these processes reported as changed again.
    pub fn mark_changed(&mut self, pids: impl IntoIterator<Item = u32>) {
        self.changed.extend(pids);
    }

    /// Processes that have mapped one of these modules, which go by their addresses.
    pub fn with_modules(&self, modules: &HashSet<usize>) -> Vec<u32> {
        let has_one = |tracked: &Tracked| {
            tracked.process.mappings.iter().any(|(_, _, _, module)| modules.contains(&(Arc::as_ptr(module) as usize)))
        };
        self.tracked.iter().filter(|(_, tracked)| has_one(tracked)).map(|(&pid, _)| pid).collect()
    }

    /// The files that a process has mapped as code, but for those that could not be opened; none if it is not watched.
    pub fn files(&self, pid: u32) -> Vec<Arc<Module>> {
        let mut files: Vec<Arc<Module>> = Vec::new();
        for (_, _, _, module) in self.tracked.get(&pid).into_iter().flat_map(|tracked| tracked.process.mappings.iter())
        {
            if module.kind != ModuleKind::Anonymous
                && module.opened().is_none_or(Opened::is_file)
                && !files.iter().any(|known| Arc::ptr_eq(known, module))
            {
                files.push(module.clone());
            }
        }
        files
    }

    /// What is known of a process.
    pub fn recorded(&self, pid: u32) -> Option<RecordedProcess> {
        let Tracked { process: Process { comm, exe, cmdline, .. }, service, .. } = self.tracked.get(&pid)?;
        let name = service.as_ref().unwrap_or(comm);
        Some(RecordedProcess { name: name.clone(), exe: exe.clone(), cmdline: cmdline.clone() })
    }

    /// What is known of a thread.
    pub fn thread(&self, thread: (u32, u32)) -> Option<&Thread> {
        self.threads.get(&thread)
    }
}

impl Tracked {
    /// Reads its mappings again; returns the code whose place other code took.
    fn read_mappings(&mut self, modules: &mut Modules) -> Vec<Vec<Arc<Module>>> {
        let begin_ns = monotonic_ns();
        let mut renewed = Vec::new();
        for (addresses, others) in self.process.refresh_mappings(modules) {
            self.replaced.add(addresses);
            renewed.push(others);
        }
        let now_ns = monotonic_ns();
        self.is_stale = !modules.admits(self.process.pid);
        self.readable_ns = now_ns + REFRESH_NS.max((now_ns - begin_ns) * SHARE);
        renewed
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

/// Takes the marks off the addresses of a stack of user code: which of them, above the leaf, are no return addresses. Those
/// are what a signal interrupted, and the frame below it: the handler returns to the first instruction of that.
fn take_exact(frames: &mut [u64]) -> Vec<bool> {
    let interrupted: Vec<bool> = frames.iter().map(|frame| frame & EXACT_FRAME != 0).collect();
    frames.iter_mut().for_each(|frame| *frame &= !EXACT_FRAME);
    let is_exact = |at: usize| at > 0 && (interrupted[at] || interrupted.get(at + 1) == Some(&true));
    (0..frames.len()).map(is_exact).collect()
}
