//! The store: one folder for each snapshot, made under a hidden name and renamed when all of it is on the disk. A folder
//! that is named by an id is therefore whole; a hidden one is what a crash left, and goes when the store is opened.
//!
//! The folders are the truth. Beside them there is an index (`index`), which only makes looking for snapshots fast: what
//! it does not know, or knows of snapshots that are gone, changes no answer. One process writes, others may read; readers
//! need no more than read access.

mod access;
mod check;
mod index;
mod pins;
mod query;
mod upkeep;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ulid::Ulid;

use super::{Limits, Sidecar, Window};
use crate::problem::{Exit, Problem};
use access::Access;
use index::Index;
pub use query::{Damaged, Listing, Page, Query, Totals};
pub use write::is_full;

/// A folder of snapshots.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    options: Options,
    writer: Option<Writer>,
    #[cfg(test)]
    fault: Mutex<Option<tests::Fault>>,
}

/// What the one process that writes has beyond the others.
#[derive(Debug)]
struct Writer {
    /// Held as long as the store is open.
    lock: Mutex<File>,
    /// None while it cannot be written.
    index: Mutex<Option<Index>>,
    /// The snapshots that do not go, stored or about to be.
    pinned: Mutex<BTreeSet<Ulid>>,
}

/// How a store is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How much of it.
    pub limits: Limits,
    /// The group, by its number, that may read it; `None`: nobody but its owner may.
    pub group: Option<u32>,
    /// How long opening waits for another process to end that writes to it.
    pub patience: Duration,
}

impl From<Limits> for Options {
    fn from(limits: Limits) -> Self {
        Self { limits, group: None, patience: Duration::ZERO }
    }
}

/// The profiles of a snapshot to be stored, each a gzip pprof.
#[derive(Clone, Debug, Default)]
pub struct Profiles {
    /// The window until the value went above the threshold.
    pub before: Vec<u8>,
    /// From then on until the rule was broken.
    pub breach: Vec<u8>,
    /// From then on.
    pub after: Vec<u8>,
    /// A calm stretch; empty if there is none yet.
    pub baseline: Vec<u8>,
    /// Every thread in the moment of the breach; empty if that could not be had.
    pub dump: Vec<u8>,
    /// What was allocated and is in use; empty where that was not followed.
    pub live: Vec<u8>,
}

impl Profiles {
    /// What is stored of them.
    fn files(&self) -> Vec<(Window, &[u8])> {
        let Self { before, breach, after, baseline, dump, live } = self;
        let mut files: Vec<(Window, &[u8])> = vec![(Window::Before, before), (Window::Breach, breach)];
        let others: [(Window, &[u8]); 4] =
            [(Window::After, after), (Window::Baseline, baseline), (Window::Dump, dump), (Window::Live, live)];
        files.extend(others.into_iter().filter(|(_, bytes)| !bytes.is_empty()));
        files
    }
}

impl Store {
    /// Opens a store for writing, makes it if it is missing and removes what crashes have left. One process at a time.
    pub fn open(path: &Path, options: impl Into<Options>) -> Result<Self> {
        let options = options.into();
        let access = Access::new(options.group);
        let lock = Mutex::new(access::lock(path, access, options.patience)?);
        let writer = Writer { lock, index: Mutex::default(), pinned: Mutex::default() };
        let store = Self { writer: Some(writer), ..Self::read(path, options) };
        store.clean(&[write::UNFINISHED, write::GONE]);
        store.share(access)?;
        store.find_pins();
        store.maintain();
        Ok(store)
    }

