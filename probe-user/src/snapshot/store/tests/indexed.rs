//! The index: lost, damaged, old, of the future, in use, half-written.

use rusqlite::Connection;

use super::*;

fn rows(path: &Path) -> Result<usize> {
    index::read(path, (Ulid::nil(), Ulid::from(u128::MAX))).map(|rows| rows.len())
}

fn file(path: &Path) -> PathBuf {
    path.join(index::FILE)
}

/// A store of three snapshots, two of them of the same target.
fn three(path: &Path) -> [Ulid; 3] {
    let store = open(path);
    let ids = [id(3), id(2), id(1)];
    for (id, target) in ids.iter().zip(["checkout", "search", "checkout"]) {
        store.put(&of(*id, target, "hot"), &profiles()).expect("stored");
    }
    ids
}

/// Those two are found.
fn expect_two(store: &Store, ids: [Ulid; 3], name: &str) {
    let checkout = Query { target: Some("checkout".into()), ..Query::default() };
    let found: Vec<_> = store.query(&checkout).expect("read").snapshots.iter().map(|sidecar| sidecar.id).collect();
    assert_eq!(found, [ids[2], ids[0]], "{name}");
    assert_eq!(store.count(&checkout).expect("counted").snapshots, 2, "{name}");
}

/// What is done to an index leaves every answer as it was, and the next daemon has it whole again.
fn survives(name: &str, harm: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let ids = three(path);
    harm(&file(path));
    let check = |store: &Store| {
        assert_eq!(listed(store), [ids[2], ids[1], ids[0]], "{name}");
        expect_two(store, ids, name);
    };
    check(&Store::read(path, Limits::default()));
    let store = open(path);
    assert_eq!(rows(path).expect("whole again"), 3, "{name}");
    check(&store);
    put(&store, &[0]);
    assert_eq!(rows(path).expect("whole"), 4, "{name}");
    let hidden: Vec<_> = names(path).into_iter().filter(|name| name.contains("index")).collect();
    assert_eq!(hidden, [index::FILE], "{name}");
}

fn sql(path: &Path, sql: &str) {
    Connection::open(path).expect("opens").execute_batch(sql).expect("runs");
}

#[test]
fn lost() {
    survives("removed", |path| fs::remove_file(path).expect("removed"));
    survives("empty", |path| fs::write(path, "").expect("written"));
    survives("no database", |path| fs::write(path, "x".repeat(9000)).expect("written"));
    survives("cut", |path| File::options().write(true).open(path).expect("opens").set_len(5000).expect("cut"));
}

#[test]
fn changed() {
    survives("rows that lie", |path| sql(path, "UPDATE snapshots SET target = 'checkout'"));
    survives("a row that lies about its size", |path| sql(path, "UPDATE snapshots SET bytes = 5"));
    survives("rows that are missing", |path| sql(path, "DELETE FROM snapshots WHERE target = 'search'"));
    survives("rows of snapshots that are gone", |path| {
        sql(path, "UPDATE snapshots SET id = '01HF7YBW5R0000000000000007' WHERE target = 'search'");
    });
    survives("no table", |path| sql(path, "DROP TABLE snapshots"));
    survives("another table", |path| sql(path, "DROP TABLE snapshots; CREATE TABLE snapshots (id)"));
    survives("another program's", |path| sql(path, "PRAGMA application_id = 5"));
}

#[test]
fn of_another_version() {
    survives("the future", |path| sql(path, "PRAGMA user_version = 99; ALTER TABLE snapshots ADD COLUMN x TEXT"));
    survives("the past", |path| sql(path, "PRAGMA user_version = 0"));
}

#[test]
fn every_flipped_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let ids = three(path);
    let whole = fs::read(file(path)).expect("read");
    let read = Store::read(path, Limits::default());
    let used = (0..whole.len()).filter(|&at| whole[at] != 0);
    for at in used {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(file(path), flipped).expect("written");
        expect_two(&read, ids, &format!("byte {at}"));
    }
}

#[test]
fn a_crash_in_the_middle_of_a_change() {
    survives("a hot journal", |path| {
        let other = path.with_file_name("copy");
        let journal = |path: &Path| {
            path.with_file_name(format!("{}-journal", path.file_name().expect("a name").to_string_lossy()))
        };
        fs::copy(path, &other).expect("copied");
        let connection = Connection::open(&other).expect("opens");
        // Too little memory for the change, so that half of it is in the file before it is committed.
        connection.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN").expect("begins");
        for n in 0..2000 {
            let row = format!("INSERT INTO snapshots VALUES ('01HF7YBW5R000000000000{n:04}', 'checkout', 'hot', 1, 1)");
            connection.execute(&row, []).expect("inserted");
        }
        assert!(journal(&other).exists(), "the change is under way");
        fs::copy(&other, path).expect("copied");
        fs::copy(journal(&other), journal(path)).expect("copied");
        drop(connection);
        fs::remove_file(other).expect("removed");
        let error = rows(path.parent().expect("a folder")).expect_err("a reader cannot undo it");
        assert!(format!("{error:#}").contains("readonly"), "{error:#}");
    });
    survives("an index that was being built", |path| {
        fs::copy(path, path.with_file_name(".index.sqlite.new")).expect("copied");
        fs::write(path.with_file_name(".index.sqlite.new-journal"), "half").expect("written");
        fs::remove_file(path).expect("removed");
    });
    survives("a journal without its index", |path| {
        fs::remove_file(path).expect("removed");
        fs::write(path.with_file_name("index.sqlite-journal"), "left").expect("written");
    });
}

#[test]
fn a_reader_that_does_not_let_go_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    put(&store, &[3]);
    let reader = Connection::open(file(folder.path())).expect("opens");
    reader.execute_batch("BEGIN; SELECT count(*) FROM snapshots").expect("holds it");
    let begun = std::time::Instant::now();
    let ids = put(&store, &[2, 1]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(listed(&store)[..2], [ids[1], ids[0]]);
    store.maintain();
    assert_eq!(rows(folder.path()).expect("a new one"), 3);
}

#[test]
fn one_that_cannot_be_told_is_told_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let first = put(&store, &[3])[0];
    *locked(&store.fault) = Some(Fault { step: Step::Index, error: io::ErrorKind::StorageFull });
    let second = put(&store, &[2])[0];
    *locked(&store.fault) = None;
    assert_eq!(rows(folder.path()).expect("old"), 1);
    assert_eq!(listed(&Store::read(folder.path(), Limits::default())), [second, first]);
    store.maintain();
    assert_eq!(rows(folder.path()).expect("new"), 2);
    fs::remove_file(file(folder.path())).expect("removed under the daemon");
    put(&store, &[1]);
    store.maintain();
    assert_eq!(rows(folder.path()).expect("made again"), 3);
}
