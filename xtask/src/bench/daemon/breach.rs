//! A breach: a process turns hot, and its snapshot appears in the store.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::workload::Told;

/// How often the store is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The longest that a breach and its snapshot may take.
const LIMIT: Duration = Duration::from_secs(25);
/// So long it is calm, until the breach is over.
const CALM: Duration = Duration::from_secs(5);

/// Has a process break a rule. Returns how long after the end of its evidence the snapshot was in the store.
pub(super) fn run(services: &mut Told, store: &Path) -> Result<Duration> {
    let earlier = snapshots(store)?;
    services.tell()?;
    let begin = Instant::now();
    let (folder, at) = loop {
        if let Some(new) = snapshots(store)?.difference(&earlier).next() {
            break (store.join(new), SystemTime::now());
        }
        ensure!(begin.elapsed() < LIMIT, "no snapshot appears in {}", store.display());
        std::thread::sleep(LOOK);
    };
    services.tell()?;
    let sidecar: Value = serde_json::from_str(&fs::read_to_string(folder.join("snapshot.json"))?)?;
    let culprit = sidecar.pointer("/culprits/0/function");
    ensure!(culprit.is_some_and(|name| name.as_str().is_some()), "the snapshot names no culprit");
    let ended = sidecar.get("ended_at").and_then(Value::as_str).context("the sidecar does not say when it ended")?;
    std::thread::sleep(CALM);
    let ended: jiff::Timestamp = ended.parse()?;
    Ok(at.duration_since(ended.into()).unwrap_or_default())
}

/// The names of what is whole in the store: a ULID each.
fn snapshots(store: &Path) -> Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(store).context("the daemon has no store")?;
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.len() == 26 && !name.to_string_lossy().starts_with('.')).collect())
}
