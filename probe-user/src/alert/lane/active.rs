//! What a channel was told and has not ended: a file for each, by fingerprint.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::alert::{MAX_NOTICES, Notice, disk};
use crate::snapshot::Timestamp;

/// Most alerts that are remembered: more than ever fire by the journal. None is forgotten for its age, because its end is to
/// be told whenever it comes.
pub(super) const MAX_ACTIVE: usize = MAX_NOTICES;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Active {
    folder: PathBuf,
    alerts: BTreeMap<String, Alert>,
    /// Fingerprints whose files are not what is known here.
    unsaved: Vec<String>,
    /// Most of them.
    pub(super) max: usize,
}

/// An alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Alert {
    notice: Notice,
    /// When it was last delivered.
    told_at: Option<Timestamp>,
}

impl Active {
    /// Reads what is in a folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut alerts = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            match disk::read::<Alert>(&path) {
                Ok(alert) => drop(alerts.insert(alert.notice.fingerprint.clone(), alert)),
                Err(error) => {
                    tracing::warn!("{} is not an alert: {error}", path.display());
                    disk::remove(&path)?;
                }
            }
        }
        Ok(Self { folder: folder.to_owned(), alerts, unsaved: Vec::new(), max: MAX_ACTIVE })
    }

    /// Is it firing?
    pub(super) fn contains(&self, fingerprint: &str) -> bool {
        self.alerts.contains_key(fingerprint)
    }

    /// Was this breach told before? A snapshot that was not there then is news.
    pub(super) fn knows(&self, notice: &Notice) -> bool {
        self.alerts.get(&notice.fingerprint).is_some_and(|alert| {
            alert.notice.is_of_breach(notice) && (alert.notice.snapshot.is_some() || notice.snapshot.is_none())
        })
    }

    /// Does it fire without what this notice knows of it?
    pub(super) fn lacks(&self, notice: &Notice) -> bool {
        self.alerts.get(&notice.fingerprint).is_some_and(|alert| {
            let is_new = (&alert.notice.culprit, &alert.notice.note) != (&notice.culprit, &notice.note);
            alert.notice.is_of_breach(notice) && is_new
        })
    }

    /// It fires. Returns the oldest if there are too many, which is to be ended.
    pub(super) fn insert(&mut self, notice: &Notice) -> Option<Notice> {
        let alert = Alert { notice: notice.clone(), told_at: None };
        self.alerts.insert(notice.fingerprint.clone(), alert);
        self.save(&notice.fingerprint);
        let oldest = || self.alerts.values().map(|alert| &alert.notice).min_by_key(|notice| notice.id);
        if self.alerts.len() > self.max { oldest().cloned() } else { None }
    }

    /// Those that are not among these fingerprints.
    pub(super) fn others(&self, fingerprints: &BTreeSet<String>) -> Vec<Notice> {
        let others = self.alerts.values().filter(|alert| !fingerprints.contains(&alert.notice.fingerprint));
        others.map(|alert| alert.notice.clone()).collect()
    }

    /// It is over.
    pub(super) fn remove(&mut self, fingerprint: &str) {
        if self.alerts.remove(fingerprint).is_some() {
            self.save(fingerprint);
        }
    }

    /// It was delivered. That is only kept where it is needed: by repetitions.
    pub(super) fn told(&mut self, notice: &Notice, is_repeated: bool) {
        if let Some(alert) = self.alerts.get_mut(&notice.fingerprint)
            && alert.notice.started_at == notice.started_at
        {
            alert.told_at = Some(SystemTime::now().into());
            if is_repeated {
                self.save(&notice.fingerprint);
            }
        }
    }

    /// Its repetition was given up: the next is due when it would be after a delivery.
    pub(super) fn put_off(&mut self, notice: &Notice) {
        if let Some(told_at) = self.alerts.get_mut(&notice.fingerprint).and_then(|alert| alert.told_at.as_mut()) {
            *told_at = SystemTime::now().into();
        }
    }

    /// What was last told longer ago than `interval`, at most `room` of it, the longest ago first, and how long until the
    /// next is. What waits anyway is left out.
    pub(super) fn to_repeat(
        &self,
        interval: Duration,
        room: usize,
        waits: &BTreeSet<&str>,
    ) -> (Vec<Notice>, Option<Duration>) {
        let mut due = Vec::new();
        let mut next = None;
        // What was not delivered yet waits, too, or was given up.
        for (alert, at) in self.alerts.values().filter_map(|alert| Some((alert, alert.told_at?))) {
            let since = SystemTime::now().duration_since(at.system()).unwrap_or_default();
            match interval.checked_sub(since).filter(|left| !left.is_zero()) {
                Some(left) => next = Some(next.map_or(left, |next: Duration| next.min(left))),
                None if waits.contains(&*alert.notice.fingerprint) => {}
                None => due.push((at, &alert.notice)),
            }
        }
        due.sort_by_key(|&(at, _)| at);
        (due.into_iter().take(room).map(|(_, notice)| notice.clone()).collect(), next)
    }

    /// Is everything on the disk? What was refused is tried again.
    pub(super) fn flush(&mut self) -> bool {
        for fingerprint in std::mem::take(&mut self.unsaved) {
            self.save(&fingerprint);
        }
        self.unsaved.is_empty()
    }

    fn save(&mut self, fingerprint: &str) {
        let path = self.folder.join(format!("{}.json", super::folder_name(fingerprint)));
        let saved = match self.alerts.get(fingerprint) {
            Some(alert) => disk::write(&path, None, alert),
            None => disk::remove(&path),
        };
        if let Err(error) = saved {
            tracing::debug!("cannot write {}: {error}", path.display());
            if !self.unsaved.iter().any(|other| other == fingerprint) {
                self.unsaved.push(fingerprint.to_owned());
            }
        }
    }
}
