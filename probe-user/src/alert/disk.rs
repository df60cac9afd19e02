//! Small files that are either whole or not there, named by ids that sort by time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ulid::Ulid;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Makes a folder for its owner, and for the members of a group if one is given.
pub(super) fn make_folder(path: &Path, group: Option<u32>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(if group.is_some() { 0o750 } else { 0o700 }).create(path)?;
    if let Some(group) = group {
        chown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o750))?;
    }
    Ok(())
}

/// Writes a file: when this returns it is on the disk, and when it fails nothing of it is.
pub(super) fn write(path: &Path, group: Option<u32>, value: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.tmp"));
    let written = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if let Some(group) = group {
            chown(&temporary, None, Some(group))?;
            file.set_permissions(fs::Permissions::from_mode(0o640))?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    written().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Reads a file back. What is no such file gives an error of the kind `InvalidData`.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Removes a file; that it is gone is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The ids of a folder's files, oldest first; a folder that is not there has none.
pub(super) fn ids(folder: &Path) -> io::Result<Vec<Ulid>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|id| Ulid::from_string(id).ok());
        ids.extend(id);
    }
    ids.sort();
    Ok(ids)
}

/// The name of an id's file.
pub(super) fn file(id: Ulid) -> String {
    format!("{id}.json")
}

/// Removes what a crash left of files that were being written.
pub(super) fn clean(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(".tmp") {
            remove(&path)?;
        }
    }
    Ok(())
}
