//! Executable files that processes have mapped. A module keeps hold of its file, so that symbols can be looked up when the
//! file was deleted or replaced, lives in another mount namespace, or its process is gone. It is known at once; its file is
//! opened by a reader (`opening`), and what that finds comes later.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::allowance::Allowances;
use super::elf::{self, Segment};
use super::mappings::{Mapping, parse_maps};
use super::monotonic_ns;
use super::opening;
use super::regular;

/// Not larger than any real vDSO.
const MAX_VDSO_BYTES: usize = 1 << 20;

/// A process may have so many files opened at once, and one in so much time from then on: to open one and to make its table takes
/// a millisecond or more. Programs that start map some hundreds.
const FILES_AT_ONCE: u64 = 1024;
const FILE_EVERY: Duration = Duration::from_millis(100);
/// One with so many bytes of code counts twice: its table takes longer.
const BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Another mapping is this part of a file.
const MAPPING: f64 = 0.1;
/// A mapping begins at a page boundary, a segment anywhere in its first page.
const PAGE: u64 = 4096;

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModuleKind {
    /// A file.
    File,
    /// The kernel's code in user space.
    Vdso,
    /// Memory without a file: generated code. Offsets in it are addresses; its file is the perf map that its process writes.
    Anonymous,
}

/// A mapped file, or what stands for one.
#[derive(Debug)]
pub struct Module {
    /// What it is.
    pub kind: ModuleKind,
    /// Path as the process sees it, or a name in brackets.
    pub path: String,
    /// Process in which it was seen first; 0 for a file that was opened by its path.
    pub pid: u32,
    /// Where it was mapped when it was first seen: start, end, file offset of the start.
    pub mapped: (u64, u64, u64),
    opened: OnceLock<Opened>,
    readable: OnceLock<Option<File>>,
}

/// What is known of a module's file when it was opened, or could not be.
#[derive(Debug, Default)]
pub struct Opened {
    /// What its headers say.
    pub headers: Headers,
    /// Why the file could not be opened; empty when it was.
    pub problem: String,
    /// Leads to the file, but does not read it: to close it waits for nobody.
    handle: Option<OwnedFd>,
}

/// What a file's headers say, and which file it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// GNU build id in lower-case hex; empty when there is none or the file could not be read.
    pub build_id: String,
    /// Loadable segments; empty when the file could not be read.
    pub segments: Vec<Segment>,
    /// Which file it is, and as of when.
    pub identity: Identity,
}

/// A file as it was: device, inode, time of change in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    changed_ns: i64,
}

impl Identity {
    /// Device as the kernel numbers it (`MKDEV`, include/linux/kdev_t.h), inode, and time of change in nanoseconds.
    pub fn of_kernel(self) -> (u32, u64, u64) {
        let device = rustix::fs::major(self.device) << 20 | rustix::fs::minor(self.device);
        (device, self.inode, self.changed_ns as u64)
    }
}

/// A module as it is told to a reader, who gets its file as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    kind: ModuleKind,
    path: String,
    headers: Headers,
}

