//! Storing a snapshot: all of it, on the disk, or nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ulid::Ulid;

use super::access::Access;
use super::check::{SIDECAR, SUMS, Sums};
use super::index::Row;
use super::pins::PINNED;
use super::{Profiles, Store, locked};
use crate::problem::{Exit, Problem};
use crate::snapshot::{ProfileEntry, Sidecar};

const FORMAT: &str = "pprof";

/// How the hidden folder of a snapshot ends that is being written.
pub(super) const UNFINISHED: &str = ".tmp";
/// And of one that is being removed.
pub(super) const GONE: &str = ".gone";

/// Where writing can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    WriteFile,
    SyncFile,
    SyncFolder,
    Rename,
    SyncStore,
    Index,
}

impl Store {
    /// Stores a snapshot; when this returns it is on the disk, and when it fails nothing of it is. Completes
    /// [`Sidecar::profiles`]. Then removes what exceeds the limits.
    pub fn put(&self, sidecar: &Sidecar, profiles: &Profiles) -> Result<PathBuf> {
        let id = sidecar.id;
        let folder = self.folder(id);
        self.writer("store", id)?;
        self.retake()?;
        let temporary = self.path.join(format!(".{id}{UNFINISHED}"));
        let bytes = self.write(sidecar, profiles, &temporary, &folder).map_err(|error| {
            let _ = fs::remove_dir_all(&temporary);
            let message = format!("cannot store the snapshot {}", folder.display());
            let is_full = is_full_disk(&error);
            let error = anyhow::Error::new(error);
            if is_full {
                let hint = "make room, or lower max_bytes in [store]";
                error.context(Problem::new(Exit::Failure, format!("{message}: the disk is full"), hint))
            } else {
                error.context(message)
            }
        })?;
        self.remember(id, &Row::new(sidecar, bytes));
        self.enforce(Some(id));
        Ok(folder)
    }

    /// How many bytes were written.
    fn write(&self, sidecar: &Sidecar, profiles: &Profiles, temporary: &Path, folder: &Path) -> io::Result<u64> {
        let files = profiles.files();
        let entry = |&(window, bytes): &(_, &[u8])| ProfileEntry {
            window,
            format: FORMAT.to_owned(),
            bytes: bytes.len() as u64,
        };
        let sidecar = Sidecar { profiles: files.iter().map(entry).collect(), ..sidecar.clone() };
        match fs::remove_dir_all(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => Access::new(self.options.group).make_folder(temporary)?,
        }
        let mut json = serde_json::to_vec_pretty(&sidecar)?;
        json.push(b'\n');
        let mut written = 0;
        let mut sums = Sums::default();
        for (name, bytes) in files.iter().map(|&(window, bytes)| (window.file(), bytes)).chain([(SIDECAR, &json[..])]) {
            self.write_file(&temporary.join(name), bytes)?;
            sums.add(name, bytes);
            written += bytes.len() as u64;
        }
        // The last: what is changed later is newer than it.
        let sums = sums.to_string();
        self.write_file(&temporary.join(SUMS), sums.as_bytes())?;
        if self.is_pinned(sidecar.id) {
            self.write_file(&temporary.join(PINNED), b"")?;
        }
        self.step(Step::SyncFolder)?;
        File::open(temporary)?.sync_all()?;
        self.step(Step::Rename)?;
        self.rename(sidecar.id, temporary, folder)?;
        let synced = self.step(Step::SyncStore).and_then(|()| File::open(&self.path)?.sync_all());
        synced.inspect_err(|_| {
            // It may or may not survive a power cut: the caller is told it was not stored, so it must not be there.
            let _ = fs::rename(folder, temporary);
        })?;
        Ok(written + sums.len() as u64)
    }

    /// Gives a finished folder its name. One that has the name already is an attempt of which nobody was told.
    fn rename(&self, id: Ulid, temporary: &Path, folder: &Path) -> io::Result<()> {
        match fs::rename(temporary, folder) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                let gone = self.path.join(format!(".{id}{GONE}"));
                fs::rename(folder, &gone)?;
                fs::rename(temporary, folder)?;
                let _ = fs::remove_dir_all(gone);
                Ok(())
            }
            renamed => renamed,
        }
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = Access::new(self.options.group).make_file(path)?;
        self.step(Step::WriteFile)?;
        file.write_all(bytes)?;
        self.step(Step::SyncFile)?;
        file.sync_all()
    }

    /// Tells the index. That it cannot be told is no failure: the folder is what counts.
    fn remember(&self, id: Ulid, row: &Row) {
        let Some(writer) = &self.writer else { return };
        let mut index = locked(&writer.index);
        let Some(open) = &mut *index else { return };
        let told = self.step(Step::Index).context("the index").and_then(|()| open.insert(&[(id, row)]));
        if let Err(error) = told {
            tracing::warn!("{}: {error:#}; it is built again later", self.path.display());
            *index = None;
        }
    }

    /// Has the index forget what is gone.
    pub(super) fn forget(&self, ids: &[Ulid]) {
        let Some(writer) = &self.writer else { return };
        let mut index = locked(&writer.index);
        let told = index.as_mut().map_or(Ok(()), |open| open.remove(ids));
        if let Err(error) = told {
            tracing::debug!("{}: {error:#}", self.path.display());
            *index = None;
        }
    }

    #[cfg(not(test))]
    fn step(&self, _: Step) -> io::Result<()> {
        Ok(())
    }
}

/// Did storing fail because there is no room?
pub fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_full_disk))
}

fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
