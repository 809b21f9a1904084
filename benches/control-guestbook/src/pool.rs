//! Connections to SQLite in a pool of r2d2, with its defaults, and made and checked as r2d2_sqlite does.

use r2d2::ManageConnection;
use rusqlite::Connection;

use crate::{Failed, create};

/// The pool.
pub type Pool = r2d2::Pool<Manager>;

/// Makes a pool of connections to the database of this path, and its table.
pub fn pool(path: String) -> Result<Pool, Failed> {
    create(&Connection::open(&path)?)?;
    Ok(Pool::new(Manager { path })?)
}

/// Opens connections.
pub struct Manager {
    path: String,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> rusqlite::Result<Connection> {
        Connection::open(&self.path)
    }

    fn is_valid(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        connection.execute_batch("")
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}