impl Module {
    /// Opens a file that nobody need have mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let handle = regular::find(path, None)?;
        let headers = headers(&handle)?;
        let path = std::path::absolute(path)?.to_string_lossy().into_owned();
        Ok(Self::with(ModuleKind::File, &path, Opened::file(headers, handle)))
    }

    /// The module that was told, with the file that came with it.
    pub fn of_told(told: Told, handle: OwnedFd) -> Self {
        let Told { kind, path, headers } = told;
        Self::with(kind, &path, Opened::file(headers, handle))
    }

    /// The module for a reader, with its file; without it when it could not be opened. Waits as [`Self::wait`].
    pub fn tell(&self) -> (Told, Option<BorrowedFd<'_>>) {
        let opened = self.wait();
        let told = Told { kind: self.kind, path: self.path.clone(), headers: opened.headers.clone() };
        (told, opened.handle.as_ref().map(|file| file.as_fd()))
    }

    /// What is known of its file; `None` until it was opened.
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }

    /// What is known of its file. Waits until it was opened or could not be, a few seconds at most: nothing for a thread that
    /// others wait for.
    pub fn wait(&self) -> &Opened {
        self.opened.wait()
    }

    /// GNU build id in lower-case hex; empty when there is none or the file could not be read. Waits as [`Self::wait`].
    pub fn build_id(&self) -> &str {
        &self.wait().headers.build_id
    }

    /// Loadable segments; empty when the file could not be read. Waits as [`Self::wait`].
    pub fn segments(&self) -> &[Segment] {
        &self.wait().headers.segments
    }

    /// Why the file could not be opened; empty when it was. Waits as [`Self::wait`].
    pub fn problem(&self) -> &str {
        &self.wait().problem
    }

    /// True for the same file, as it is now, however it was found. Waits as [`Self::wait`].
    pub fn is_same_file(&self, other: &Self) -> bool {
        let known = self.identity();
        std::ptr::eq(self, other) || known.is_some() && known == other.identity()
    }

    /// Which file it is, and as of when; `None` when it could not be opened. Waits as [`Self::wait`].
    pub fn identity(&self) -> Option<Identity> {
        let identity = self.wait().headers.identity;
        (identity != Identity::default()).then_some(identity)
    }

    /// The path of the open descriptor, which leads to the very file; `None` when it could not be opened.
    pub fn handle_path(&self) -> Option<PathBuf> {
        Some(PathBuf::from(format!("/proc/self/fd/{}", self.handle()?.as_raw_fd())))
    }

    fn handle(&self) -> Option<&OwnedFd> {
        self.wait().handle.as_ref().filter(|_| self.kind != ModuleKind::Anonymous)
    }

    /// The file, open for reading; `None` when it cannot be opened or there is none. Its position is anyone's: read at
    /// offsets, or seek first. Waits for the file system: nothing for a thread that others wait for.
    pub fn file(&self) -> Option<&File> {
        self.readable().filter(|_| self.kind != ModuleKind::Anonymous)
    }

    /// The perf map of generated code, open for reading, if its process writes one. Waits as [`Self::file`].
    pub fn perf_map(&self) -> Option<&File> {
        self.readable().filter(|_| self.kind == ModuleKind::Anonymous)
    }

    fn readable(&self) -> Option<&File> {
        let reopen = || regular::reopen(self.wait().handle.as_ref()?).ok();
        self.readable.get_or_init(reopen).as_ref()
    }

    /// The address that symbols use for a file offset.
    pub fn virtual_address(&self, file_offset: u64) -> Option<u64> {
        let segment =
            self.segments().iter().find(|s| (s.offset..s.offset.saturating_add(s.size)).contains(&file_offset))?;
        Some(segment.address.wrapping_add(file_offset - segment.offset))
    }

    /// By how much the addresses of a mapping are higher than those that the file's symbols use; `None` where that is not
    /// known, or not yet.
    pub fn bias(&self, start: u64, file_offset: u64) -> Option<u64> {
        let covers = |s: &&Segment| {
            s.executable && (s.offset & !(PAGE - 1)..s.offset.saturating_add(s.size)).contains(&file_offset)
        };
        let segment = self.opened()?.headers.segments.iter().find(covers)?;
        Some(start.wrapping_sub(file_offset).wrapping_add(segment.offset).wrapping_sub(segment.address))
    }

    /// The file offset of code at `address`, where the segments of the file belong that has a mapping elsewhere, from
    /// `start` on of `file_offset`; `None` if none of its code belongs there, or that is not known yet.
    pub fn offset_at(&self, address: u64, start: u64, file_offset: u64) -> Option<u64> {
        // A page of the file may be mapped for two segments, with the end of one and the beginning of the other.
        let is_mapped = |s: &&Segment| (s.offset & !(PAGE - 1)..s.offset.saturating_add(s.size)).contains(&file_offset);
        let segments = &self.opened()?.headers.segments;
        segments.iter().filter(is_mapped).find_map(|mapped| {
            let bias = start.wrapping_sub(file_offset).wrapping_add(mapped.offset).wrapping_sub(mapped.address);
            let own = address.wrapping_sub(bias);
            let is_home = |s: &&Segment| {
                s.executable && (s.address & !(PAGE - 1)..s.address.saturating_add(s.size)).contains(&own)
            };
            let home = segments.iter().find(is_home)?;
            Some(own.wrapping_sub(home.address).wrapping_add(home.offset))
        })
    }

    /// A module whose file is being opened.
    fn unopened(kind: ModuleKind, path: &str, pid: u32, mapped: (u64, u64, u64)) -> Self {
        let (opened, readable) = (OnceLock::new(), OnceLock::new());
        Self { kind, path: path.to_owned(), pid, mapped, opened, readable }
    }

    fn with(kind: ModuleKind, path: &str, opened: Opened) -> Self {
        Self { opened: OnceLock::from(opened), ..Self::unopened(kind, path, 0, (0, 0, 0)) }
    }

    /// Its file was opened, or could not be.
    pub(super) fn set(&self, opened: Opened) {
        // Nobody else sets it.
        let _ = self.opened.set(opened);
    }
}

