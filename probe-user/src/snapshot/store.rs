//! The store: one folder for each snapshot, made under a hidden name and renamed when all of it is on the disk. A folder
//! that is named by an id is therefore whole; a hidden one is what a crash left, and goes when the store is opened.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use ulid::Ulid;

use super::{Limits, ProfileEntry, Sidecar, Window};
use crate::problem::{Exit, Problem};

const SIDECAR: &str = "snapshot.json";
const FORMAT: &str = "pprof";

/// Largest sidecar that is read, in bytes.
const MAX_SIDECAR: u64 = 16 << 20;

/// A folder of snapshots.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    limits: Limits,
    /// Held by the one process that writes.
    writer: Option<File>,
    #[cfg(test)]
    fault: std::sync::Mutex<Option<Fault>>,
}

/// The profiles of a snapshot to be stored, each a gzip pprof.
#[derive(Clone, Debug, Default)]
pub struct Profiles {
    /// The window until the value went above the threshold.
    pub before: Vec<u8>,
    /// The window from then on.
    pub breach: Vec<u8>,
    /// Every thread in the moment of the breach; empty if that could not be had.
    pub dump: Vec<u8>,
}

/// What is in a store.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The snapshots, newest first.
    pub snapshots: Vec<Sidecar>,
    /// What looks like a snapshot and cannot be read: path and reason.
    pub damaged: Vec<(PathBuf, String)>,
}

