//! Stores that are written, damaged, full and crashed.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;
use crate::snapshot::sidecar::tests::sidecar;

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
    Profiles { before: b"calm".to_vec(), breach: b"hot".to_vec(), dump: b"threads".to_vec() }
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
    let back = read.get(new).expect("there");
    let sizes: Vec<_> = back.profiles.iter().map(|p| (p.window, p.bytes)).collect();
    assert_eq!(sizes, [(Window::Before, 4), (Window::Breach, 3), (Window::Dump, 7)]);
    assert_eq!(read.profile(new, Window::Breach).expect("there"), b"hot");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(store.path()), mode(&store.folder(new))), (0o700, 0o700));
    assert_eq!(mode(&store.folder(new).join(SIDECAR)), 0o600);
    read.remove(new).expect("removed");
    let error = read.get(new).expect_err("gone");
    assert_eq!(error.downcast_ref::<Problem>().map(|p| p.exit), Some(Exit::NoTarget));
    assert!(read.remove(new).is_err() && read.profile(new, Window::Before).is_err());
    assert!(read.put(&sidecar(new), &profiles()).is_err(), "opened for reading");
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits::default()).expect("opens");
    for step in [Step::WriteFile, Step::SyncFile, Step::SyncFolder, Step::Rename, Step::SyncStore] {
        for error in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied] {
            *store.fault.lock().expect("no panic") = Some(Fault { step, error });
            let failure = store.put(&sidecar(id(1)), &profiles()).expect_err("fails");
            assert_eq!(is_full(&failure), error == io::ErrorKind::StorageFull, "{failure:#}");
            assert_eq!(names(folder.path()), [".lock"], "{step:?}");
        }
    }
    *store.fault.lock().expect("no panic") = None;
    store.put(&sidecar(id(1)), &profiles()).expect("stored once there is room");
}

#[test]
fn a_full_disk_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits::default()).expect("opens");
    store.set_full(true);
    let failure = store.put(&sidecar(id(1)), &profiles()).expect_err("full");
    assert!(format!("{failure:#}").contains("the disk is full"), "{failure:#}");
}

#[test]
fn a_really_full_disk_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(folder.path())
        .output()
        .expect("mount can be run");
    if !mount.status.success() {
        eprintln!("SKIPPED: a small tmpfs needs root: {}", String::from_utf8_lossy(&mount.stderr));
        return;
    }
    let store = Store::open(folder.path(), Limits::default()).expect("opens");
    let large = Profiles { before: vec![7; 20 << 10], breach: vec![7; 60 << 10], ..Profiles::default() };
    let failure = store.put(&sidecar(id(1)), &large);
    let left = names(folder.path());
    let small = store.put(&sidecar(id(1)), &profiles());
    drop(store);
    let umount = std::process::Command::new("umount").arg(folder.path()).status().expect("umount can be run");
    assert!(is_full(&failure.expect_err("full")) && umount.success());
    assert_eq!(left, [".lock"]);
    small.expect("what fits is stored");
}

#[test]
fn what_a_crash_left_is_never_listed_and_goes_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = id(1);
    drop({
        let store = Store::open(folder.path(), Limits::default()).expect("opens");
        store.put(&sidecar(whole), &profiles()).expect("stored");
        store
    });
    for name in [format!(".{}.tmp", id(5)), format!(".{}.gone", id(6))] {
        fs::create_dir(folder.path().join(&name)).expect("made");
        fs::write(folder.path().join(name).join("breach.pb.gz"), "half").expect("written");
    }
    fs::create_dir(folder.path().join("outbox")).expect("made");
    let read = Store::read(folder.path(), Limits::default());
    assert_eq!(read.list().expect("listed").snapshots.len(), 1);
    assert_eq!(names(folder.path()).len(), 5, "looking removes nothing");
    let store = Store::open(folder.path(), Limits::default()).expect("opens");
    assert_eq!(names(folder.path()), [".lock", &whole.to_string(), "outbox"]);
    assert!(Store::open(folder.path(), Limits::default()).is_err(), "one writer at a time");
    drop(store);
}

#[test]
fn damaged_snapshots_are_reported_and_not_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits::default()).expect("opens");
    let ids = [id(4), id(3), id(2), id(1)];
    for id in ids {
        store.put(&sidecar(id), &profiles()).expect("stored");
    }
    fs::write(store.folder(ids[0]).join(SIDECAR), "{").expect("written");
    fs::write(store.folder(ids[1]).join(Window::Breach.file()), "ho").expect("written");
    fs::remove_file(store.folder(ids[2]).join(Window::Before.file())).expect("removed");
    let listing = store.list().expect("listed");
    assert_eq!(listing.snapshots.iter().map(|s| s.id).collect::<Vec<_>>(), [ids[3]]);
    assert_eq!(listing.damaged.len(), 3);
    assert!(format!("{:#}", store.get(ids[1]).expect_err("damaged")).contains("has 2 bytes, not 3"));
}

#[test]
fn a_store_that_is_not_there_is_empty() {
    let listing = Store::read(Path::new("/nonexistent/store"), Limits::default()).list().expect("listed");
    assert!(listing.snapshots.is_empty() && listing.damaged.is_empty());
}

#[test]
fn the_limits_hold_after_every_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits { max_snapshots: 2, ..Limits::default() }).expect("opens");
    let ids = [id(3), id(2), id(1)];
    for id in ids {
        store.put(&sidecar(id), &profiles()).expect("stored");
    }
    let left: Vec<_> = store.list().expect("listed").snapshots.iter().map(|s| s.id).collect();
    assert_eq!(left, [ids[2], ids[1]]);
}
