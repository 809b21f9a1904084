//! Makes long addresses short: `POST` a form with `url=https://…`, and the answer names a path that leads there.
//!
//! The addresses are in SQLite, in the file that the parameter `path` names. Each Context has a connection of its own.
//!
//! A lock file stands before SQLite's own locks, which don't keep two generations apart: docs/operations.md says why.

use std::fs::File;

use effe_abi::{Error, Lambda, Options, Params, Request, Response, Result, StartError, Started, export};
use rusqlite::{Connection, OptionalExtension};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

#[derive(Deserialize)]
struct Wanted {
    url: String,
}

struct Shortener {
    links: Connection,
    lock: File,
}

impl Lambda for Shortener {
    const OPTIONS: Options = Options::new().waits();

    fn start(params: Params) -> Result<Self, StartError<Self>> {
        let path = params.required("path")?;
        let links = Connection::open(path)?;
        let lock = File::options().write(true).create(true).open(format!("{path}.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        links.execute_batch(
            "CREATE TABLE IF NOT EXISTS links (code INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE) STRICT",
        )?;
        flock(&lock, FlockOperation::Unlock)?;
        Ok(Shortener { links, lock })
    }

    fn run(shortener: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let Shortener { links, lock } = shortener?;
        let reads = request.method() != "POST";
        flock(&lock, if reads { FlockOperation::LockShared } else { FlockOperation::LockExclusive })?;
        let outcome = match request.method() {
            "GET" | "HEAD" => lead(links, request, response),
            "POST" => shorten(links, request, response),
            _ => Ok(_ = response.status(405).header("allow", "GET, HEAD, POST")),
        };
        flock(&lock, FlockOperation::Unlock)?;
        outcome
    }

    fn stop(self) -> Result {
        self.links.close().map_err(|(_, err)| Error::new(err))
    }
}

export!(Shortener);

fn lead(links: &Connection, request: &Request, response: &mut Response) -> Result {
    let mut select = links.prepare_cached("SELECT url FROM links WHERE code = ?1")?;
    let url: Option<String> = match i64::from_str_radix(&request.path()[1..], 16) {
        Ok(code) => select.query_row([code], |row| row.get(0)).optional()?,
        Err(_) => None,
    };
    match url {
        Some(url) => response.redirect(&url).status(302),
        None => response.status(404).text("no such link\n"),
    };
    Ok(())
}

fn shorten(links: &Connection, request: &Request, response: &mut Response) -> Result {
    let url = match request.form() {
        Ok(Wanted { url }) if url.starts_with("https://") && url.bytes().all(|b| b.is_ascii_graphic()) => url,
        _ => return Ok(_ = response.status(400).text("send url=https://…, in a form\n")),
    };
    // An address that is known keeps its code.
    let sql = "INSERT INTO links (url) VALUES (?1) ON CONFLICT DO UPDATE SET url = url RETURNING code";
    let code: i64 = links.prepare_cached(sql)?.query_row([url], |row| row.get(0))?;
    response.status(201).header("location", format!("/{code:x}")).text(format!("/{code:x}\n"));
    Ok(())
}

#[test]
fn a_short_address_leads_to_the_long_one_also_in_the_next_effe() {
    use effe_abi::testing::{Call, Effe};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("links.sqlite");
    let effe = || Effe::with(&LAMBDA, &[("path", path.to_str().unwrap())]);
    let form = Call::post("/").header("content-type", "application/x-www-form-urlencoded");
    let shorten = |url: &str| effe().call(form.clone().body(format!("url={url}")));
    let short = shorten("https%3A%2F%2Feffe.example%2F%3Fq%3D1").header("location").unwrap().to_owned();
    assert_eq!(shorten("https://effe.example/?q=1").text(), format!("{short}\n"), "the same address");
    assert_ne!(shorten("https://effe.example/other").header("location"), Some(short.as_str()));
    let answer = effe().get(&short);
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://effe.example/?q=1")));
    assert_eq!((effe().get("/ffff").status, effe().get("/").status), (404, 404));
    assert_eq!((shorten("ftp://a").status, shorten("https://a%0d%0ab").status), (400, 400));
}
