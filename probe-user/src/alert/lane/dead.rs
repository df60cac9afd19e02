//! Dead letters: notices that were given up, with the reason, for people to read. The oldest go first.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use ulid::Ulid;

use super::Entry;
use crate::alert::{Notice, disk};
use crate::snapshot::Timestamp;

/// Most of them that are kept for a channel.
pub(super) const MAX_DEAD: usize = 200;

/// See the head of this file.
#[derive(Debug)]
pub(in crate::alert) struct DeadLetters {
    folder: PathBuf,
    ids: VecDeque<Ulid>,
}

#[derive(Serialize)]
struct Letter<'a> {
    given_up_at: Timestamp,
    attempts: u32,
    error: &'a str,
    notice: &'a Notice,
}

impl DeadLetters {
    /// Those in a folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: folder.to_owned(), ids: disk::ids(folder)?.into() })
    }

    /// Keeps a notice for which there is no lane.
    pub(in crate::alert) fn keep_stray(folder: &Path, notice: &Notice, error: &str) -> io::Result<()> {
        disk::make_folder(folder, None)?;
        Self::open(folder)?.add(&Entry { id: notice.id, notice: notice.clone() }, 0, error);
        Ok(())
    }

    /// Keeps one. A disk that refuses it loses it; that it was given up is counted anyway.
    pub(super) fn add(&mut self, entry: &Entry, attempts: u32, error: &str) {
        let letter = Letter { given_up_at: SystemTime::now().into(), attempts, error, notice: &entry.notice };
        let path = self.folder.join(disk::file(entry.id));
        match disk::write(&path, None, &letter) {
            Ok(()) => self.ids.push_back(entry.id),
            Err(error) => tracing::error!("cannot keep an alert that was given up in {}: {error}", path.display()),
        }
        while self.ids.len() > MAX_DEAD
            && let Some(oldest) = self.ids.pop_front()
        {
            let _ = disk::remove(&self.folder.join(disk::file(oldest)));
        }
    }
}
