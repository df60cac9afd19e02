//! The index: an SQLite table with a row for each snapshot, so that looking for those of a target need not read all
//! sidecars. It can be lost at any time: a row says nothing but what is in a folder whose content never changes, rows of
//! folders that are gone are passed over, and a folder without a row is looked into. Each row has a checksum, because
//! SQLite has none.
//!
//! With a rollback journal, readers need only read access, and no file that the writer could leave behind makes them read
//! something half-done: where they see such a journal they do without the index. It is not synchronised to the disk; what
//! a power cut makes of it is noticed when it is opened, and it is built anew.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags, params};
use ulid::Ulid;

use super::access::Access;
use crate::snapshot::Sidecar;

/// Its file.
pub(super) const FILE: &str = "index.sqlite";
/// SQLite's journal of it.
const JOURNAL: &str = "index.sqlite-journal";
/// And where it is built anew.
const NEW: &str = ".index.sqlite.new";
const NEW_JOURNAL: &str = ".index.sqlite.new-journal";

/// `prob`, which marks the file as ours.
const APPLICATION: i32 = 0x7072_6f62;
/// The version of the table. One of another version is built anew, whichever is later.
pub(super) const VERSION: i32 = 1;

const TABLE: &str = "CREATE TABLE snapshots (id TEXT PRIMARY KEY NOT NULL, target TEXT NOT NULL, rule TEXT NOT NULL, \
                     bytes INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID, STRICT";

/// How long one waits for the other. Whoever holds the index for longer has to be done without.
const WRITER_PATIENCE: Duration = Duration::from_millis(500);
const READER_PATIENCE: Duration = Duration::from_millis(200);

/// What is known of a snapshot without looking into its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) target: String,
    pub(super) rule: String,
    /// Of all its files.
    pub(super) bytes: u64,
}

pub(super) type Rows = HashMap<Ulid, Row>;

impl Row {
    pub(super) fn new(sidecar: &Sidecar, bytes: u64) -> Self {
        Self { target: sidecar.target.clone(), rule: sidecar.rule.clone(), bytes }
    }

    fn sum(&self, id: &str) -> u32 {
        let Self { target, rule, bytes } = self;
        let mut sum = flate2::Crc::new();
        for part in [id.as_bytes(), b"\0", target.as_bytes(), b"\0", rule.as_bytes(), b"\0", &bytes.to_le_bytes()] {
            sum.update(part);
        }
        sum.sum()
    }
}

/// The index, as the one who writes has it.
#[derive(Debug)]
pub(super) struct Index {
    connection: Connection,
}

