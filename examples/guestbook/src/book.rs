//! The book itself: one connection to its database.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use effe_abi::{Error, Result};
use rusqlite::{Connection, ErrorCode, Row, TransactionBehavior, params};
use serde::Serialize;

use crate::entry::Entry;

/// How long a writer waits for another writer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Book {
    connection: Connection,
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
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Book> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        write_ahead(&connection)?;
        connection.pragma_update(None, "synchronous", "normal")?;
        // Several effes may start at the same time: in a transaction, only one of them makes the table.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS entries (
                 id INTEGER PRIMARY KEY AUTOINCREMENT,
                 at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
                 name TEXT NOT NULL,
                 text TEXT NOT NULL
             ) STRICT",
        )?;
        transaction.commit()?;
        Ok(Book { connection })
    }

    /// Adds an entry at the end.
    pub(crate) fn add(&self, entry: &Entry) -> Result<Kept> {
        let sql = "INSERT INTO entries (name, text) VALUES (?1, ?2) RETURNING id, at, name, text";
        let mut insert = self.connection.prepare_cached(sql)?;
        Ok(insert.query_row(params![entry.name, entry.text], kept)?)
    }

    /// The newest entries, the newest first.
    pub(crate) fn newest(&self, limit: u32) -> Result<Vec<Kept>> {
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

/// With a write-ahead log, readers and the writer don't wait for each other.
///
/// The file keeps this mode, but the first connection must set it. While others open the file too, SQLite refuses that
/// at once, regardless of the busy timeout.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(err) if err.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if Instant::now() >= deadline {
                    return Err(err);
                }
                thread::sleep(Duration::from_millis(5));
            }
            switched => return switched,
        }
    }
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept { id: row.get(0)?, at: row.get(1)?, name: row.get(2)?, text: row.get(3)? })
}
