//! Notices that are handed over: in order, once, whole, bounded, to readers and writers that start again.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use std::time::SystemTime;

use super::*;
use crate::alert::NoticeKind;
use crate::alert::notice::tests::notice;

fn pids(read: &[(Ulid, Option<Notice>)]) -> Vec<u32> {
    read.iter().filter_map(|(_, notice)| notice.as_ref()).map(|notice| notice.process.pid).collect()
}

fn end(pid: u32) -> Notice {
    Notice { kind: NoticeKind::Resolved, ..notice(pid, &[]) }
}

#[test]
fn what_is_appended_is_read_once_in_order_by_whoever_starts_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, state) = (folder.path().join("journal"), folder.path().join("state"));
    let mut reader = Reader::open(&path, &state).expect("opens");
    assert!(reader.read(10).is_empty(), "nothing there yet");
    let journal = Journal::open(&path, None).expect("opens");
    for pid in 1..=5 {
        journal.append(&notice(pid, &["ops"]));
    }
    let read = reader.read(3);
    assert_eq!(pids(&read), [1, 2, 3]);
    reader.advance(read[1].0);
    reader.save().expect("saved");
    let mut again = Reader::open(&path, &state).expect("opens");
    assert_eq!(pids(&again.read(10)), [3, 4, 5], "from where it was saved");
    let journal = Journal::open(&path, None).expect("opens again");
    let last = journal.append(&notice(6, &["ops"]));
    assert_eq!(pids(&again.read(10)), [3, 4, 5, 6]);
    again.advance(last);
    assert!(again.read(10).is_empty());
}

#[test]
fn ids_follow_each_other_though_the_clock_does_not() {
    let future = Ulid::from_datetime(SystemTime::now() + Duration::from_secs(3600));
    let next = next_id(Some(future));
    assert!(next > future && next_id(Some(next)) > next);
    assert!(next_id(None) > Ulid::nil());
}

#[test]
fn what_an_earlier_process_has_left_firing_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path(), None).expect("opens");
    for pid in 1..=3 {
        journal.append(&notice(pid, &[]));
    }
    journal.append(&Notice { kind: NoticeKind::Resolved, ..notice(2, &[]) });
    drop(journal);
    let firing = Journal::open(folder.path(), None).expect("opens again").firing();
    let mut pids: Vec<u32> = firing.iter().map(|notice| notice.process.pid).collect();
    pids.sort_unstable();
    assert_eq!(pids, [1, 3]);
}

#[test]
fn it_is_bounded_by_count_and_by_age() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = Ulid::from_datetime(SystemTime::now() - Duration::from_secs(100));
    disk::write(&folder.path().join(disk::file(old)), None, &end(1)).expect("written");
    let journal = Journal::open(folder.path(), None).expect("opens").with_limits(3, Duration::from_secs(50));
    journal.append(&end(2));
    assert_eq!(disk::ids(folder.path()).expect("listed").len(), 1, "the old one is gone");
    for pid in 3..9 {
        journal.append(&end(pid));
    }
    let mut reader = Reader::open(folder.path(), &folder.path().join("state")).expect("opens");
    assert_eq!(pids(&reader.read(10)), [6, 7, 8]);
}

#[test]
fn an_alert_stays_as_long_as_it_fires() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = Ulid::from_datetime(SystemTime::now() - Duration::from_secs(100));
    disk::write(&folder.path().join(disk::file(old)), None, &notice(1, &[])).expect("written");
    let open = || Journal::open(folder.path(), None).expect("opens").with_limits(10, Duration::from_secs(50));
    let firing = |journal: &Journal| journal.firing().iter().map(|notice| notice.process.pid).collect::<Vec<_>>();
    let journal = open();
    for pid in 10..30 {
        journal.append(&notice(pid, &[]));
        journal.append(&end(pid));
    }
    assert_eq!((firing(&journal), journal.count()), (vec![1], 10));
    assert_eq!(firing(&open()), [1]);
    // Only the last word on an alert is needed.
    journal.append(&notice(1, &[]));
    for pid in 30..40 {
        journal.append(&end(pid));
    }
    assert!(!folder.path().join(disk::file(old)).exists());
    assert_eq!((firing(&journal), firing(&open())), (vec![1], vec![1]));
    journal.append(&end(1));
    assert_eq!((firing(&journal), firing(&open())), (vec![], vec![]));
    assert_eq!((journal.count(), disk::ids(folder.path()).expect("listed").len()), (10, 10));
}

