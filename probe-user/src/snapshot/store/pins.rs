//! Pins: snapshots that stay whatever the limits say, because their alert is still firing. A pin is an empty file in the
//! snapshot's folder, so that it outlives both a restart and the index.

use std::fs::{self, File};
use std::io;

use anyhow::{Context, Result};
use ulid::Ulid;

use super::access::Access;
use super::{Store, locked};

/// The file.
pub(super) const PINNED: &str = "pinned";

impl Store {
    /// Keeps a snapshot from being removed by the limits, from now on and over restarts. One that is yet to be stored is
    /// pinned with being stored.
    pub fn pin(&self, id: Ulid) -> Result<()> {
        locked(&self.writer("pin", id)?.pinned).insert(id);
        let path = self.folder(id).join(PINNED);
        match Access::new(self.options.group).make_file(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Ok(()),
            made => made.and_then(|_| self.sync_folder(id)),
        }
        .with_context(|| format!("cannot pin the snapshot {}", self.folder(id).display()))
    }

    /// Lets the limits apply again.
    pub fn unpin(&self, id: Ulid) -> Result<()> {
        locked(&self.writer("unpin", id)?.pinned).remove(&id);
        match fs::remove_file(self.folder(id).join(PINNED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.sync_folder(id)),
        }
        .with_context(|| format!("cannot unpin the snapshot {}", self.folder(id).display()))
    }

    /// The stored snapshots that are pinned, newest first.
    pub fn pinned(&self) -> Result<Vec<Ulid>> {
        let mut ids = self.ids()?;
        ids.retain(|id| self.folder(*id).join(PINNED).exists());
        Ok(ids)
    }

    /// Is it pinned, as the one who writes knows?
    pub(super) fn is_pinned(&self, id: Ulid) -> bool {
        self.writer.as_ref().is_some_and(|writer| locked(&writer.pinned).contains(&id))
    }

    /// What an earlier process has pinned.
    pub(super) fn find_pins(&self) {
        let Some(writer) = &self.writer else { return };
        locked(&writer.pinned).extend(self.pinned().unwrap_or_default());
    }

    fn sync_folder(&self, id: Ulid) -> io::Result<()> {
        File::open(self.folder(id))?.sync_all()
    }
}
