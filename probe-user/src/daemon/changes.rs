//! What the API has changed, on the disk: functions and rules above those of the file, and which of them still go with it.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::{Changes, Config, Source, Table};
use crate::problem::Problem;

/// Where changes are kept, in the store.
pub(super) const FILE: &str = "changes.json";

/// The changes of earlier daemons; none if there was none.
pub(super) fn read(path: &Path) -> Result<Changes> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Changes::default()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Saves what cannot be read from the next change. Says where it is, for the log.
pub(super) fn put_aside(path: &Path) -> String {
    let aside = path.with_extension("json.damaged");
    // The server may not, and the collector does.
    fs::rename(path, &aside).map(|()| format!("; they are kept as {}", aside.display())).unwrap_or_default()
}

/// All of it or nothing is there, whenever the power fails.
pub(super) fn write(path: &Path, changes: &Changes) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let temporary = path.with_extension("json.tmp");
    let written = || -> Result<()> {
        let mut file = File::create(&temporary)?;
        // The server checks a new file together with it. Who else may see it, the folder says.
        file.set_permissions(Permissions::from_mode(0o640))?;
        file.write_all(&serde_json::to_vec_pretty(changes)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        Ok(File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?)
    };
    written().with_context(failed)
}

/// What results from a file and as many of these changes as go with it; these changes, and the others.
pub(super) fn fitting(source: &Source, kept: &Changes) -> Result<(Config, Changes, Changes), Problem> {
    if let Ok(config) = source.config(kept) {
        return Ok((config, kept.clone(), Changes::default()));
    }
    let (mut fit, mut left_out) = (Changes::default(), Changes::default());
    let mut config = source.config(&fit)?;
    for (is_function, name, table) in in_order(kept) {
        let of = |changes: &mut Changes| {
            let tables = if is_function { &mut changes.functions } else { &mut changes.rules };
            tables.insert(name.to_owned(), table.cloned());
        };
        let mut next = fit.clone();
        of(&mut next);
        match source.config(&next) {
            Ok(result) => (fit, config) = (next, result),
            Err(error) => {
                let (what, done) =
                    (if is_function { "function" } else { "rule" }, table.map_or("removed", |_| "defined"));
                tracing::error!(
                    "that the API has {done} the {what} `{name}` no longer goes with the configuration: {error}"
                );
                of(&mut left_out);
            }
        }
    }
    Ok((config, fit, left_out))
}

/// What rules look at is there before them, and goes after them.
fn in_order(changes: &Changes) -> impl Iterator<Item = (bool, &str, Option<&Table>)> {
    let functions = || changes.functions.iter().map(|(name, table)| (true, name.as_str(), table.as_ref()));
    let rules = || changes.rules.iter().map(|(name, table)| (false, name.as_str(), table.as_ref()));
    let is_defined = |(_, _, table): &(bool, &str, Option<&Table>)| table.is_some();
    let defined = functions().chain(rules()).filter(is_defined);
    defined.chain(rules().chain(functions()).filter(move |change| !is_defined(change)))
}

/// All changes but these.
pub(super) fn without(mut changes: Changes, others: &Changes) -> Changes {
    changes.functions.retain(|name, table| others.functions.get(name) != Some(table));
    changes.rules.retain(|name, table| others.rules.get(name) != Some(table));
    changes
}

/// Both; of the same name, the first.
pub(super) fn with(changes: &Changes, others: &Changes) -> Changes {
    let mut all = others.clone();
    all.functions.extend(changes.functions.clone());
    all.rules.extend(changes.rules.clone());
    all
}

/// Who edits a definition in the file is to know that it has no effect.
pub(super) fn tell_overruled(source: &Source, changes: &Changes) {
    let Ok(file) = source.config(&Changes::default()) else { return };
    let functions = file.functions.iter().map(|function| ("function", &function.name, &changes.functions));
    let rules = file.rules.iter().map(|rule| ("rule", &rule.rule.name, &changes.rules));
    for (what, name, changes) in functions.chain(rules) {
        if let Some(change) = changes.get(name) {
            let done = change.as_ref().map_or("removed", |_| "changed");
            tracing::warn!("the {what} `{name}` in the file has no effect: the API has {done} it");
        }
    }
}