impl Opened {
    /// True if there is a file.
    pub fn is_file(&self) -> bool {
        self.handle.is_some()
    }

    fn code_bytes(&self) -> u64 {
        self.headers.segments.iter().filter(|segment| segment.executable).map(|segment| segment.size).sum()
    }

    pub(super) fn file(headers: Headers, handle: OwnedFd) -> Self {
        Self { headers, problem: String::new(), handle: Some(handle) }
    }

    pub(super) fn problem(problem: String) -> Self {
        Self { problem, ..Self::default() }
    }
}

/// All modules in use. A file that several processes map is opened once; one that nobody refers to is closed.
#[derive(Debug)]
pub struct Modules {
    /// By device and inode.
    files: HashMap<(u32, u32, u64), Known>,
    /// Memory without a file, by process.
    anonymous: HashMap<u32, Weak<Module>>,
    vdso: Option<Arc<Module>>,
    /// What each process may have opened.
    allowances: Allowances<u32>,
}

/// A module that is in use.
#[derive(Debug)]
struct Known {
    /// In which it was opened last.
    pid: u32,
    module: Weak<Module>,
    /// Its process was charged with its size.
    is_weighed: bool,
}

impl Default for Modules {
    fn default() -> Self {
        let allowances = Allowances::new(FILES_AT_ONCE, FILE_EVERY);
        Self { files: HashMap::new(), anonymous: HashMap::new(), vdso: None, allowances }
    }
}

impl Modules {
    /// The module of a mapping of a process. Its file is asked for at once, while the process lives, and comes later; a
    /// module without symbols is what it is when that fails.
    pub fn of(&mut self, pid: u32, mapping: &Mapping) -> Arc<Module> {
        if mapping.path == "[vdso]" {
            return self.vdso.get_or_insert_with(|| Arc::new(vdso())).clone();
        }
        if mapping.inode == 0 {
            return self.anonymous(pid);
        }
        let key = (mapping.device.0, mapping.device.1, mapping.inode);
        if let Some(known) = self.files.get(&key)
            && let Some(module) = known.module.upgrade()
        {
            // A module that could not be opened is tried again by another process, which may have the file.
            if known.pid == pid || module.opened().is_none_or(Opened::is_file) {
                return module;
            }
        }
        let mapped = (mapping.start, mapping.end, mapping.file_offset);
        let path = mapping.path.trim_end_matches(" (deleted)");
        let now_ns = monotonic_ns();
        if !self.allowances.has_left(&pid, now_ns) {
            let module = Module::unopened(ModuleKind::File, path, pid, mapped);
            module.set(Opened::problem("its process maps too many files".into()));
            return Arc::new(module);
        }
        let module = Arc::new(Module::unopened(ModuleKind::File, path, pid, mapped));
        opening::request(pid, mapping, &module);
        self.allowances.spend(pid, 1.0, now_ns);
        self.files.insert(key, Known { pid, module: Arc::downgrade(&module), is_weighed: false });
        module
    }

    /// Generated code of a process, with its perf map if it writes one.
    fn anonymous(&mut self, pid: u32) -> Arc<Module> {
        if let Some(known) = self.anonymous.get(&pid).and_then(Weak::upgrade) {
            return known;
        }
        let module = Arc::new(Module::unopened(ModuleKind::Anonymous, "[anon]", pid, (0, 0, 0)));
        opening::request_perf_map(pid, &module);
        self.anonymous.insert(pid, Arc::downgrade(&module));
        module
    }

    /// Whether what a process maps is followed now, or is too much.
    pub fn admits(&self, pid: u32) -> bool {
        self.allowances.has_left(&pid, monotonic_ns())
    }

    /// A process has mapped something.
    pub fn charge(&mut self, pid: u32) {
        self.allowances.spend(pid, MAPPING, monotonic_ns());
    }

    /// A process is gone.
    pub fn leave(&mut self, pid: u32) {
        self.allowances.forget(&pid);
    }

