//! The book itself: one connection to its database, and the lock that a swap needs.

use std::{fs::File, io};

use effe_abi::{Error, Result};
use rusqlite::{Connection, Row, params};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::entry::Entry;

/// SQLite's own locks belong to the process, and two generations of a swap are in one, each with a SQLite of its own.
/// So a lock file stands before them. A write-ahead log is left out: the generation that closes its last connection
/// would remove the log under the other one.
pub(crate) struct Book {
    connection: Connection,
    lock: File,
}

/// An entry with its number and its time, in UTC.
#[derive(Debug, Serialize)]
pub(crate) struct Kept {
    pub(crate) id: i64,
    pub(crate) at: String,
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Book {
    /// Opens the database, or makes a new one.
    pub(crate) fn open(path: &str) -> Result<Book> {
        let connection = Connection::open(path)?;
        let lock = File::options().write(true).create(true).open(format!("{path}.lock"))?;
        let locked = Locked::to_write(&lock)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS entries (
                 id INTEGER PRIMARY KEY AUTOINCREMENT,
                 at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
                 name TEXT NOT NULL,
                 text TEXT NOT NULL
             ) STRICT",
        )?;
        drop(locked);
        Ok(Book { connection, lock })
    }

    /// Adds an entry at the end.
    pub(crate) fn add(&self, entry: &Entry) -> Result<Kept> {
        let _locked = Locked::to_write(&self.lock)?;
        let sql = "INSERT INTO entries (name, text) VALUES (?1, ?2) RETURNING id, at, name, text";
        let mut insert = self.connection.prepare_cached(sql)?;
        Ok(insert.query_row(params![entry.name, entry.text], kept)?)
    }

    /// The newest entries, the newest first.
    pub(crate) fn newest(&self, limit: u32) -> Result<Vec<Kept>> {
        let _locked = Locked::to_read(&self.lock)?;
        let sql = "SELECT id, at, name, text FROM entries ORDER BY id DESC LIMIT ?1";
        let mut select = self.connection.prepare_cached(sql)?;
        let entries = select.query_map([limit], kept)?.collect::<Result<_, _>>()?;
        Ok(entries)
    }

    /// Closes the connection, and says if that failed.
    pub(crate) fn close(self) -> Result {
        self.connection.close().map_err(|(_, err)| Error::new(err))
    }
}

/// The lock file is locked until this is dropped.
struct Locked<'a>(&'a File);

impl Locked<'_> {
    fn to_read(file: &File) -> io::Result<Locked<'_>> {
        flock(file, FlockOperation::LockShared)?;
        Ok(Locked(file))
    }

    fn to_write(file: &File) -> io::Result<Locked<'_>> {
        flock(file, FlockOperation::LockExclusive)?;
        Ok(Locked(file))
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // It can't fail for a file that is locked.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept { id: row.get(0)?, at: row.get(1)?, name: row.get(2)?, text: row.get(3)? })
}
