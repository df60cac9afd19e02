//! Regular files, and nothing else, are opened: a device has effects, a pipe waits for ever. A file is found first, without
//! being opened (`O_PATH`), and looked at; what is opened then is what was looked at, whatever takes its place meanwhile.

use std::fs::{File, Metadata};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{Mode, OFlags};

/// Finds a regular file; with `inode`, that one.
pub(super) fn find(path: &Path, inode: Option<u64>) -> Result<OwnedFd> {
    let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let metadata = metadata(&handle)?;
    ensure!(metadata.is_file(), "not a regular file");
    ensure!(inode.is_none_or(|inode| metadata.ino() == inode), "replaced by another file");
    Ok(handle)
}

/// What the file system says of it.
pub(super) fn metadata(handle: &OwnedFd) -> Result<Metadata> {
    // It is not read by this, and lends the descriptor only.
    Ok(File::from(handle.as_fd().try_clone_to_owned()?).metadata()?)
}

/// Opens what was found, for reading.
pub(super) fn reopen(handle: &OwnedFd) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Opens a regular file for reading.
pub fn open_regular(path: &Path) -> Result<File> {
    reopen(&find(path, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_devices_are_not_opened() {
        let folder = tempfile::tempdir().expect("made");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .expect("made");
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            assert!(open_regular(path).unwrap_err().to_string().contains("not a regular file"), "{path:?}");
        }
        assert!(open_regular(&std::env::current_exe().unwrap()).is_ok());
    }
}
