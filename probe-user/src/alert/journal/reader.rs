//! The reading end of a journal.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ulid::Ulid;

use super::{Firing, take_in};
use crate::alert::{Notice, disk};

/// See the head of this file.
#[derive(Debug)]
pub struct Reader {
    journal: PathBuf,
    cursor_file: PathBuf,
    cursor: Option<Ulid>,
    /// When the folder last changed and when it was last looked at.
    seen: Option<(SystemTime, SystemTime)>,
    has_failed: bool,
}

impl Reader {
    /// Reads the journal in a folder, which need not be there yet, from where it came to the last time; `state` is the
    /// folder in which it keeps that.
    pub fn open(journal: &Path, state: &Path) -> Result<Self> {
        disk::make_folder(state, None).with_context(|| format!("cannot create the folder {}", state.display()))?;
        let cursor_file = state.join("cursor.json");
        let cursor = match disk::read(&cursor_file) {
            Ok(cursor) => Some(cursor),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!("{} is damaged: alerts may be sent again", cursor_file.display());
                None
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", cursor_file.display())),
        };
        Ok(Self { journal: journal.to_owned(), cursor_file, cursor, seen: None, has_failed: false })
    }

    /// At most `limit` notices that follow those read before, oldest first. What is damaged is left out, and the log says
    /// so; what cannot be read now ends the list.
    pub fn read(&mut self, limit: usize) -> Vec<(Ulid, Option<Notice>)> {
        // A change is only surely seen when it is not of the same moment as the last look.
        const MOMENT: Duration = Duration::from_secs(2);
        let now = SystemTime::now();
        let changed = std::fs::metadata(&self.journal).and_then(|metadata| metadata.modified()).ok();
        if let (Some((before, looked)), Some(changed)) = (self.seen, changed)
            && before == changed
            && looked.duration_since(changed).is_ok_and(|since| since > MOMENT)
        {
            return Vec::new();
        }
        let read = self.read_folder(limit);
        match &read {
            Ok(notices) if notices.len() < limit => self.seen = changed.map(|changed| (changed, now)),
            _ => self.seen = None,
        }
        match &read {
            Err(error) if !self.has_failed => {
                tracing::error!("cannot read the journal of alerts {}: {error}", self.journal.display());
            }
            Ok(_) if self.has_failed => tracing::info!("{} can be read again", self.journal.display()),
            _ => {}
        }
        self.has_failed = read.is_err();
        read.unwrap_or_default()
    }

    fn read_folder(&self, limit: usize) -> io::Result<Vec<(Ulid, Option<Notice>)>> {
        let mut notices = Vec::new();
        let is_new = |id: &Ulid| self.cursor.is_none_or(|cursor| *id > cursor);
        for id in disk::ids(&self.journal)?.into_iter().filter(is_new).take(limit) {
            let path = self.journal.join(disk::file(id));
            match disk::read::<Notice>(&path) {
                Ok(notice) => notices.push((id, Some(Notice { id, ..notice }))),
                // Its time has come between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!("{} is damaged: {error}", path.display());
                    notices.push((id, None));
                }
                Err(error) if notices.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(notices)
    }

    /// The fingerprints of the alerts that have no end in the journal, be they read or not. It fails if that cannot be told
    /// for sure; with [`io::ErrorKind::NotFound`] if there is no journal.
    pub(in crate::alert) fn firing(&self) -> io::Result<BTreeSet<String>> {
        std::fs::metadata(&self.journal)?;
        let mut firing = Firing::new();
        for id in disk::ids(&self.journal)? {
            let path = self.journal.join(disk::file(id));
            match disk::read::<Notice>(&path) {
                Ok(notice) => drop(take_in(&mut firing, notice)),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
                Err(error) => return Err(io::Error::other(format!("{}: {error}", path.display()))),
            }
        }
        Ok(firing.into_keys().collect())
    }

    /// Everything up to `id` is done with.
    pub fn advance(&mut self, id: Ulid) {
        self.cursor = Some(id);
    }

    /// Remembers on the disk how far it has come.
    pub fn save(&self) -> Result<()> {
        let Some(cursor) = self.cursor else { return Ok(()) };
        disk::write(&self.cursor_file, None, &cursor)
            .with_context(|| format!("cannot write {}", self.cursor_file.display()))
    }
}
