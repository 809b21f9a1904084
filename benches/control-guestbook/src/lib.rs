//! What both controls share: the work of the example `guestbook`, but for what a swap needs and for pages of HTML.

mod pool;

use std::env;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

pub use crate::pool::{Pool, pool};

/// How many entries are told at most.
const NEWEST: u32 = 50;
const LONGEST_NAME: usize = 80;
const LONGEST_TEXT: usize = 2000;

/// Why there is no answer.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// `?newest=10`.
#[derive(Deserialize)]
pub struct Wanted {
    newest: Option<u32>,
}

/// An entry as the guest sends it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Draft {
    name: String,
    text: String,
}

/// An entry with its number and its time.
#[derive(Serialize)]
pub struct Kept {
    id: i64,
    at: String,
    name: String,
    text: String,
}

/// The table, as the example makes it.
pub fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS entries (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
             name TEXT NOT NULL,
             text TEXT NOT NULL
         ) STRICT",
    )
}

/// The newest entries, the newest first. It waits for a connection, and for the disk.
pub fn newest(pool: &Pool, wanted: &Wanted) -> Result<Vec<Kept>, Failed> {
    let connection = pool.get()?;
    let sql = "SELECT id, at, name, text FROM entries ORDER BY id DESC LIMIT ?1";
    let mut select = connection.prepare_cached(sql)?;
    let entries = select.query_map([wanted.newest.unwrap_or(NEWEST).min(NEWEST)], kept)?;
    Ok(entries.collect::<Result<_, _>>()?)
}

/// Adds an entry at the end. It waits for a connection, for other writers, and for the disk.
pub fn add(pool: &Pool, draft: &Draft) -> Result<Kept, Failed> {
    let connection = pool.get()?;
    let sql = "INSERT INTO entries (name, text) VALUES (?1, ?2) RETURNING id, at, name, text";
    let mut insert = connection.prepare_cached(sql)?;
    Ok(insert.query_row(params![draft.name, draft.text], kept)?)
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept { id: row.get(0)?, at: row.get(1)?, name: row.get(2)?, text: row.get(3)? })
}

impl Draft {
    /// Without blanks around, if it is neither empty nor too long.
    pub fn checked(&self) -> Result<Draft, String> {
        Ok(Draft {
            name: within("name", &self.name, LONGEST_NAME)?,
            text: within("text", &self.text, LONGEST_TEXT)?,
        })
    }
}

fn within(field: &str, value: &str, longest: usize) -> Result<String, String> {
    let value = value.trim();
    match value.chars().count() {
        0 => Err(format!("the {field} is missing\n")),
        length if length > longest => {
            Err(format!("the {field} has {length} characters; {longest} is the most\n"))
        }
        _ => Ok(value.to_owned()),
    }
}

impl Kept {
    /// The cookie that keeps a guest's name, if it needs no encoding.
    pub fn cookie(&self) -> Option<String> {
        let is_plain = self.name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_plain.then(|| format!("guest={}; HttpOnly; Path=/", self.name))
    }
}

/// The database's path and the port, from the arguments.
pub fn arguments() -> (String, u16) {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    (path, arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0))
}
