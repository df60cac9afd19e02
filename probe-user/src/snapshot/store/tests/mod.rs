//! Stores that are written, damaged, full and crashed.

mod damage;
mod faults;
mod formats;
mod indexed;
mod kept;
mod queries;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::check::SIDECAR;
use super::write::Step;
use super::*;
use crate::snapshot::sidecar::tests::sidecar;

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    step: Step,
    error: io::ErrorKind,
}

impl Store {
    pub(super) fn step(&self, step: Step) -> io::Result<()> {
        match *self.fault.lock().expect("no panic") {
            Some(fault) if fault.step == step => Err(fault.error.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        let fault = Fault { step: Step::WriteFile, error: io::ErrorKind::StorageFull };
        *self.fault.lock().expect("no panic") = is_full.then_some(fault);
    }
}

fn profiles() -> Profiles {
    Profiles { before: b"calm".to_vec(), breach: b"hot".to_vec(), dump: b"threads".to_vec(), ..Profiles::default() }
}

/// An id of so many seconds ago.
fn id(seconds_ago: u64) -> Ulid {
    Ulid::from_datetime(SystemTime::now() - Duration::from_secs(seconds_ago))
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .expect("readable")
        .map(|e| e.expect("entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

/// Who breached when: a snapshot of a target and a rule.
fn of(id: Ulid, target: &str, rule: &str) -> Sidecar {
    Sidecar { target: target.into(), rule: rule.into(), ..sidecar(id) }
}

fn open(path: &Path) -> Store {
    Store::open(path, Limits::default()).expect("opens")
}

/// Stores snapshots of so many seconds ago.
fn put(store: &Store, seconds_ago: &[u64]) -> Vec<Ulid> {
    let put = |&seconds| {
        let id = id(seconds);
        store.put(&sidecar(id), &profiles()).expect("stored");
        id
    };
    seconds_ago.iter().map(put).collect()
}

fn listed(store: &Store) -> Vec<Ulid> {
    store.list().expect("listed").snapshots.iter().map(|sidecar| sidecar.id).collect()
}

/// Runs `test` in a small file system of its own, if that can be made here.
fn on_small_disk(size: &str, test: impl FnOnce(&Path) + std::panic::UnwindSafe) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = format!("size={size}");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
    let mount = mount.expect("mount can be run");
    if !mount.status.success() {
        eprintln!("SKIPPED: a small tmpfs needs root: {}", String::from_utf8_lossy(&mount.stderr));
        return;
    }
    let path = folder.path().to_owned();
    let result = std::panic::catch_unwind(|| test(&path));
    let umount = Command::new("umount").arg("--lazy").arg(folder.path()).status().expect("umount can be run");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    assert!(umount.success());
}

#[test]
fn what_was_stored_is_listed_read_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("a/b"), Limits::default()).expect("opens");
    let (old, new) = (id(60), id(1));
    for id in [new, old] {
        store.put(&sidecar(id), &profiles()).expect("stored");
    }
    let listing = store.list().expect("listed");
    assert_eq!(listing.snapshots.iter().map(|s| s.id).collect::<Vec<_>>(), [new, old]);
    assert!(listing.damaged.is_empty());
    let read = Store::read(store.path(), Limits::default());
    let back = read.sidecar(new).expect("there");
    let sizes: Vec<_> = back.profiles.iter().map(|p| (p.window, p.bytes)).collect();
    assert_eq!(sizes, [(Window::Before, 4), (Window::Breach, 3), (Window::Dump, 7)]);
    assert_eq!(read.profile(new, Window::Breach).expect("there"), b"hot");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(store.path()), mode(&store.folder(new))), (0o700, 0o700));
    assert_eq!(mode(&store.folder(new).join(SIDECAR)), 0o600);
    read.remove(new).expect("removed");
    let error = read.sidecar(new).expect_err("gone");
    assert_eq!(error.downcast_ref::<Problem>().map(|p| p.exit), Some(Exit::NoTarget));
    assert!(read.remove(new).is_err() && read.profile(new, Window::Before).is_err());
    assert!(read.put(&sidecar(new), &profiles()).is_err(), "opened for reading");
}

#[test]
fn a_store_that_is_not_there_is_empty() {
    let listing = Store::read(Path::new("/nonexistent/store"), Limits::default()).list().expect("listed");
    assert!(listing.snapshots.is_empty() && listing.damaged.is_empty());
}
