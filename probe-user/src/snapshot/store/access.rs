//! Who may read a store: its owner, and a group if there is one for it. And the lock of the one who writes.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Store, index, locked};
use crate::problem::{Exit, Problem};

/// Who may read what is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Access {
    group: Option<u32>,
}

impl Access {
    pub(super) fn new(group: Option<u32>) -> Self {
        Self { group }
    }

    /// Makes a folder.
    pub(super) fn make_folder(self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        self.share(path)
    }

    /// Makes a file, to be written.
    pub(super) fn make_file(self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        if let Some(group) = self.group {
            fchown(&file, None, Some(group))?;
            file.set_permissions(Permissions::from_mode(0o640))?;
        }
        Ok(file)
    }

    /// Lets the group read a file or folder that is there.
    pub(super) fn share(self, path: &Path) -> io::Result<()> {
        let Some(group) = self.group else { return Ok(()) };
        let metadata = fs::symlink_metadata(path)?;
        let mode = if metadata.is_dir() { 0o750 } else { 0o640 };
        if metadata.is_symlink() || (metadata.gid() == group && metadata.mode() & 0o777 == mode) {
            return Ok(());
        }
        if metadata.gid() != group {
            chown(path, None, Some(group))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

/// Makes the folder of a store if it is missing, and becomes the one who writes to it.
pub(super) fn lock(path: &Path, access: Access, patience: Duration) -> Result<File> {
    let failed = |error: io::Error| {
        let message = format!("cannot open the store {}", path.display());
        let (exit, hint) = match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => {
                (Exit::Failure, "remount it for writing, or choose another [store] path")
            }
            io::ErrorKind::PermissionDenied => (Exit::NotPermitted, "run as its owner, or choose another [store] path"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (Exit::Failure, "make room on the disk"),
            _ => return anyhow::Error::new(error).context(message),
        };
        let problem = Problem::new(exit, format!("{message}: {error}"), hint);
        anyhow::Error::new(error).context(problem)
    };
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        // A power cut must not take the whole folder with it.
        for parent in path.ancestors().skip(1).take(2) {
            let _ = File::open(parent).and_then(|parent| parent.sync_all());
        }
    }
    let lock = path.join(".lock");
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock).map_err(failed)?;
    // One whose supervisor was killed is about to end.
    let end = Instant::now() + patience;
    let mut locked = lock.try_lock();
    while matches!(locked, Err(TryLockError::WouldBlock)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        locked = lock.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(Problem::new(
            Exit::Failure,
            format!("the store {} is in use by another daemon", path.display()),
            "stop that one, or give this one a store of its own: [store] path",
        )),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    access.share(path).with_context(|| group_failed(path, access))?;
    Ok(lock)
}

impl Store {
    /// Somebody may have removed the store and all that is in it: it is made anew, as it was, and taken again.
    pub(super) fn retake(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let mut held = locked(&writer.lock);
        let id = |data: fs::Metadata| (data.dev(), data.ino());
        let now = fs::metadata(self.path.join(".lock")).map(id).ok();
        if now.is_some() && now == held.metadata().map(id).ok() {
            return Ok(());
        }
        *held = lock(&self.path, Access::new(self.options.group), Duration::ZERO)?;
        tracing::warn!("the store {} was removed: it is created again", self.path.display());
        Ok(())
    }

    /// Lets the group read what was stored before there was one.
    pub(super) fn share(&self, access: Access) -> Result<()> {
        if access.group.is_none() {
            return Ok(());
        }
        let index = self.path.join(index::FILE);
        if index.exists() {
            access.share(&index).with_context(|| group_failed(&index, access))?;
        }
        for id in self.ids()? {
            let folder = self.folder(id);
            let shared = fs::read_dir(&folder).and_then(|mut entries| {
                entries.try_for_each(|entry| access.share(&entry?.path()))?;
                access.share(&folder)
            });
            if let Err(error) = shared {
                tracing::warn!("{}: {error}", group_failed(&folder, access));
            }
        }
        Ok(())
    }
}

fn group_failed(path: &Path, access: Access) -> String {
    format!("cannot let the group {} read {}", access.group.unwrap_or_default(), path.display())
}
