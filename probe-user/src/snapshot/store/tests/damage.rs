//! Snapshots that are not as they were written.

use std::os::unix::fs::FileExt as _;

use super::super::check::SUMS;
use super::*;

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
    assert!(format!("{:#}", store.sidecar(ids[1]).expect_err("damaged")).contains("has 2 bytes, not 3"));
}

/// Changes a byte of a file, somewhere in the middle.
fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("opens");
    let middle = file.metadata().expect("there").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("read");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("written");
}

fn truncate(path: &Path) {
    let file = File::options().write(true).open(path).expect("opens");
    file.set_len(file.metadata().expect("there").len() / 2).expect("cut");
}

#[test]
fn a_flipped_or_cut_file_is_damage_with_a_reason_and_harms_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let (torn, whole) = (id(2), id(1));
    for (name, damage, reason) in [
        (SIDECAR, flip as fn(&Path), "snapshot.json has another checksum than it was written with"),
        (SIDECAR, truncate, "snapshot.json has another checksum"),
        (SUMS, flip, "SHA256SUMS"),
        (SUMS, truncate, "SHA256SUMS: it is cut off"),
        ("breach.pb.gz", flip, "breach.pb.gz has another checksum"),
        ("before.pb.gz", truncate, "before.pb.gz has 2 bytes, not 4"),
        (SUMS, |path| fs::remove_file(path).expect("removed"), "SHA256SUMS is missing"),
        (SIDECAR, |path| fs::remove_file(path).expect("removed"), "snapshot.json: No such file"),
    ] {
        for id in [torn, whole] {
            store.put(&sidecar(id), &profiles()).expect("stored");
        }
        // Later than the checksums, as on any disk.
        std::thread::sleep(Duration::from_millis(20));
        damage(&store.folder(torn).join(name));
        let reader = Store::read(folder.path(), Limits::default());
        let listing = reader.list().expect("listed");
        assert_eq!(listing.snapshots.iter().map(|s| s.id).collect::<Vec<_>>(), [whole], "{name}");
        let [damaged] = &listing.damaged[..] else { panic!("{name}: {:?}", listing.damaged) };
        assert_eq!((damaged.id, &damaged.path), (torn, &store.folder(torn)));
        assert!(damaged.reason.contains(reason), "{name}: {}", damaged.reason);
        let error = format!("{:#}", reader.sidecar(torn).expect_err("damaged"));
        assert!(error.contains("is damaged") && error.contains(reason), "{error}");
        assert_eq!(reader.profile(whole, Window::Breach).expect("whole"), b"hot");
        store.maintain();
        store.remove(torn).expect("damaged ones can be removed");
    }
}

#[test]
fn damage_that_shows_no_sign_is_found_when_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let id = put(&store, &[1])[0];
    let path = store.folder(id).join("breach.pb.gz");
    let before = fs::metadata(&path).expect("there").modified().expect("known");
    flip(&path);
    File::options().write(true).open(&path).expect("opens").set_modified(before).expect("set");
    assert_eq!(listed(&store), [id]);
    let error = format!("{:#}", store.profile(id, Window::Breach).expect_err("damaged"));
    assert!(error.contains("breach.pb.gz has another checksum"), "{error}");
    assert_eq!(store.profile(id, Window::Before).expect("whole"), b"calm");
}

#[test]
fn a_profile_that_is_missing_is_told_from_one_that_never_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let id = id(1);
    store.put(&sidecar(id), &Profiles { dump: Vec::new(), ..profiles() }).expect("stored");
    let never = store.profile(id, Window::Dump).expect_err("none");
    assert_eq!(never.downcast_ref::<Problem>().map(|problem| problem.exit), Some(Exit::NoTarget));
    fs::remove_file(store.folder(id).join("breach.pb.gz")).expect("removed");
    let lost = format!("{:#}", store.profile(id, Window::Breach).expect_err("lost"));
    assert!(lost.contains("is damaged"), "{lost}");
}
