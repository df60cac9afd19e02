//! What keeps a store in order: removing what crashes have left and what exceeds the limits, and having an index.

use std::fs;
use std::io;

use ulid::Ulid;

use super::access::Access;
use super::index::{Index, Row, Rows};
use super::query::size_of;
use super::{Store, locked, write};
use crate::snapshot::limits::Stored;
use crate::target::steady_now;

impl Store {
    /// Puts everything in order that time and others have changed; to be called every minute or so by the one who writes.
    pub fn maintain(&self) {
        if let Err(error) = self.retake() {
            tracing::error!("{error:#}");
        }
        self.clean(&[write::GONE]);
        self.attend_index();
        self.enforce(None);
    }

    /// Removes hidden folders of half-written and half-removed snapshots.
    pub(super) fn clean(&self, endings: &[&str]) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let id = |ending: &&str| name.strip_prefix('.').and_then(|name| name.strip_suffix(*ending));
            if !endings.iter().filter_map(id).any(|id| Ulid::from_string(id).is_ok()) {
                continue;
            }
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!("removed {}, which was left half-done", entry.path().display()),
                // By whoever had begun to.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("cannot remove {}: {error}", entry.path().display()),
            }
        }
    }

    /// Has the index know exactly what there is. If that fails there is none until the next time.
    fn attend_index(&self) {
        let (Some(writer), Ok(ids)) = (&self.writer, self.ids()) else { return };
        let mut index = locked(&writer.index);
        // Opened again each time: others may have removed it.
        drop(index.take());
        let kept = Index::open(&self.path).and_then(|(mut open, rows)| {
            let gone: Vec<Ulid> =
                rows.keys().filter(|id| ids.binary_search_by(|b| id.cmp(&b)).is_err()).copied().collect();
            if !gone.is_empty() {
                open.remove(&gone)?;
            }
            let missing: Vec<(Ulid, Row)> =
                ids.iter().filter(|id| !rows.contains_key(id)).filter_map(|&id| Some((id, self.row(id)?))).collect();
            if !missing.is_empty() {
                open.insert(&missing.iter().map(|(id, row)| (*id, row)).collect::<Vec<_>>())?;
            }
            Ok(open)
        });
        let built = kept.or_else(|error| {
            if !ids.is_empty() {
                tracing::info!("the index of {} is built again: {error:#}", self.path.display());
            }
            let rows: Rows = ids.iter().filter_map(|&id| Some((id, self.row(id)?))).collect();
            Index::build(&self.path, Access::new(self.options.group), &rows)
        });
        *index = built
            .inspect_err(|error| tracing::warn!("{} is without an index for now: {error:#}", self.path.display()))
            .ok();
    }

    /// Removes what exceeds the limits, but not the one that was just stored. What cannot be removed is logged and tried
    /// again the next time.
    pub(super) fn enforce(&self, stored_now: Option<Ulid>) {
        let (Some(writer), Ok(ids)) = (&self.writer, self.ids()) else { return };
        let rows = locked(&writer.index).as_ref().and_then(|index| index.rows().ok()).unwrap_or_default();
        let bytes = |id: Ulid| rows.get(&id).map_or_else(|| size_of(&self.folder(id)), |row| row.bytes);
        let stored = |id: Ulid| Stored { id, bytes: bytes(id), is_pinned: self.is_pinned(id) };
        let stored: Vec<Stored> = ids.into_iter().map(stored).collect();
        let surplus = self.options.limits.surplus(&stored, steady_now());
        for id in surplus.into_iter().filter(|id| Some(*id) != stored_now) {
            match self.remove(id) {
                Ok(()) => tracing::info!("removed the snapshot {id}: the store is at its limits"),
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
    }
}
