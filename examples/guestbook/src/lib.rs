//! A guest book in SQLite: `POST` a name and a text to leave an entry, `GET` the newest ones.
//!
//! Each Context holds a connection: opened by Start, closed by Stop. Contexts of one effe and of others share the
//! file, whose path is the parameter `path`.

mod book;
mod entry;
mod page;

use effe_abi::{Lambda, Options, Params, Request, Response, Result, StartError, Started, export};

use crate::{book::Book, entry::Entry};

/// How many entries a page shows.
const NEWEST: u32 = 50;

struct Guestbook {
    book: Book,
}

impl Lambda for Guestbook {
    /// A database waits for the disk, and for its other writers.
    const OPTIONS: Options = Options::new().waits();

    fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Guestbook { book: Book::open(params.required("path")?)? })
    }

    fn run(guestbook: Started<Self>, request: &Request, response: &mut Response) -> Result {
        // Why Start failed is in the log; what the client should hear is 503 rather than the 500 of `guestbook?`.
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
    let entries = book.newest(NEWEST)?;
    response.header("vary", "accept").header("cache-control", "no-store");
    if wants_html(request) {
        response.header("content-security-policy", "default-src 'none'; form-action 'self'");
        response.html(page::html(&entries));
    } else {
        response.json(&entries)?;
    }
    Ok(())
}

fn add(book: &Book, request: &Request, response: &mut Response) -> Result {
    let entry = match Entry::read(request.header("content-type").unwrap_or(""), request.bytes()?) {
        Ok(entry) => entry,
        Err(reason) => {
            response.status(400).text(format!("{reason}\n"));
            return Ok(());
        }
    };
    let kept = book.add(&entry)?;
    if wants_html(request) {
        // A browser gets the page again, so that reloading it does not sign the book twice.
        response.redirect(request.path());
    } else {
        response.status(201).json(&kept)?;
    }
    Ok(())
}

/// Browsers name `text/html` in Accept, programs seldom do.
fn wants_html(request: &Request) -> bool {
    request.header("accept").is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests;
