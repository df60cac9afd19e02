//! Steps that fail, full disks, disks that cannot be written to.

use super::*;

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits::default()).expect("opens");
    for step in [Step::WriteFile, Step::SyncFile, Step::SyncFolder, Step::Rename, Step::SyncStore] {
        for error in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied] {
            *store.fault.lock().expect("no panic") = Some(Fault { step, error });
            let failure = store.put(&sidecar(id(1)), &profiles()).expect_err("fails");
            assert_eq!(is_full(&failure), error == io::ErrorKind::StorageFull, "{failure:#}");
            assert_eq!(names(folder.path()), [".lock", "index.sqlite"], "{step:?}");
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
    on_small_disk("80k", |path| {
        let store = open(path);
        let large = Profiles { before: vec![7; 20 << 10], breach: vec![7; 60 << 10], ..Profiles::default() };
        let failure = store.put(&sidecar(id(1)), &large);
        assert!(is_full(&failure.expect_err("full")));
        assert_eq!(names(path), [".lock", "index.sqlite"]);
        store.put(&sidecar(id(1)), &profiles()).expect("what fits is stored");
    });
}

#[test]
fn on_a_disk_that_fills_up_nothing_acknowledged_is_lost_and_nothing_else_listed() {
    on_small_disk("400k", |path| {
        let store = open(&path.join("store"));
        let filler = path.join("filler");
        let mut stored = Vec::new();
        // Full at every level, so that every step and the index meet it.
        for free in (0..40 << 10).step_by(1024) {
            let id = id(100 - u64::try_from(free / 1024).expect("small"));
            fs::write(&filler, vec![0; 300 << 10]).ok();
            fs::write(path.join("rest"), vec![0; 400 << 10]).ok();
            let rest = fs::metadata(path.join("rest")).expect("there").len();
            let keep = File::options().write(true).open(path.join("rest")).expect("opens");
            keep.set_len(rest.saturating_sub(free as u64)).expect("cut");
            drop(keep);
            match store.put(&sidecar(id), &profiles()) {
                Ok(_) => stored.insert(0, id),
                Err(error) => assert!(is_full(&error), "{error:#}"),
            }
            assert_eq!(listed(&Store::read(store.path(), Limits::default())), stored, "{free} bytes were free");
            store.maintain();
            assert_eq!(listed(&Store::read(store.path(), Limits::default())), stored, "{free} bytes were free");
            if stored.len() > 3 {
                store.remove(stored.pop().expect("one")).expect("can be removed from a full disk");
            }
        }
        assert!(!stored.is_empty());
        fs::remove_file(filler).expect("removed");
        fs::remove_file(path.join("rest")).expect("removed");
        store.maintain();
        let read = Store::read(store.path(), Limits::default());
        assert_eq!(listed(&read), stored);
        assert_eq!(index::read(store.path(), (Ulid::nil(), Ulid::from(u128::MAX))).expect("there").len(), stored.len());
    });
}

#[test]
fn a_read_only_disk_is_read_and_not_written() {
    on_small_disk("1m", |path| {
        let (folder, store) = (path.join("store"), open(&path.join("store")));
        let ids = put(&store, &[2, 1]);
        let remount = |how: &str| {
            let status = Command::new("mount").args(["-o", how]).arg(path).status().expect("mount can be run");
            assert!(status.success());
        };
        // The daemon runs on: what it has is listed, what it would store is refused.
        drop(store);
        remount("remount,ro");
        let read = Store::read(&folder, Limits::default());
        assert_eq!(listed(&read), [ids[1], ids[0]]);
        assert_eq!(read.query(&Query { limit: 1, ..Query::default() }).expect("read").next, Some(ids[1]));
        let refused = Store::open(&folder, Limits::default()).expect_err("cannot be written");
        let problem = refused.downcast_ref::<Problem>().expect("a problem");
        assert!(problem.message.contains("Read-only file system") && problem.hint.contains("remount"), "{problem:?}");
        remount("remount,rw");
        let store = open(&folder);
        assert_eq!(listed(&store), [ids[1], ids[0]]);
    });
}

#[test]
fn what_could_not_be_put_is_put_when_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let id = put(&store, &[1])[0];
    // As if the store could not be synchronised and the folder not be taken back either.
    fs::write(store.folder(id).join("other"), "x").expect("written");
    let other = Profiles { breach: b"hotter".to_vec(), ..profiles() };
    store.put(&sidecar(id), &other).expect("stored again");
    assert_eq!(store.profile(id, Window::Breach).expect("there"), b"hotter");
    assert_eq!(names(folder.path()), [".lock", &id.to_string(), "index.sqlite"]);
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
    assert_eq!(names(folder.path()).len(), 6, "looking removes nothing");
    let store = Store::open(folder.path(), Limits::default()).expect("opens");
    assert_eq!(names(folder.path()), [".lock", &whole.to_string(), "index.sqlite", "outbox"]);
    assert!(Store::open(folder.path(), Limits::default()).is_err(), "one writer at a time");
    drop(store);
}