    /// Forgets modules that nobody refers to, and charges processes with the size of those that were opened.
    pub fn sweep(&mut self) {
        let (allowances, now_ns) = (&mut self.allowances, monotonic_ns());
        self.files.retain(|_, known| {
            let module = known.module.upgrade();
            if !known.is_weighed
                && let Some(opened) = module.as_ref().and_then(|module| module.opened())
            {
                known.is_weighed = true;
                allowances.spend(known.pid, opened.code_bytes() as f64 / BYTES, now_ns);
            }
            module.is_some()
        });
        self.anonymous.retain(|_, module| module.strong_count() > 0);
    }

    /// Modules in use.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True when no file is in use.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Finds a mapped file. `map_files` leads to the very file, deleted or not, in whatever mount namespace; it wants
/// CAP_CHECKPOINT_RESTORE. The path below the process's root is the second best, if it still is the same inode.
pub(super) fn find(pid: u32, range: (u64, u64), inode: u64, path: &str) -> Result<(Headers, OwnedFd)> {
    let path = path.trim_end_matches(" (deleted)");
    let folder = super::folder(pid);
    let paths = [
        folder.join(format!("map_files/{:x}-{:x}", range.0, range.1)),
        folder.join("root").join(path.trim_start_matches('/')),
        PathBuf::from(path),
    ];
    let mut last = anyhow::anyhow!("no file");
    for candidate in paths {
        match regular::find(&candidate, Some(inode)) {
            Ok(handle) => return Ok((headers(&handle)?, handle)),
            Err(error) => last = error,
        }
    }
    Err(last.context(format!("cannot open {path} of pid {pid}")))
}

fn headers(handle: &OwnedFd) -> Result<Headers> {
    let file = regular::reopen(handle)?;
    let metadata = file.metadata()?;
    let (build_id, segments) = elf::read(&file)?;
    let changed_ns = metadata.ctime().wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec());
    let identity = Identity { device: metadata.dev(), inode: metadata.ino(), changed_ns };
    Ok(Headers { build_id, segments, identity })
}

/// The vDSO is the same in every 64-bit process of a kernel: our own serves.
fn vdso() -> Module {
    let copy = || -> Result<(Opened, Mapping)> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let mapping = parse_maps(&maps).find(|m| m.path == "[vdso]").context("no [vdso] in our own maps")?;
        let mut bytes = vec![0; ((mapping.end - mapping.start) as usize).min(MAX_VDSO_BYTES)];
        File::open("/proc/self/mem")?.read_exact_at(&mut bytes, mapping.start)?;
        let mut file = File::from(rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        file.rewind()?;
        let handle = OwnedFd::from(file);
        Ok((Opened::file(headers(&handle)?, handle), mapping))
    };
    match copy() {
        Ok((opened, mapping)) => {
            let module = Module::with(ModuleKind::Vdso, "[vdso]", opened);
            Module { mapped: (mapping.start, mapping.end, 0), ..module }
        }
        Err(error) => Module::with(ModuleKind::Vdso, "[vdso]", Opened::problem(format!("{error:#}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(path: impl Fn(&str) -> bool) -> Mapping {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        parse_maps(&maps).find(|m| path(&m.path)).expect("mapping")
    }

    #[test]
    fn a_file_is_opened_once_and_forgotten_when_unused() {
        let exe = std::env::current_exe().unwrap();
        let mapping = own(|path| Path::new(path) == exe);
        let mut modules = Modules::default();
        let (first, second) = (modules.of(std::process::id(), &mapping), modules.of(std::process::id(), &mapping));
        assert!(Arc::ptr_eq(&first, &second));
        let same = std::fs::canonicalize(first.handle_path().expect("opened")).expect("a file");
        assert_eq!(same, exe);
        drop((first, second));
        modules.sweep();
        assert!(modules.is_empty());
    }

    #[test]
    fn the_vdso_has_segments() {
        let module = Modules::default().of(std::process::id(), &own(|path| path == "[vdso]"));
        assert_eq!((module.kind, module.problem()), (ModuleKind::Vdso, ""));
        assert!(!module.segments().is_empty());
    }

    #[test]
    fn a_file_that_is_gone_is_a_module_with_a_reason() {
        let mapping = Mapping { path: "/nowhere/lib.so".into(), inode: 5, ..Mapping::default() };
        let module = Modules::default().of(u32::MAX, &mapping);
        assert!(module.problem().contains("/nowhere/lib.so"), "{}", module.problem());
        assert_eq!(module.handle_path(), None);
    }
}