impl Store {
    /// Opens a store for writing, makes it if it is missing and removes what crashes have left. One process at a time.
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let failed = || format!("cannot open the store {}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(failed)?;
        let lock = path.join(".lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock).with_context(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(Problem::new(
                Exit::Failure,
                format!("the store {} is in use by another daemon", path.display()),
                "stop that one, or give this one a store of its own: [store] path",
            )),
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        let store = Self { writer: Some(lock), ..Self::read(path, limits) };
        store.clean().with_context(failed)?;
        store.enforce();
        Ok(store)
    }

    /// Opens a store for looking and removing, beside a daemon that may be writing to it. A store that is not there is
    /// an empty one.
    pub fn read(path: &Path, limits: Limits) -> Self {
        Self {
            path: path.to_owned(),
            limits,
            writer: None,
            #[cfg(test)]
            fault: std::sync::Mutex::default(),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a snapshot.
    pub fn folder(&self, id: Ulid) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Stores a snapshot; when this returns it is on the disk, and when it fails nothing of it is. Completes
    /// [`Sidecar::profiles`]. Then removes what exceeds the limits.
    pub fn put(&self, sidecar: &Sidecar, profiles: &Profiles) -> Result<PathBuf> {
        let folder = self.folder(sidecar.id);
        if self.writer.is_none() {
            bail!("cannot store the snapshot {}: the store was opened for reading", folder.display());
        }
        let temporary = self.path.join(format!(".{}.tmp", sidecar.id));
        let written = self.write(sidecar, profiles, &temporary, &folder);
        if let Err(error) = written {
            let _ = fs::remove_dir_all(&temporary);
            let message = format!("cannot store the snapshot {}", folder.display());
            let is_full = is_full_disk(&error);
            let error = anyhow::Error::new(error);
            return Err(if is_full {
                let hint = "make room, or lower max_bytes in [store]";
                error.context(Problem::new(Exit::Failure, format!("{message}: the disk is full"), hint))
            } else {
                error.context(message)
            });
        }
        self.enforce();
        Ok(folder)
    }

    fn write(&self, sidecar: &Sidecar, profiles: &Profiles, temporary: &Path, folder: &Path) -> io::Result<()> {
        let Profiles { before, breach, dump } = profiles;
        let mut files = vec![(Window::Before, before), (Window::Breach, breach)];
        if !dump.is_empty() {
            files.push((Window::Dump, dump));
        }
        let entry = |&(window, bytes): &(Window, &Vec<u8>)| ProfileEntry {
            window,
            format: FORMAT.to_owned(),
            bytes: bytes.len() as u64,
        };
        let sidecar = Sidecar { profiles: files.iter().map(entry).collect(), ..sidecar.clone() };
        match fs::remove_dir_all(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => DirBuilder::new().mode(0o700).create(temporary)?,
        }
        for (window, bytes) in files {
            self.write_file(&temporary.join(window.file()), bytes)?;
        }
        let mut json = serde_json::to_vec_pretty(&sidecar)?;
        json.push(b'\n');
        self.write_file(&temporary.join(SIDECAR), &json)?;
        self.step(Step::SyncFolder)?;
        File::open(temporary)?.sync_all()?;
        self.step(Step::Rename)?;
        fs::rename(temporary, folder)?;
        let synced = self.step(Step::SyncStore).and_then(|()| File::open(&self.path)?.sync_all());
        synced.inspect_err(|_| {
            // It may or may not survive a power cut: the caller is told it was not stored, so it must not be there.
            let _ = fs::remove_dir_all(folder);
        })
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        self.step(Step::WriteFile)?;
        file.write_all(bytes)?;
        self.step(Step::SyncFile)?;
        file.sync_all()
    }

    /// Everything that is stored, newest first.
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        for id in self.ids()? {
            match self.load(id) {
                Ok(sidecar) => listing.snapshots.push(sidecar),
                // Removed since the folder was listed.
                Err(_) if !self.folder(id).exists() => {}
                Err(error) => listing.damaged.push((self.folder(id), format!("{error:#}"))),
            }
        }
        Ok(listing)
    }

    /// One snapshot.
    pub fn get(&self, id: Ulid) -> Result<Sidecar> {
        self.find(id)?;
        self.load(id).with_context(|| format!("the snapshot {} is damaged", self.folder(id).display()))
    }

    /// The bytes of a stored profile: a gzip pprof.
    pub fn profile(&self, id: Ulid, window: Window) -> Result<Vec<u8>> {
        let path = self.folder(id).join(window.file());
        self.find(id)?;
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Removes a snapshot: it is gone at once, its files follow.
    pub fn remove(&self, id: Ulid) -> Result<()> {
        let folder = self.folder(id);
        let hidden = self.path.join(format!(".{id}.gone"));
        match fs::rename(&folder, &hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing(id)),
            renamed => renamed.and_then(|()| fs::remove_dir_all(&hidden)),
        }
        .with_context(|| format!("cannot remove the snapshot {}", folder.display()))
    }

    fn find(&self, id: Ulid) -> Result<()> {
        match fs::metadata(self.folder(id)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing(id)),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn unreadable(&self, error: io::Error) -> anyhow::Error {
        let message = format!("cannot read the store {}", self.path.display());
        if error.kind() == io::ErrorKind::PermissionDenied {
            let hint = "snapshots are for their owner only: run as the user that runs the daemon";
            return Problem::new(Exit::NotPermitted, format!("{message}: {error}"), hint).into();
        }
        anyhow::Error::new(error).context(message)
    }

    fn missing(&self, id: Ulid) -> anyhow::Error {
        let message = format!("there is no snapshot {id} in {}", self.path.display());
        Problem::new(Exit::NoTarget, message, "`probe snapshots ls` lists them").into()
    }

    /// Ids of all folders that are named by one, newest first.
    fn ids(&self) -> Result<Vec<Ulid>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| self.unreadable(error))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| self.unreadable(error))?.file_name();
            let id = name.to_str().and_then(|name| Ulid::from_string(name).ok().filter(|id| id.to_string() == name));
            ids.extend(id);
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    fn load(&self, id: Ulid) -> Result<Sidecar> {
        let folder = self.folder(id);
        let mut bytes = Vec::new();
        File::open(folder.join(SIDECAR)).context(SIDECAR)?.take(MAX_SIDECAR).read_to_end(&mut bytes)?;
        let sidecar: Sidecar = serde_json::from_slice(&bytes).context(SIDECAR)?;
        if sidecar.id != id {
            bail!("{SIDECAR} is of another snapshot, {}", sidecar.id);
        }
        for profile in &sidecar.profiles {
            let name = profile.window.file();
            let bytes = fs::metadata(folder.join(name)).context(name)?.len();
            if bytes != profile.bytes {
                bail!("{name} has {bytes} bytes, not {}", profile.bytes);
            }
        }
        Ok(sidecar)
    }

    /// Removes what crashes have left: hidden folders of half-written and half-removed snapshots.
    fn clean(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp").or(name.strip_suffix(".gone")));
            if id.is_some_and(|id| Ulid::from_string(id).is_ok()) {
                tracing::info!("removing {}, which was left half-done", entry.path().display());
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes what exceeds the limits. What cannot be removed is logged and tried again with the next snapshot.
    fn enforce(&self) {
        let Ok(ids) = self.ids() else { return };
        let stored: Vec<(Ulid, u64)> = ids.into_iter().map(|id| (id, size_of(&self.folder(id)))).collect();
        for id in self.limits.surplus(&stored, SystemTime::now()) {
            match self.remove(id) {
                Ok(()) => tracing::info!("removed the snapshot {id}: the store is at its limits"),
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
    }

    #[cfg(not(test))]
    fn step(&self, _: Step) -> io::Result<()> {
        Ok(())
    }
}

/// Where writing can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    WriteFile,
    SyncFile,
    SyncFolder,
    Rename,
    SyncStore,
}

/// Did storing fail because there is no room?
pub fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_full_disk))
}

fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

#[cfg(test)]
#[derive(Clone, Copy, Debug)]
struct Fault {
    step: Step,
    error: io::ErrorKind,
}

#[cfg(test)]
mod tests;
