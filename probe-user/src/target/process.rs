//! A process: who it is and what it has mapped, read while it lives.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::folder::folder;
use super::homes::{home, may_be_copy};
use super::mappings::{Mapping, Mappings, parse_all_maps};
use super::modules::{Module, Modules};
use crate::text::sanitize;

/// The inode of the initial pid namespace (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A process as it was when it was last looked at. A process that ended keeps its last state.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// The main thread's name; empty when it could not be read.
    pub comm: String,
    /// Path of the executable as the process sees it.
    pub exe: String,
    /// Command line, joined by spaces.
    pub cmdline: String,
    /// Its executable mappings.
    pub mappings: Mappings,
    /// Those of the program that it is just replacing: until the new one runs, the saved registers are the old one's.
    previous: Mappings,
    /// Files that may be where copies of code came from, as long as they are being opened.
    awaited: Vec<Arc<Module>>,
}

impl Process {
    /// Reads a process. What cannot be read stays empty: it may be gone at any moment.
    pub fn read(pid: u32, modules: &mut Modules) -> Self {
        let mut process = Self::unknown(pid);
        process.refresh(modules);
        process
    }

    /// A process of which nothing is known yet.
    pub fn unknown(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// A child that was just forked off: it has all that its parent has.
    pub fn forked(&self, child: u32) -> Self {
        Self { pid: child, ..self.clone() }
    }

    /// Reads everything again. A process that is gone meanwhile keeps what was known.
    pub fn refresh(&mut self, modules: &mut Modules) {
        if self.refresh_names() {
            self.refresh_mappings(modules);
        }
    }

    /// Reads again how it is called, after an exec. False if it is gone, and keeps what was known.
    pub fn refresh_names(&mut self) -> bool {
        let pid = self.pid;
        let Ok(comm) = std::fs::read(format!("/proc/{pid}/comm")) else { return false };
        self.comm = sanitize(String::from_utf8_lossy(&comm).trim_end_matches('\n'));
        let folder = folder(pid);
        if let Ok(exe) = std::fs::read_link(folder.join("exe")) {
            self.exe = sanitize(exe.to_string_lossy().trim_end_matches(" (deleted)"));
        }
        if let Ok(cmdline) = std::fs::read(folder.join("cmdline"))
            && !cmdline.is_empty()
        {
            let text = String::from_utf8_lossy(&cmdline);
            self.cmdline = sanitize(&text.trim_end_matches('\0').replace('\0', " "));
        }
        true
    }

    /// Reads the mappings again; a process that is gone keeps what was known. Returns what took the place of other code, with
    /// that code.
    pub fn refresh_mappings(&mut self, modules: &mut Modules) -> Vec<(Range<u64>, Vec<Arc<Module>>)> {
        let (all, code) = self.read_mappings();
        if code.is_empty() {
            return Vec::new();
        }
        let mut mappings = Mappings::default();
        // Held until it is done: what nobody holds would be opened again.
        let _awaited = std::mem::take(&mut self.awaited);
        for mapping in code {
            self.put(&mut mappings, &mapping, &all, modules);
        }
        let before = std::mem::replace(&mut self.mappings, mappings);
        let others = |(start, end, file_offset, module): (u64, u64, u64, &Arc<Module>)| {
            let others = before.other_code(start, end, file_offset, module);
            (!others.is_empty()).then_some((start..end, others))
        };
        self.mappings.iter().filter_map(others).collect()
    }

    /// Whether it is known by now where copies of code came from, and was not when mappings were read.
    pub fn knows_more(&self) -> bool {
        self.awaited.iter().any(|module| module.opened().is_some())
    }

    /// Whether it is not known yet where copies of code came from.
    pub fn awaits_files(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// All mappings, and those that are executable; none of a process that is gone.
    fn read_mappings(&self) -> (Vec<Mapping>, Vec<Mapping>) {
        let text = std::fs::read(folder(self.pid).join("maps")).unwrap_or_default();
        let all: Vec<(Mapping, bool)> = parse_all_maps(&String::from_utf8_lossy(&text)).collect();
        let code = all.iter().filter(|(_, executable)| *executable).map(|(mapping, _)| mapping.clone()).collect();
        (all.into_iter().map(|(mapping, _)| mapping).collect(), code)
    }

    /// Puts an executable mapping among the others: a copy of code as the file that it came from.
    fn put(
        &mut self,
        mappings: &mut Mappings,
        mapping: &Mapping,
        all: &[Mapping],
        modules: &mut Modules,
    ) -> Vec<Arc<Module>> {
        let copied = match may_be_copy(mapping) {
            true => home(mapping, all, self.pid, modules, &mut self.awaited),
            false => None,
        };
        match copied {
            Some((module, file_offset)) => mappings.insert(&Mapping { file_offset, ..mapping.clone() }, module),
            None => mappings.insert(mapping, modules.of(self.pid, mapping)),
        }
    }

    /// Adds a mapping that the kernel reported; the process may be gone already. Returns the other code that it replaced.
    pub fn add_mapping(&mut self, mapping: &Mapping, modules: &mut Modules) -> Vec<Arc<Module>> {
        // What is mapped around it tells a copy of code from generated code that took the place of a file which is gone.
        let is_over_file = may_be_copy(mapping) && self.mappings.has_file_in(mapping.start, mapping.end);
        let all = if is_over_file { self.read_mappings().0 } else { Vec::new() };
        let mut mappings = std::mem::take(&mut self.mappings);
        let replaced = self.put(&mut mappings, mapping, &all, modules);
        self.mappings = mappings;
        replaced
    }

    /// It is replacing its program: what is mapped from now on belongs to the new one.
    pub fn begin_exec(&mut self) {
        self.previous = std::mem::take(&mut self.mappings);
    }

    /// It is gone: no code will be looked for any more.
    pub fn forget_mappings(&mut self) {
        self.mappings = Mappings::default();
        self.previous = Mappings::default();
        self.awaited.clear();
    }

    /// It replaced its program by the one at `path`. What is known from the event alone serves if the process is gone
    /// before it can be read.
    pub fn replaced_by(&mut self, path: &OsStr) {
        self.previous = Mappings::default();
        let path = path.to_string_lossy();
        self.exe = sanitize(&path);
        self.cmdline = self.exe.clone();
        self.comm = sanitize(path.rsplit('/').next().unwrap_or_default()).chars().take(15).collect();
    }

    /// Bytes that it occupies, roughly.
    pub fn bytes(&self) -> usize {
        const MAPPING: usize = 80;
        size_of::<Self>() * 2 + self.comm.len() + self.exe.len() + self.cmdline.len() + self.mappings.len() * MAPPING
    }

    /// The module at an address, and the offset in it.
    pub fn locate(&self, address: u64) -> Option<(&Arc<Module>, u64)> {
        self.mappings.locate(address).or_else(|| self.previous.locate(address))
    }
}

/// True if a process with this id exists.
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The user stack pointer of a thread that waits in the kernel; `None` if it runs, or is gone.
pub fn stack_pointer(pid: u32, tid: u32) -> Option<u64> {
    // Number and arguments of the system call, stack pointer, program counter (proc(5)).
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    u64::from_str_radix(words.get(words.len().checked_sub(2)?)?.strip_prefix("0x")?, 16).ok()
}

/// The process that a thread belongs to: itself for a process id. `None` when there is no such thread.
pub fn process_of_thread(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// May its mappings be read, and so what its addresses mean? A process that is gone meanwhile is no error.
pub fn check_access(pid: u32) -> std::io::Result<()> {
    match std::fs::File::open(folder(pid).join("maps")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// True if our process ids are the kernel's. In a pid namespace of its own (a container without the host's pids) the
/// numbers that the kernel reports would mean other processes.
pub fn own_pid_namespace_is_initial() -> Result<bool> {
    let link = std::fs::read_link("/proc/self/ns/pid").context("cannot read /proc/self/ns/pid")?;
    Ok(link.as_os_str() == INITIAL_PID_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_read() {
        let mut modules = Modules::default();
        let process = Process::read(std::process::id(), &mut modules);
        let exe = std::env::current_exe().unwrap();
        assert_eq!(Path::new(&process.exe), exe);
        assert!(process.cmdline.contains(exe.file_name().unwrap().to_str().unwrap()));
        let function = our_own_process_is_read as fn() as usize as u64;
        assert_eq!(Path::new(&process.locate(function).unwrap().0.path), exe);
    }

    #[test]
    fn a_process_that_is_gone_is_empty_and_stays_what_it_was() {
        let mut modules = Modules::default();
        let mut process = Process::read(u32::MAX, &mut modules);
        assert!(process.mappings.is_empty() && process.comm.is_empty());
        process.comm = "was".into();
        process.refresh(&mut modules);
        assert_eq!(process.comm, "was");
    }
}
