//! Folders in which everybody may make files, such as `/tmp`: what stands there under a name that we write to may be
//! another user's, put there to have us write somewhere else, or to read it. The kernel refuses some of that where
//! `fs.protected_symlinks` and its kind are set; here it is refused everywhere.

use std::fs;
use std::io::{Error, ErrorKind, Result, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Sticky, and for all others to write to.
const FOR_EVERYBODY: u32 = 0o1002;

/// Fails if `path` is an entry of such a folder that belongs to somebody else than us and the folder's owner.
pub(super) fn refuse(path: &Path) -> Result<()> {
    let folder = folder(path);
    let (Ok(around), Ok(entry)) = (fs::metadata(folder), fs::symlink_metadata(path)) else { return Ok(()) };
    let is_known = [around.uid(), rustix::process::geteuid().as_raw()].contains(&entry.uid());
    if around.mode() & FOR_EVERYBODY != FOR_EVERYBODY || is_known {
        return Ok(());
    }
    let what = if entry.is_symlink() { "a link" } else { "it" };
    let words = format!("{what} of another user (uid {}) stands there, in a folder for everybody", entry.uid());
    Err(Error::new(ErrorKind::PermissionDenied, words))
}

/// Writes a whole file: beside its name, then renamed, so that no link is followed. A device or a pipe is written to.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    refuse(path)?;
    if fs::symlink_metadata(path).is_ok_and(|entry| !entry.is_file()) {
        return fs::write(path, bytes);
    }
    let mode = fs::metadata(path).map_or(0o666 & !umask(), |before| before.mode() & 0o777);
    let mut file = tempfile::Builder::new().prefix(".probe-").tempfile_in(folder(path))?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Which permissions new files do not get.
pub(super) fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(mask);
    mask.as_raw_mode()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

    use super::*;

    #[test]
    fn what_others_have_put_there_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may give files away");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "before").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        lchown(at("link"), Some(65_534), Some(65_534)).unwrap();
        assert!(refuse(&at("link")).is_ok(), "the folder is ours alone");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        for path in [at("link"), at("file")] {
            fs::write(at("file"), "").unwrap();
            lchown(at("file"), Some(65_534), Some(65_534)).unwrap();
            let error = write(&path, b"after").expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        }
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "before");
        symlink(at("victim"), at("own")).unwrap();
        write(&at("own"), b"after").unwrap();
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "after", "our own links are followed");
        write(&at("new"), b"new").unwrap();
        assert_eq!(fs::read_to_string(at("new")).unwrap(), "new");
    }
}
