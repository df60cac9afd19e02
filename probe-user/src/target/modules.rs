//! Executable files that processes have mapped. A module keeps its file open, so that symbols can be looked up when the
//! file was deleted or replaced, lives in another mount namespace, or its process is gone.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};

use super::elf::{self, Segment};
use super::mappings::{Mapping, parse_maps};
use super::perf_map;

/// Not larger than any real vDSO.
const MAX_VDSO_BYTES: usize = 1 << 20;

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleKind {
    /// A file.
    File,
    /// The kernel's code in user space.
    Vdso,
    /// Memory without a file: generated code. Offsets in it are addresses.
    Anonymous,
}

/// A mapped file, or what stands for one.
#[derive(Debug)]
pub struct Module {
    /// What it is.
    pub kind: ModuleKind,
    /// Path as the process sees it, or a name in brackets.
    pub path: String,
    /// GNU build id in lower-case hex; empty when there is none or the file could not be read.
    pub build_id: String,
    /// Loadable segments; empty when the file could not be read.
    pub segments: Vec<Segment>,
    /// Where it was mapped when it was first seen: start, end, file offset of the start.
    pub mapped: (u64, u64, u64),
    /// Why the file could not be opened; empty when it was.
    pub problem: String,
    /// Of generated code the perf map.
    file: Option<File>,
}

impl Module {
    /// Opens a file that nobody need have mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path, None)?;
        let module = Self::of_file(ModuleKind::File, &std::path::absolute(path)?.to_string_lossy(), (0, 0, 0), file);
        ensure!(module.problem.is_empty(), "{}", module.problem);
        Ok(module)
    }

    /// A path under which this process can open the file: the real one if it still is the same file, since debug files
    /// are looked for beside it, else the open descriptor. `None` when the file could not be opened.
    pub fn open_path(&self) -> Option<PathBuf> {
        let file = self.file.as_ref()?;
        let same = |ours: &Metadata, theirs: &Metadata| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino());
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(theirs)) if same(&ours, &theirs) => Some(PathBuf::from(&self.path)),
            _ => Some(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))),
        }
    }

    /// The perf map of generated code, if its process writes one.
    pub fn perf_map(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.kind == ModuleKind::Anonymous)
    }

    /// The open file; `None` when it could not be opened or there is none. Its position is anyone's: read at offsets, or
    /// seek first.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.kind != ModuleKind::Anonymous)
    }

    /// The address that symbols use for a file offset.
    pub fn virtual_address(&self, file_offset: u64) -> Option<u64> {
        let segment =
            self.segments.iter().find(|s| (s.offset..s.offset.saturating_add(s.size)).contains(&file_offset))?;
        Some(segment.address.wrapping_add(file_offset - segment.offset))
    }

    /// By how much the addresses of a mapping are higher than those that the file's symbols use.
    pub fn bias(&self, start: u64, file_offset: u64) -> Option<u64> {
        // A mapping begins at a page boundary, a segment anywhere in its first page.
        const PAGE: u64 = 4096;
        let covers = |s: &&Segment| {
            s.executable && (s.offset & !(PAGE - 1)..s.offset.saturating_add(s.size)).contains(&file_offset)
        };
        let segment = self.segments.iter().find(covers)?;
        Some(start.wrapping_sub(file_offset).wrapping_add(segment.offset).wrapping_sub(segment.address))
    }

    fn without_file(kind: ModuleKind, path: &str, mapped: (u64, u64, u64), problem: String) -> Self {
        Self { kind, path: path.to_owned(), build_id: String::new(), segments: Vec::new(), mapped, problem, file: None }
    }

    fn of_file(kind: ModuleKind, path: &str, mapped: (u64, u64, u64), file: File) -> Self {
        match elf::read(&file) {
            Ok((build_id, segments)) => Self {
                kind,
                path: path.to_owned(),
                build_id,
                segments,
                mapped,
                problem: String::new(),
                file: Some(file),
            },
            Err(error) => Self::without_file(kind, path, mapped, format!("{error:#}")),
        }
    }
}

/// All modules in use. A file that several processes map is opened once; one that nobody refers to is closed.
#[derive(Debug, Default)]
pub struct Modules {
    /// By device and inode, with the process in which it was opened last.
    files: HashMap<(u32, u32, u64), (u32, Weak<Module>)>,
    /// Memory without a file, by process: only of those that name their code is there more than one.
    anonymous: HashMap<u32, Weak<Module>>,
    vdso: Option<Arc<Module>>,
}

