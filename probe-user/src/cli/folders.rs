//! The folders of the daemon's processes, made while there is still the privilege to give them to their users: the store is
//! written by the collector and read by the server, the socket's folder as well, and the server has one of its own.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::geteuid;

use crate::config::Config;
use crate::problem::{Exit, Problem};
use crate::sandbox::User;

/// How long a server waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes what is missing for both processes.
pub(super) fn prepare(config: &Config, user: &User) -> Result<()> {
    let state = &config.serve.state;
    make(state, 0o700)?;
    writable(state, "[serve] state", "this user")?;
    let own = owner(state)?;
    // To give it again would take a capability for nothing.
    if geteuid().is_root() && (own.uid(), own.gid()) != (user.uid, user.gid) {
        give_all(state, Some(user.uid), user.gid)?;
    }
    prepare_shared(config, user)?;
    user.act(|| writable(state, "[serve] state", &user.name))?
}

/// Fails unless this process, which is to write snapshots, can do so. The server only reads them.
pub(super) fn expect_store(config: &Config) -> Result<()> {
    writable(&config.store.path, "[store] path", "this user")
}

/// Fails unless files can be made in a folder, by whoever calls this.
fn writable(folder: &Path, key: &str, who: &str) -> Result<()> {
    tempfile::tempfile_in(folder).map(drop).map_err(|error| {
        // `tempfile` adds a path of its own.
        let inner = error.get_ref().and_then(|inner| inner.source()?.downcast_ref::<std::io::Error>());
        let why = inner.map_or_else(|| error.to_string(), ToString::to_string);
        let hint = format!("let {who} write there (every folder above needs mode 755), or name another by {key}");
        Problem::new(Exit::Failure, format!("cannot write in {}: {why}", folder.display()), hint).into()
    })
}

/// Makes what is missing for the collector alone, which has no capability to give anything away: the server's folder, where
/// it is there and root's, is shared with the server's group. Files in shared folders belong to that group from the start.
pub(super) fn prepare_shared(config: &Config, user: &User) -> Result<()> {
    make(&config.store.path, 0o750)?;
    share(&config.store.path, user, READ)?;
    if config.serve.state.exists() {
        share(&config.serve.state, user, READ | WRITE)?;
    }
    match config.collector.socket.parent() {
        Some(folder) if !folder.exists() => {
            make(folder, 0o750)?;
            share(folder, user, READ)
        }
        // Somebody else's, such as /run.
        _ => Ok(()),
    }
}

/// Takes the server's folder for this process: two would tell everything twice, and lose what they both have in the queues.
pub(super) fn take(state: &Path) -> Result<File> {
    let path = state.join(".lock");
    let lock = File::create(&path).with_context(|| {
        let hint = "let the server's user write there, or name another folder by [serve] state";
        Problem::new(Exit::Failure, format!("cannot write {}", path.display()), hint)
    })?;
    // One whose supervisor was killed is about to end.
    let end = Instant::now() + PATIENCE;
    let mut locked = lock.try_lock();
    while matches!(locked, Err(TryLockError::WouldBlock)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        locked = lock.try_lock();
    }
    match locked {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Problem::new(
            Exit::Failure,
            format!("another server sends the alerts in {}", state.display()),
            "there is one for a store: end the other, or give this one a [serve] state of its own",
        )
        .into()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// What a group may do in a folder whose new files are its own.
const READ: u32 = 0o2050;
const WRITE: u32 = 0o0020;

fn share(folder: &Path, user: &User, group: u32) -> Result<()> {
    let own = owner(folder)?;
    let is_owner = own.uid() == geteuid().as_raw();
    if is_owner && user.uid != own.uid() && (own.gid() != user.gid || own.mode() & group != group) {
        if own.gid() != user.gid {
            give_all(folder, None, user.gid)?;
        }
        let mode = Permissions::from_mode(own.mode() & 0o7777 | group);
        fs::set_permissions(folder, mode).with_context(|| format!("cannot share {}", folder.display()))?;
    }
    Ok(())
}

fn owner(folder: &Path) -> Result<fs::Metadata> {
    fs::metadata(folder).with_context(|| folder.display().to_string())
}

/// What is above it is for everybody to pass through, as other folders are.
fn make(folder: &Path, mode: u32) -> Result<()> {
    let above = folder.parent().map_or(Ok(()), |above| DirBuilder::new().recursive(true).mode(0o755).create(above));
    let made = above.and_then(|()| match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    });
    made.with_context(|| {
        let hint = "create it, or name another in the configuration: [store] path, [serve] state, [collector] socket";
        Problem::new(Exit::Failure, format!("cannot create the folder {}", folder.display()), hint)
    })
}

/// The server had another user before. Links are given as such; the folder comes last, so that what fails is done again.
fn give_all(folder: &Path, uid: Option<u32>, gid: u32) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => give_all(&entry.path(), uid, gid)?,
            false => give(&entry.path(), uid, gid)?,
        }
    }
    give(folder, uid, gid)
}

fn give(folder: &Path, uid: Option<u32>, gid: u32) -> Result<()> {
    lchown(folder, uid, Some(gid)).with_context(|| format!("cannot give {} to group {gid}", folder.display()))
}