    /// Opens a store for looking and removing, beside a daemon that may be writing to it. A store that is not there is
    /// an empty one.
    pub fn read(path: &Path, options: impl Into<Options>) -> Self {
        Self {
            path: path.to_owned(),
            options: options.into(),
            writer: None,
            #[cfg(test)]
            fault: Mutex::default(),
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

    /// One snapshot, of which every file is as it was written.
    pub fn sidecar(&self, id: Ulid) -> Result<Sidecar> {
        self.find(id)?;
        check::load(&self.folder(id), id).map_err(|error| self.damaged(id, error))
    }

    /// The bytes of a stored profile: a gzip pprof.
    pub fn profile(&self, id: Ulid, window: Window) -> Result<Vec<u8>> {
        self.find(id)?;
        let folder = self.folder(id);
        let path = folder.join(window.file());
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It may have been there.
                self.sidecar(id)?;
                bail!(Problem::new(
                    Exit::NoTarget,
                    format!("the snapshot {id} has no profile `{}`", window.name()),
                    format!("`probe snapshots get {id} --json` lists what it has"),
                ));
            }
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        check::profile(&folder, window.file(), &bytes).map_err(|error| self.damaged(id, error))?;
        Ok(bytes)
    }

    /// Removes a snapshot, pinned or not: it is gone at once, its files follow.
    pub fn remove(&self, id: Ulid) -> Result<()> {
        let folder = self.folder(id);
        let hidden = self.path.join(format!(".{id}{}", write::GONE));
        match fs::rename(&folder, &hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing(id)),
            renamed => renamed.and_then(|()| fs::remove_dir_all(&hidden)),
        }
        .with_context(|| format!("cannot remove the snapshot {}", folder.display()))?;
        self.forget(&[id]);
        Ok(())
    }

    /// The id of the snapshot that is meant: a whole one, whether there is such a snapshot or not, or the beginning or end of
    /// the id of a single one.
    pub fn id_of(&self, text: &str) -> Result<Ulid> {
        /// Fewer characters are no help.
        const SHORTEST: usize = 4;
        if let Ok(id) = Ulid::from_string(text) {
            return Ok(id);
        }
        let usage = |problem: String| {
            let hint = "give the whole id, or as much of its beginning or end as no other has; `probe snapshots ls` lists them";
            Problem::new(Exit::Usage, problem, hint).into()
        };
        let shown = crate::text::sanitize(text);
        if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(usage(format!("`{shown}` is not the id of a snapshot")));
        }
        let part = text.to_ascii_uppercase();
        let mut ids = self.ids()?;
        ids.retain(|id| {
            let id = id.to_string();
            id.starts_with(&part) || id.ends_with(&part)
        });
        match ids[..] {
            [id] => Ok(id),
            [] => Err(usage(format!("there is no snapshot `{shown}` in {}", self.path.display()))),
            _ => Err(usage(format!("{} snapshots have an id that begins or ends with `{shown}`", ids.len()))),
        }
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

    fn find(&self, id: Ulid) -> Result<()> {
        match fs::metadata(self.folder(id)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing(id)),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn writer(&self, what: &str, id: Ulid) -> Result<&Writer> {
        let Some(writer) = &self.writer else {
            bail!("cannot {what} the snapshot {}: the store was opened for reading", self.folder(id).display());
        };
        Ok(writer)
    }

    fn unreadable(&self, error: io::Error) -> anyhow::Error {
        let message = format!("cannot read the store {}", self.path.display());
        if error.kind() == io::ErrorKind::PermissionDenied {
            let hint = "snapshots are for their owner only: run as the user that runs the daemon";
            return Problem::new(Exit::NotPermitted, format!("{message}: {error}"), hint).into();
        }
        anyhow::Error::new(error).context(message)
    }

    fn damaged(&self, id: Ulid, error: anyhow::Error) -> anyhow::Error {
        // Removed since it was found.
        if !self.folder(id).exists() {
            return self.missing(id);
        }
        error.context(format!("the snapshot {} is damaged", self.folder(id).display()))
    }

    fn missing(&self, id: Ulid) -> anyhow::Error {
        let message = format!("there is no snapshot {id} in {}", self.path.display());
        Problem::new(Exit::NoTarget, message, "`probe snapshots ls` lists them").into()
    }
}

/// A thread that died while it held something of the store leaves nothing half-done in it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
