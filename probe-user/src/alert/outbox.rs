//! The outbox: messages that wait to be delivered, each in a file of its own, so that they outlive the daemon. It is
//! bounded: when it is full the oldest message goes, and is counted. When the disk is full messages wait in memory only.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::Message;

/// Most messages that wait.
pub const MAX_WAITING: usize = 1000;

/// A message on its way to a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id; it holds the time at which the message was written.
    pub id: Ulid,
    /// Name of the channel.
    pub channel: String,
    /// What it says.
    pub message: Message,
}

/// Messages that wait to be delivered.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<Ulid, Waiting>,
    dropped: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    attempts: u32,
    due: Instant,
    is_busy: bool,
    is_saved: bool,
}

impl Outbox {
    /// Opens the outbox in the folder `path` and takes up what waits there. Files that cannot be read are set aside under
    /// the ending `.bad`. When the folder cannot be made, messages wait in memory, and a warning says so.
    pub fn open(path: &Path) -> Self {
        let mut state = State::default();
        if let Err(error) = take_up(path, &mut state) {
            tracing::warn!("alerts wait in memory only: {error:#}");
        }
        Self { path: path.to_owned(), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds a message. It is on the disk when this returns, unless the disk refuses: then it waits in memory.
    pub fn push(&self, channel: &str, message: &Message) {
        let entry = Entry { id: Ulid::new(), channel: channel.to_owned(), message: message.clone() };
        let saved = self.write(&entry);
        if let Err(error) = &saved {
            tracing::warn!("an alert for {channel} waits in memory only: {error:#}");
        }
        let mut state = self.state();
        while state.waiting.len() >= MAX_WAITING
            && let Some((id, _)) = state.waiting.pop_first()
        {
            state.dropped += 1;
            let _ = fs::remove_file(self.file(id));
            tracing::warn!("{MAX_WAITING} alerts wait to be delivered: dropped the oldest");
        }
        let is_saved = saved.is_ok();
        state.waiting.insert(entry.id, Waiting { entry, attempts: 0, due: Instant::now(), is_busy: false, is_saved });
        self.changed.notify_all();
    }

    /// Waits for a message of this channel to be due; `None` once the outbox is closed.
    pub(super) fn next(&self, channel: &str) -> Option<(Entry, u32)> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            let now = Instant::now();
            let own = state.waiting.values_mut().filter(|waiting| !waiting.is_busy && waiting.entry.channel == channel);
            let Some(first) = own.min_by_key(|waiting| (waiting.due, waiting.entry.id)) else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if first.due <= now {
                first.is_busy = true;
                return Some((first.entry.clone(), first.attempts));
            }
            let wait = first.due - now;
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A message was delivered, or is given up: it goes.
    pub(super) fn done(&self, id: Ulid, is_delivered: bool) {
        let mut state = self.state();
        state.waiting.remove(&id);
        state.dropped += u64::from(!is_delivered);
        if let Err(error) = fs::remove_file(self.file(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}; it will be delivered again", self.file(id).display());
        }
    }

    /// A message was not delivered: again in `after`. If the disk refused it, perhaps it takes it now.
    pub(super) fn again(&self, id: Ulid, after: Duration) {
        if let Some(waiting) = self.state().waiting.get_mut(&id) {
            waiting.attempts = waiting.attempts.saturating_add(1);
            waiting.due = Instant::now() + after;
            waiting.is_busy = false;
            waiting.is_saved = waiting.is_saved || self.write(&waiting.entry).is_ok();
        }
        self.changed.notify_all();
    }

    /// Drops messages of channels that no longer exist.
    pub(super) fn keep_only(&self, channels: &[&str]) {
        let waiting = |state: &State| state.waiting.values().map(|w| (w.entry.id, w.entry.channel.clone())).collect();
        let entries: Vec<(Ulid, String)> = waiting(&self.state());
        for (id, channel) in entries {
            if !channels.contains(&channel.as_str()) {
                tracing::warn!("dropped an alert for `{channel}`: there is no such channel any more");
                self.done(id, false);
            }
        }
    }

    /// How many messages wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// How many messages were dropped undelivered since the start.
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// Ends all waiting; what is on the disk is delivered after the next start.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: Ulid) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    fn write(&self, entry: &Entry) -> Result<()> {
        let file = self.file(entry.id);
        let temporary = file.with_extension("tmp");
        let written = || -> Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
            let mut handle = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
            handle.write_all(&serde_json::to_vec(entry)?)?;
            handle.sync_all()?;
            fs::rename(&temporary, &file)?;
            Ok(File::open(&self.path)?.sync_all()?)
        };
        written().with_context(|| format!("cannot write {}", file.display())).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
    }
}

/// Reads what waits in a folder.
fn take_up(path: &Path, state: &mut State) -> Result<()> {
    let failed = || format!("cannot open {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(failed)?;
    for entry in fs::read_dir(path).with_context(failed)? {
        let file = entry.with_context(failed)?.path();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {}
            Some("tmp") => {
                let _ = fs::remove_file(&file);
                continue;
            }
            _ => continue,
        }
        let entry = fs::read(&file).map_err(anyhow::Error::from).and_then(|b| Ok(serde_json::from_slice::<Entry>(&b)?));
        match entry {
            Ok(entry) => {
                let waiting = Waiting { entry, attempts: 0, due: Instant::now(), is_busy: false, is_saved: true };
                state.waiting.insert(waiting.entry.id, waiting);
            }
            Err(error) => {
                tracing::warn!("{} is no alert: {error:#}", file.display());
                let _ = fs::rename(&file, file.with_extension("bad"));
            }
        }
    }
    Ok(())
}

/// How long ago a message was written.
pub(super) fn age(id: Ulid) -> Duration {
    SystemTime::now().duration_since(id.datetime()).unwrap_or_default()
}
