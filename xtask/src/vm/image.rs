//! The file system that the virtual machine boots into: the programs that the checks run and the libraries that these
//! need, as the archive (`cpio -H newc`) that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;

/// Folders that others are mounted on, or that programs are put into.
const FOLDERS: [&str; 6] = ["bin", "checks", "dev", "proc", "sys", "tmp"];

/// An image while it is put together.
pub struct Image {
    archive: Vec<u8>,
    /// Paths that are in it.
    paths: BTreeSet<PathBuf>,
}

impl Image {
    /// An image with nothing but empty folders.
    pub fn new() -> Self {
        let mut image = Self { archive: Vec::new(), paths: BTreeSet::new() };
        for folder in FOLDERS {
            image.folder(Path::new(folder));
        }
        image
    }

    /// Adds a program, as `bin/NAME`, with the libraries that it is linked against.
    pub fn program(&mut self, name: &str, file: &Path) -> Result<()> {
        self.copy(&Path::new("bin").join(name), file)?;
        // One that is linked statically is none that ldd can tell of.
        let libraries = shell::output(shell::command("ldd").arg(file)).unwrap_or_default();
        for library in libraries_of(&libraries) {
            self.copy(library.strip_prefix("/").unwrap_or(library), library)?;
        }
        Ok(())
    }

    /// Adds a file that can be executed.
    pub fn script(&mut self, path: &str, text: &str) {
        self.entry(Path::new(path), FILE, text.as_bytes());
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.archive
    }

    fn copy(&mut self, path: &Path, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.entry(path, FILE, &content);
        Ok(())
    }

    fn folder(&mut self, path: &Path) {
        self.entry(path, FOLDER, &[]);
    }

    /// Adds an entry that is not there yet, after the folders that it is in.
    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if !self.paths.insert(path.to_path_buf()) {
            return;
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.folder(parent);
        }
        let name = path.as_os_str().as_bytes();
        let header = format!(
            "070701{zero}{mode:08x}{zero}{zero}{links:08x}{zero}{size:08x}{zero}{zero}{zero}{zero}{name:08x}{zero}",
            zero = "00000000",
            links = 1,
            size = content.len(),
            name = name.len() + 1,
        );
        self.archive.extend(header.as_bytes());
        self.archive.extend(name);
        self.archive.push(0);
        self.pad();
        self.archive.extend(content);
        self.pad();
    }

    /// Names and contents end at a multiple of four bytes.
    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// `st_mode` of an executable file and of a folder.
const FILE: u32 = 0o100755;
const FOLDER: u32 = 0o040755;

/// The paths in what ldd prints: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and the loader without an arrow.
fn libraries_of(text: &str) -> impl Iterator<Item = &Path> {
    text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_a_library_and_the_kernels_own_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let libraries: Vec<_> = libraries_of(text).collect();
        assert_eq!(libraries, [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert_eq!(libraries_of("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut image = Image::new();
        image.script("checks/new/one", "abc");
        image.script("checks/new/two", "defg");
        let archive = image.finish();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8(archive).unwrap();
        let names: Vec<_> = text.split("070701").skip(1).filter_map(|e| e[104..].split('\0').next()).collect();
        let expected = ["checks/new", "checks/new/one", "checks/new/two", "TRAILER!!!"];
        assert_eq!(names, [&FOLDERS[..], &expected].concat());
    }
}
