//! Looking for snapshots. Which there are is read from the folder of the store, what they are about from the index where
//! it knows them, else from their sidecars: so that an index that is old, missing or broken costs time and no truth.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use ulid::Ulid;

use super::index::{self, Row, Rows};
use super::{Store, check};
use crate::snapshot::Sidecar;

/// Which snapshots. The default is the newest hundred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of this target.
    pub target: Option<String>,
    /// Of this rule.
    pub rule: Option<String>,
    /// Breached at this time or later, to the millisecond.
    pub since: Option<SystemTime>,
    /// Breached before this time.
    pub until: Option<SystemTime>,
    /// Older than this one: [`Page::next`] of the page before.
    pub before: Option<Ulid>,
    /// Most entries of the page, damaged ones included.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { target: None, rule: None, since: None, until: None, before: None, limit: 100 }
    }
}

impl Query {
    /// All of them, on one page.
    pub fn all() -> Self {
        Self { limit: usize::MAX, ..Self::default() }
    }

    fn matches(&self, target: &str, rule: &str) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(&self.target, target) && is(&self.rule, rule)
    }

    /// The lowest and the highest id that are in question.
    fn range(&self) -> (Ulid, Ulid) {
        // An id begins with the time of the breach in milliseconds.
        let first = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let whole = since.as_nanos().div_ceil(1_000_000);
            u64::try_from(whole).unwrap_or(u64::MAX).min((1 << 48) - 1)
        };
        let low = self.since.map_or(Ulid::nil(), |since| Ulid::from_parts(first(since), 0));
        let below = |end: Ulid| Ulid::from(u128::from(end).saturating_sub(1));
        let until = self.until.map_or(Ulid::from(u128::MAX), |until| below(Ulid::from_parts(first(until), 0)));
        let before = self.before.map_or(Ulid::from(u128::MAX), below);
        (low, until.min(before))
    }
}

/// A part of what was asked for, newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The snapshots.
    pub snapshots: Vec<Sidecar>,
    /// What looks like a snapshot of these and cannot be read.
    pub damaged: Vec<Damaged>,
    /// There are more, older ones: [`Query::before`] of the next page.
    pub next: Option<Ulid>,
}

/// A snapshot that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its id.
    pub id: Ulid,
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What is in a store.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The snapshots, newest first.
    pub snapshots: Vec<Sidecar>,
    /// What looks like a snapshot and cannot be read.
    pub damaged: Vec<Damaged>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of all their files.
    pub bytes: u64,
}

impl Store {
    /// Everything that is stored, newest first.
    pub fn list(&self) -> Result<Listing> {
        let Page { snapshots, damaged, .. } = self.query(&Query::all())?;
        Ok(Listing { snapshots, damaged })
    }

    /// A page of what was asked for. A damaged snapshot of which not even the index knows what it is about is on the
    /// page of its time, whatever target and rule were asked for.
    pub fn query(&self, query: &Query) -> Result<Page> {
        let mut page = Page::default();
        let mut last = None;
        self.walk(query, |id, row| {
            if row.is_some_and(|row| !query.matches(&row.target, &row.rule)) {
                return true;
            }
            let folder = self.folder(id);
            let is_full = page.snapshots.len() + page.damaged.len() >= query.limit;
            if is_full && row.is_some() {
                page.next = last;
                return false;
            }
            match check::load(&folder, id) {
                Ok(sidecar) if !query.matches(&sidecar.target, &sidecar.rule) => return true,
                // Removed since the folder was listed.
                Err(_) if !folder.exists() => return true,
                _ if is_full => {
                    page.next = last;
                    return false;
                }
                Ok(sidecar) => page.snapshots.push(sidecar),
                Err(error) => page.damaged.push(Damaged { id, path: folder, reason: format!("{error:#}") }),
            }
            last = Some(id);
            true
        })?;
        Ok(page)
    }

    /// How much there is of what was asked for, on all pages. Those that cannot be read do not count where target or rule
    /// are asked for.
    pub fn count(&self, query: &Query) -> Result<Totals> {
        let mut totals = Totals::default();
        let is_any = query.target.is_none() && query.rule.is_none();
        self.walk(query, |id, row| {
            let found = row.cloned().or_else(|| self.row(id));
            let bytes = match found {
                Some(row) if query.matches(&row.target, &row.rule) => row.bytes,
                None if is_any => size_of(&self.folder(id)),
                _ => return true,
            };
            totals.snapshots += 1;
            totals.bytes = totals.bytes.saturating_add(bytes);
            true
        })?;
        Ok(totals)
    }

    /// Visits the ids in question, newest first, with what the index knows of them, until `visit` returns false.
    fn walk(&self, query: &Query, mut visit: impl FnMut(Ulid, Option<&Row>) -> bool) -> Result<()> {
        let (low, high) = query.range();
        let mut ids = self.ids()?;
        ids.retain(|id| (low..=high).contains(id));
        if let (Some(&newest), Some(&oldest)) = (ids.first(), ids.last()) {
            let rows = index::read(&self.path, (oldest, newest)).unwrap_or_else(|error| {
                tracing::debug!("{}: without the index: {error:#}", self.path.display());
                Rows::new()
            });
            for id in ids {
                if !visit(id, rows.get(&id)) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What the index should know of a snapshot, from its folder; none of a damaged one.
    pub(super) fn row(&self, id: Ulid) -> Option<Row> {
        let folder = self.folder(id);
        let sidecar = check::load(&folder, id).ok()?;
        Some(Row::new(&sidecar, size_of(&folder)))
    }
}

/// Bytes of all files in a folder; 0 for one that is gone.
pub(super) fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}