impl Index {
    /// Opens the index of a store, if it is whole and of this version.
    pub(super) fn open(store: &Path) -> Result<(Self, Rows)> {
        let connection = Connection::open_with_flags(store.join(FILE), flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
        let index = Self::with(connection)?;
        check_version(&index.connection)?;
        let found: String = index.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        ensure!(found == "ok", "{found}");
        let rows = rows(&index.connection, None)?;
        let count: i64 = index.connection.query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0))?;
        ensure!(i64::try_from(rows.len()) == Ok(count), "{} of {count} rows are as they were written", rows.len());
        Ok((index, rows))
    }

    /// Makes the index of a store anew. Until all of it is there, the old one stays.
    pub(super) fn build(store: &Path, access: Access, rows: &Rows) -> Result<Self> {
        let new = store.join(NEW);
        for leftover in [&new, &store.join(NEW_JOURNAL)] {
            remove(leftover)?;
        }
        let made = Self::make(&new, access, rows).and_then(|()| {
            // In this order: a journal must never lie beside a file that it is not of.
            remove(&store.join(FILE))?;
            remove(&store.join(JOURNAL))?;
            Ok(fs::rename(&new, store.join(FILE))?)
        });
        if let Err(error) = made {
            let _ = fs::remove_file(new);
            let _ = fs::remove_file(store.join(NEW_JOURNAL));
            return Err(error);
        }
        Self::with(Connection::open_with_flags(store.join(FILE), flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?)
    }

    fn make(path: &Path, access: Access, rows: &Rows) -> Result<()> {
        // SQLite gives its journals the access of the file.
        access.make_file(path)?;
        let connection = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
        let mut index = Self::with(connection)?;
        index.connection.pragma_update(None, "application_id", APPLICATION)?;
        index.connection.pragma_update(None, "user_version", VERSION)?;
        index.connection.execute(TABLE, [])?;
        let rows: Vec<(Ulid, &Row)> = rows.iter().map(|(id, row)| (*id, row)).collect();
        index.insert(&rows)?;
        index.connection.close().map_err(|(_, error)| error.into())
    }

    fn with(connection: Connection) -> Result<Self> {
        connection.busy_timeout(WRITER_PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "DELETE")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        Ok(Self { connection })
    }

    pub(super) fn insert(&mut self, rows: &[(Ulid, &Row)]) -> Result<()> {
        let transaction = self.connection.transaction()?;
        let insert = "INSERT OR REPLACE INTO snapshots (id, target, rule, bytes, sum) VALUES (?, ?, ?, ?, ?)";
        let mut insert = transaction.prepare(insert)?;
        for &(id, row) in rows {
            let (id, bytes) = (id.to_string(), i64::try_from(row.bytes)?);
            insert.execute(params![id, row.target, row.rule, bytes, row.sum(&id)])?;
        }
        drop(insert);
        Ok(transaction.commit()?)
    }

    pub(super) fn remove(&mut self, ids: &[Ulid]) -> Result<()> {
        let transaction = self.connection.transaction()?;
        for id in ids {
            transaction.execute("DELETE FROM snapshots WHERE id = ?", [id.to_string()])?;
        }
        Ok(transaction.commit()?)
    }

    pub(super) fn rows(&self) -> Result<Rows> {
        rows(&self.connection, None)
    }
}

/// Reads the rows of these ids, from the first to the last. The index need be neither there nor whole.
pub(super) fn read(store: &Path, range: (Ulid, Ulid)) -> Result<Rows> {
    let connection = Connection::open_with_flags(store.join(FILE), flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
    connection.busy_timeout(READER_PATIENCE)?;
    check_version(&connection)?;
    rows(&connection, Some(range))
}

fn flags(access: OpenFlags) -> OpenFlags {
    // A lock of SQLite's own is not needed: whoever has a connection has it alone.
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW
}

fn check_version(connection: &Connection) -> Result<()> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    ensure!(number("application_id")? == APPLICATION, "it is another program's");
    let version = number("user_version")?;
    ensure!(version == VERSION, "it is of version {version}, not {VERSION}");
    Ok(())
}

/// Those rows that are as they were written.
fn rows(connection: &Connection, range: Option<(Ulid, Ulid)>) -> Result<Rows> {
    let (first, last) = range.unwrap_or((Ulid::nil(), Ulid::from(u128::MAX)));
    let mut select =
        connection.prepare("SELECT id, target, rule, bytes, sum FROM snapshots WHERE id BETWEEN ? AND ?")?;
    let mut found = select.query([first.to_string(), last.to_string()])?;
    let mut rows = Rows::new();
    while let Some(row) = found.next()? {
        let (Ok(id), Ok(target), Ok(rule)) = (row.get::<_, String>(0), row.get(1), row.get(2)) else { continue };
        let (Ok(bytes), Ok(sum)) = (row.get::<_, i64>(3), row.get::<_, i64>(4)) else { continue };
        let row = Row { target, rule, bytes: u64::try_from(bytes).unwrap_or_default() };
        if let Ok(ulid) = Ulid::from_string(&id)
            && i64::from(row.sum(&id)) == sum
        {
            rows.insert(ulid, row);
        }
    }
    Ok(rows)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