impl Modules {
    /// The module of a mapping of a process. Reads the file while the process lives; a module without symbols is the
    /// answer when that fails.
    pub fn of(&mut self, pid: u32, mapping: &Mapping) -> Arc<Module> {
        if mapping.path == "[vdso]" {
            return self.vdso.get_or_insert_with(|| Arc::new(vdso())).clone();
        }
        if mapping.inode == 0 {
            return self.anonymous(pid);
        }
        let key = (mapping.device.0, mapping.device.1, mapping.inode);
        if let Some((tried, known)) = self.files.get(&key)
            && let Some(module) = known.upgrade()
        {
            // A module that could not be opened is tried again by another process, which may have the file.
            if module.file.is_some() || *tried == pid {
                return module;
            }
        }
        let mapped = (mapping.start, mapping.end, mapping.file_offset);
        let path = mapping.path.trim_end_matches(" (deleted)");
        let module = Arc::new(match open(pid, mapping) {
            Ok(file) => Module::of_file(ModuleKind::File, path, mapped, file),
            Err(error) => {
                tracing::debug!(pid, path, error = format!("{error:#}"), "a mapped file cannot be opened");
                Module::without_file(ModuleKind::File, path, mapped, format!("{error:#}"))
            }
        });
        self.files.insert(key, (pid, Arc::downgrade(&module)));
        module
    }

    /// Generated code of a process, with its perf map if it writes one.
    fn anonymous(&mut self, pid: u32) -> Arc<Module> {
        if let Some(known) = self.anonymous.get(&pid).and_then(Weak::upgrade)
            && known.file.is_some()
        {
            return known;
        }
        let file = perf_map::open(pid);
        // All that is not named is alike.
        let key = if file.is_some() { pid } else { 0 };
        if let Some(known) = self.anonymous.get(&key).filter(|_| key == 0).and_then(Weak::upgrade) {
            return known;
        }
        let nothing = Module::without_file(ModuleKind::Anonymous, "[anon]", (0, 0, 0), String::new());
        let module = Arc::new(Module { file, ..nothing });
        self.anonymous.insert(key, Arc::downgrade(&module));
        module
    }

    /// Forgets modules that nobody refers to.
    pub fn sweep(&mut self) {
        self.files.retain(|_, (_, module)| module.strong_count() > 0);
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

/// Opens a mapped file. `map_files` leads to the very file, deleted or not, in whatever mount namespace; it wants
/// CAP_CHECKPOINT_RESTORE. The path below the process's root is the second best, if it still is the same inode.
fn open(pid: u32, mapping: &Mapping) -> Result<File> {
    let folder = super::folder(pid);
    let link = folder.join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    let direct = open_regular(&link, Some(mapping.inode));
    if direct.is_ok() {
        return direct;
    }
    let path = mapping.path.trim_end_matches(" (deleted)");
    let mut last = direct;
    for path in [folder.join("root").join(path.trim_start_matches('/')), PathBuf::from(path)] {
        last = open_regular(&path, Some(mapping.inode));
        if last.is_ok() {
            break;
        }
    }
    last.with_context(|| format!("cannot open {path} of pid {pid}"))
}

/// Opens a file that somebody else named: only if it is a regular one, and without waiting for anybody.
pub fn open_plain(path: &Path) -> Result<File> {
    open_regular(path, None)
}

fn open_regular(path: &Path, inode: Option<u64>) -> Result<File> {
    // Opening a device can have effects, opening a pipe can wait for ever; and it may become one in between.
    ensure!(std::fs::metadata(path)?.is_file(), "not a regular file");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "not a regular file");
    ensure!(inode.is_none_or(|inode| metadata.ino() == inode), "replaced by another file");
    Ok(file)
}

/// The vDSO is the same in every 64-bit process of a kernel: our own serves.
fn vdso() -> Module {
    let copy = || -> Result<(File, Mapping)> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let mapping = parse_maps(&maps).find(|m| m.path == "[vdso]").context("no [vdso] in our own maps")?;
        let mut bytes = vec![0; ((mapping.end - mapping.start) as usize).min(MAX_VDSO_BYTES)];
        File::open("/proc/self/mem")?.read_exact_at(&mut bytes, mapping.start)?;
        let mut file = File::from(rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        file.rewind()?;
        Ok((file, mapping))
    };
    match copy() {
        Ok((file, mapping)) => Module::of_file(ModuleKind::Vdso, "[vdso]", (mapping.start, mapping.end, 0), file),
        Err(error) => Module::without_file(ModuleKind::Vdso, "[vdso]", (0, 0, 0), format!("{error:#}")),
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
        assert_eq!(first.open_path().unwrap(), exe);
        drop((first, second));
        modules.sweep();
        assert!(modules.is_empty());
    }

    #[test]
    fn the_vdso_has_segments() {
        let module = Modules::default().of(std::process::id(), &own(|path| path == "[vdso]"));
        assert_eq!((module.kind, module.problem.as_str()), (ModuleKind::Vdso, ""));
        assert!(!module.segments.is_empty());
    }

    #[test]
    fn a_file_that_is_gone_is_a_module_with_a_reason() {
        let mapping = Mapping { path: "/nowhere/lib.so".into(), inode: 5, ..Mapping::default() };
        let module = Modules::default().of(u32::MAX, &mapping);
        assert!(module.problem.contains("/nowhere/lib.so"), "{}", module.problem);
        assert_eq!(module.open_path(), None);
    }
}
