//! Readers of a store who are another user: with the group's read access they find everything, with the index or without
//! it, and can change nothing. The reader is this same program, started as that user; that needs root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use probe::problem::{Exit, Problem};
use probe::snapshot::{Limits, Options, Profiles, Query, Sidecar, Store, Window};
use rusqlite::{Connection, OpenFlags};
use ulid::Ulid;

const STORE: &str = "PROBE_ACCESS_STORE";
/// What the reader should find: `index`, `folders` or `nothing`.
const EXPECTED: &str = "PROBE_ACCESS_EXPECTED";

const NOBODY: u32 = 65_534;
const GROUP: u32 = 12_345;

#[test]
fn reader() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let path = Path::new(&path);
    let store = Store::read(path, Limits::default());
    let checkout = Query { target: Some("checkout".into()), ..Query::default() };
    let expected = std::env::var(EXPECTED).expect("set");
    if expected == "nothing" {
        let error = store.query(&checkout).expect_err("not permitted");
        assert_eq!(error.downcast_ref::<Problem>().map(|problem| problem.exit), Some(Exit::NotPermitted));
        return;
    }
    let page = store.query(&checkout).expect("read");
    assert_eq!((page.snapshots.len(), page.damaged.len()), (2, 0));
    assert_eq!(store.count(&checkout).expect("counted").snapshots, 2);
    let id = page.snapshots[0].id;
    assert_eq!(store.profile(id, Window::Breach).expect("read"), b"hot");
    let rows =
        Connection::open_with_flags(path.join("index.sqlite"), OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(|index| {
            index.busy_timeout(Duration::ZERO)?;
            index.query_row("SELECT count(*) FROM snapshots", [], |row| row.get::<_, i64>(0))
        });
    assert_eq!(rows.ok(), (expected == "index").then_some(3));
    assert!(store.remove(id).is_err(), "it is not theirs");
    assert!(Store::open(path, Limits::default()).is_err() && fs::write(path.join("x"), "").is_err());
    assert_eq!(store.sidecar(id).expect("still there"), page.snapshots[0]);
}

#[test]
fn another_user_reads_what_the_group_may() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: another user needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("changed");
    let path = folder.path().join("store");
    // A copy that this user may run, wherever the original is.
    let program = folder.path().join("reader");
    fs::copy(std::env::current_exe().expect("known"), &program).expect("copied");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("changed");
    let read = |expected: &str| {
        let mut command = Command::new(&program);
        command.args(["--exact", "reader"]).env(STORE, &path).env(EXPECTED, expected).current_dir("/");
        let output = command.uid(NOBODY).gid(GROUP).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{expected}: {said}");
    };
    let golden: Sidecar =
        serde_json::from_str(include_str!("golden/store/version-2/snapshot.json")).expect("a sidecar");
    let put = |store: &Store, seconds_ago: u64, target: &str| {
        let id = Ulid::from_datetime(SystemTime::now() - Duration::from_secs(seconds_ago));
        let profiles = Profiles { breach: b"hot".to_vec(), ..Profiles::default() };
        store.put(&Sidecar { id, target: target.into(), ..golden.clone() }, &profiles).expect("stored");
    };
    put(&Store::open(&path, Limits::default()).expect("opens"), 3, "checkout");
    read("nothing");
    let store = Store::open(&path, Options { group: Some(GROUP), ..Options::default() }).expect("opens");
    put(&store, 2, "search");
    put(&store, 1, "checkout");
    read("index");
    let index = path.join("index.sqlite");
    fs::set_permissions(&index, Permissions::from_mode(0o600)).expect("changed");
    read("folders");
    fs::remove_file(&index).expect("removed");
    read("folders");
    store.maintain();
    read("index");
    // Somebody changes it and does not come to an end.
    let writer = Connection::open(&index).expect("opens");
    writer.execute_batch("BEGIN EXCLUSIVE").expect("begins");
    read("folders");
}
