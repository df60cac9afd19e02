//! What the limits remove, and what pins keep.

use super::super::pins::PINNED;
use super::*;

const TWO: Limits = Limits { max_bytes: u64::MAX, max_age: Duration::from_secs(3600), max_snapshots: 2 };

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
#[test]
fn age_counts_without_new_snapshots() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { max_age: Duration::from_secs(2), ..TWO };
    let store = Store::open(folder.path(), limits).expect("opens");
    let young = id(1);
    store.put(&sidecar(young), &profiles()).expect("stored");
    store.maintain();
    assert_eq!(listed(&store), [young]);
    std::thread::sleep(Duration::from_millis(1500));
    store.maintain();
    assert!(listed(&store).is_empty());
    assert_eq!(store.count(&Query::all()).expect("counted"), Totals::default());
}

#[test]
fn what_was_stored_late_is_not_removed_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), TWO).expect("opens");
    let ids = put(&store, &[2, 1, 7200]);
    assert_eq!(listed(&store), [ids[1], ids[0], ids[2]], "whoever stored it has been told that it is there");
    store.maintain();
    assert_eq!(listed(&store), [ids[1], ids[0]]);
}

#[test]
fn a_pinned_snapshot_stays_over_restarts_until_it_is_unpinned() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), TWO).expect("opens");
    let (early, late) = (id(7300), id(7200));
    store.pin(early).expect("before it is stored");
    store.put(&sidecar(early), &profiles()).expect("stored");
    store.put(&sidecar(late), &profiles()).expect("stored");
    store.pin(late).expect("pinned");
    store.pin(late).expect("twice is no error");
    let others = put(&store, &[3, 2, 1]);
    assert_eq!(listed(&store), [others[2], late, early]);
    drop(store);
    for lose_index in [false, true] {
        if lose_index {
            fs::remove_file(folder.path().join("index.sqlite")).expect("removed");
        }
        let store = Store::open(folder.path(), TWO).expect("opens");
        assert_eq!(listed(&store), [others[2], late, early]);
        assert_eq!(store.pinned().expect("read"), [late, early]);
    }
    let store = Store::open(folder.path(), TWO).expect("opens");
    store.unpin(early).expect("unpinned");
    store.unpin(early).expect("twice is no error");
    assert_eq!(Store::read(folder.path(), TWO).pinned().expect("read"), [late]);
    store.maintain();
    assert_eq!(listed(&store), [others[2], late]);
    assert!(Store::read(folder.path(), TWO).pin(late).is_err(), "opened for reading");
    store.remove(late).expect("whoever asks for it can remove it");
}

#[test]
fn on_a_full_disk_a_pin_holds_as_long_as_the_daemon() {
    on_small_disk("96k", |path| {
        let store = Store::open(path, TWO).expect("opens");
        let early = put(&store, &[9])[0];
        fs::write(path.join("filler"), vec![0; 96 << 10]).expect_err("full");
        // Whether the empty file finds room or not.
        let _ = store.pin(early);
        fs::remove_file(path.join("filler")).expect("removed");
        let others = put(&store, &[3, 2, 1]);
        assert_eq!(listed(&store), [others[2], early]);
    });
}

#[test]
fn a_group_may_read_what_is_for_it() {
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let gid = |path: &Path| std::os::unix::fs::MetadataExt::gid(&fs::metadata(path).expect("there"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let old = put(&open(&path), &[2])[0];
    assert_eq!((mode(&path), mode(&path.join(old.to_string()))), (0o700, 0o700));
    // Another group where that is allowed, else our own.
    let own = gid(folder.path());
    let group = if rustix::process::geteuid().is_root() { 12_345 } else { own };
    let options = Options { group: Some(group), ..Options::default() };
    let store = Store::open(&path, options).expect("opens");
    let new = put(&store, &[1])[0];
    store.pin(new).expect("pinned");
    assert_eq!((mode(&path), gid(&path)), (0o750, group));
    for id in [old, new] {
        let folder = store.folder(id);
        assert_eq!((mode(&folder), gid(&folder)), (0o750, group));
        for name in names(&folder) {
            assert_eq!((mode(&folder.join(&name)), gid(&folder.join(&name))), (0o640, group), "{name}");
        }
    }
    assert_eq!((mode(&path.join("index.sqlite")), gid(&path.join("index.sqlite"))), (0o640, group));
    assert_eq!(mode(&path.join(".lock")), 0o600);
    assert!(store.folder(new).join(PINNED).exists());
}
