//! A lambda that keeps notes in SQLite: POST adds a note, GET returns all of them, one on each line.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use effe_abi::{Error, Lambda, Options, Params, Request, Response, Result, StartError, Started, export};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};

/// The Context: a connection to the database, kept from one request to the next.
///
/// During a swap the next version of this lambda is in the same process, with a SQLite of its own, and SQLite's own
/// locks don't keep two of them apart. So this lambda locks a file of its own.
struct Notes {
    connection: Connection,
    lock: File,
}

impl Lambda for Notes {
    /// Tells the loader that Run waits: for the database.
    const OPTIONS: Options = Options::new().waits();

    /// Makes a Context. The operator names the directory of the database by `--set data=DIR`.
    fn start(params: Params) -> Result<Self, StartError<Self>> {
        let directory = Path::new(params.get("data").unwrap_or("."));
        fs::create_dir_all(directory)?;
        let connection = Connection::open(directory.join("notes.sqlite"))?;
        let lock = File::options().write(true).create(true).open(directory.join("notes.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        connection.execute_batch("CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL) STRICT")?;
        flock(&lock, FlockOperation::Unlock)?;
        Ok(Notes { connection, lock })
    }

    /// Answers a request. If it returns an error, the error goes to the operator's log and the client gets 500.
    fn run(notes: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let Notes { connection, lock } = notes?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let outcome = answer(connection, request, response);
        flock(&lock, FlockOperation::Unlock)?;
        outcome
    }

    /// Destroys a Context. It is called exactly once for each Context that Start made.
    fn stop(self) -> Result {
        self.connection.close().map_err(|(_, err)| Error::new(err))
    }
}

fn answer(connection: &Connection, request: &Request, response: &mut Response) -> Result {
    match request.method() {
        "GET" => {
            response.header("content-type", "text/plain; charset=utf-8");
            let mut select = connection.prepare_cached("SELECT text FROM notes ORDER BY rowid")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                writeln!(response, "{}", row.get_ref(0)?.as_str()?)?;
            }
        }
        "POST" => {
            let mut insert = connection.prepare_cached("INSERT INTO notes VALUES (?1)")?;
            insert.execute([request.text()?])?;
            response.status(201).text("noted\n");
        }
        _ => {
            response.status(405).header("allow", "GET, POST").text("GET the notes, or POST one\n");
        }
    }
    Ok(())
}

export!(Notes);

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use effe_abi::testing::{Call, Effe};

    use super::LAMBDA;

    #[test]
    fn all_contexts_keep_notes_in_one_database_in_their_order() {
        let directory = env::temp_dir().join(format!("notes-{}", process::id()));
        let parameters = [("data", directory.to_str().unwrap())];
        let (one, other) = (Effe::with(&LAMBDA, &parameters), Effe::with(&LAMBDA, &parameters));
        assert_eq!(one.call(Call::post("/").body("first")).status, 201);
        assert_eq!(other.call(Call::post("/").body("second")).status, 201);
        for effe in [one, other] {
            assert_eq!(effe.get("/").text(), "first\nsecond\n");
            assert!(effe.retire().is_empty(), "closing reports nothing");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