#[test]
fn what_fires_is_known_without_reading() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, None).expect("opens");
    journal.append(&notice(1, &[]));
    fs::remove_dir_all(&path).expect("removed");
    assert_eq!(journal.firing().len(), 1);
    // What the disk has not taken yet counts, too.
    fs::write(&path, "").expect("written");
    journal.append(&end(1));
    journal.append(&notice(2, &[]));
    assert_eq!(journal.firing().iter().map(|notice| notice.process.pid).collect::<Vec<_>>(), [2]);
}

#[test]
fn of_too_many_that_fire_the_oldest_are_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path(), None).expect("opens").with_limits(10, Duration::from_secs(50));
    for pid in 1..=7 {
        journal.append(&notice(pid, &[]));
    }
    let mut firing: Vec<u32> = journal.firing().iter().map(|notice| notice.process.pid).collect();
    firing.sort_unstable();
    assert_eq!(firing, [3, 4, 5, 6, 7]);
    let read = Reader::open(folder.path(), &folder.path().join("state")).expect("opens").read(20);
    let ends: Vec<&Notice> =
        read.iter().filter_map(|(_, notice)| notice.as_ref()).filter(|n| n.is_resolved()).collect();
    assert_eq!(ends.iter().map(|end| end.process.pid).collect::<Vec<_>>(), [1, 2]);
    assert!(ends[0].compared.starts_with("no longer followed, because too many alerts fire; it was 97.5 above 80"));
}

#[test]
fn what_the_disk_refuses_waits_and_keeps_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, None).expect("opens");
    // A file where the folder was: nothing can be written into it.
    fs::remove_dir(&path).expect("removed");
    fs::write(&path, "").expect("written");
    let first = journal.append(&notice(1, &[]));
    assert_eq!(journal.flush(), 1);
    fs::remove_file(&path).expect("removed");
    let second = journal.append(&notice(2, &[]));
    assert!(first < second);
    assert_eq!((journal.flush(), disk::ids(&path).expect("listed")), (0, vec![first, second]));
}

#[test]
fn half_written_and_damaged_files_are_no_notices() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, None).expect("opens");
    let bad = journal.append(&notice(1, &[]));
    journal.append(&notice(2, &[]));
    fs::write(path.join(disk::file(bad)), "{\"id\":").expect("damaged");
    let torn = path.join(format!(".{}.tmp", disk::file(Ulid::new())));
    fs::write(&torn, "{").expect("torn");
    let mut reader = Reader::open(&path, &folder.path().join("state")).expect("opens");
    let read = reader.read(10);
    assert_eq!((read.len(), read[0].1.is_none(), pids(&read)), (2, true, vec![2]));
    drop(journal);
    Journal::open(&path, None).expect("opens again");
    assert!(!torn.exists(), "what a crash has left is cleaned up");
}

#[test]
fn only_its_owner_and_the_group_may_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = fs::metadata(folder.path()).expect("there").gid();
    for (group, folder_mode, file_mode) in [(None, 0o700, 0o600), (Some(own), 0o750, 0o640)] {
        let path = folder.path().join(format!("journal-{folder_mode:o}"));
        let journal = Journal::open(&path, group).expect("opens");
        let id = journal.append(&notice(1, &[]));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(disk::file(id)))), (folder_mode, file_mode));
    }
}
