//! A process: who it is and what it has mapped, read while it lives.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::folder::folder;
use super::mappings::{Mapping, Mappings, parse_maps};
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

    /// Reads the mappings again. True when there are any: a process that is gone keeps what was known.
    pub fn refresh_mappings(&mut self, modules: &mut Modules) -> bool {
        let Ok(text) = std::fs::read(folder(self.pid).join("maps")) else { return false };
        let text = String::from_utf8_lossy(&text);
        let mut mappings = Mappings::default();
        for mapping in parse_maps(&text) {
            let module = modules.of(self.pid, &mapping);
            mappings.insert(&mapping, module);
        }
        if mappings.is_empty() {
            return false;
        }
        self.mappings = mappings;
        true
    }

    /// Adds a mapping that the kernel reported; the process may be gone already. True if it replaced other code.
    pub fn add_mapping(&mut self, mapping: &Mapping, modules: &mut Modules) -> bool {
        let module = modules.of(self.pid, mapping);
        self.mappings.insert(mapping, module)
    }

    /// It is replacing its program: what is mapped from now on belongs to the new one.
    pub fn begin_exec(&mut self) {
        self.previous = std::mem::take(&mut self.mappings);
    }

    /// It is gone: no code will be looked for any more.
    pub fn forget_mappings(&mut self) {
        self.mappings = Mappings::default();
        self.previous = Mappings::default();
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
