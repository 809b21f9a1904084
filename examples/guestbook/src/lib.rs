//! A guest book in SQLite: `POST` a name and a text to leave an entry, `GET` the newest ones.
//!
//! Each Context holds a connection: opened by Start, closed by Stop. Contexts of one effe and of others share the
//! file, whose path is the parameter `path`.

mod book;
mod entry;
mod page;

use effe_abi::{
    Error, Lambda, Options, Params, Request, Response, Result, StartError, Started, cookie::Cookie, export,
};
use serde::Deserialize;

use crate::{book::Book, entry::Entry};

/// How many entries a page shows, unless fewer are asked for.
const NEWEST: u32 = 50;
/// The cookie that keeps a guest's name for the next entry.
const GUEST: &str = "guest";

/// `?newest=10`.
#[derive(Deserialize)]
struct Wanted {
    newest: Option<u32>,
}

struct Guestbook {
    book: Book,
}

impl Lambda for Guestbook {
    /// Run waits: for the disk and for other writers.
    const OPTIONS: Options = Options::new().waits();

    fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Guestbook { book: Book::open(params.required("path")?)? })
    }

    fn run(guestbook: Started<Self>, request: &Request, response: &mut Response) -> Result {
        // The log has the reason why Start failed. The client gets 503 here; `guestbook?` would give it 500.
        let Ok(Guestbook { book }) = guestbook else {
            response.status(503).header("retry-after", "5").text("the book is closed; try again later\n");
            return Ok(());
        };
        match request.method() {
            "GET" | "HEAD" => show(book, request, response),
            "POST" => add(book, request, response),
            _ => {
                response.status(405).header("allow", "GET, HEAD, POST").text("GET or POST\n");
                Ok(())
            }
        }
    }

    fn stop(self) -> Result {
        self.book.close()
    }
}

export!(Guestbook);

fn show(book: &Book, request: &Request, response: &mut Response) -> Result {
    let Wanted { newest } = match request.query() {
        Ok(wanted) => wanted,
        Err(err) => return refuse(response, &err),
    };
    let entries = book.newest(newest.unwrap_or(NEWEST).min(NEWEST))?;
    response.header("vary", "accept").header("cache-control", "no-store");
    if wants_html(request) {
        response.header("content-security-policy", "default-src 'none'; form-action 'self'");
        response.html(page::html(&entries, request.cookie(GUEST).unwrap_or("")));
    } else {
        response.json(&entries)?;
    }
    Ok(())
}

fn add(book: &Book, request: &Request, response: &mut Response) -> Result {
    let entry = match Entry::read(request) {
        Ok(entry) => entry,
        Err(err) => return refuse(response, &err),
    };
    let kept = book.add(&entry)?;
    // The cookie keeps only names of ASCII letters and digits, because others would have to be encoded.
    if kept.name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        response.set_cookie(Cookie::build((GUEST, &*kept.name)).path("/").http_only(true));
    }
    if wants_html(request) {
        // A browser is redirected to the page, so that a reload doesn't send the entry twice. Two slashes in front
        // would name another host.
        response.redirect(&format!("{}/{}", request.base(), request.path().trim_start_matches('/')));
    } else {
        response.status(201).json(&kept)?;
    }
    Ok(())
}

/// The reason goes to the client, but not the place in the source.
fn refuse(response: &mut Response, err: &Error) -> Result {
    response.status(400).text(format!("{}\n", err.source()));
    Ok(())
}

/// Whether the client is a browser: browsers name `text/html` in Accept, programs seldom do.
fn wants_html(request: &Request) -> bool {
    request.header("accept").is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests;
