//! Queries and forms, read into types of the author's.
//!
//! `serde_html_form` reads them. This file owns the errors: one line each, which names the field and can be shown to
//! the client.

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    request::Request,
};

/// The content type of a form that a browser sends.
#[cfg(feature = "form")]
const FORM: &str = "application/x-www-form-urlencoded";
/// Number of characters that an error's line may have, since the client may have written most of it.
const MAX_LINE_LEN: usize = 200;

impl Request {
    /// The query, read into a type of the author's. A key that comes several times is read as a list. No query is the
    /// same as an empty one: it fits a type whose fields are all `Option`s, lists or have defaults. Needs the feature
    /// `query`.
    ///
    /// ```
    /// use effe_abi::{Request, Response, Result};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Search<'a> {
    ///     q: &'a str,
    ///     page: Option<u32>,
    ///     #[serde(default)]
    ///     tag: Vec<String>,
    /// }
    ///
    /// fn search(request: &Request, response: &mut Response) -> Result {
    ///     let Search { q, page, tag } = match request.query() {
    ///         Ok(search) => search,
    ///         Err(err) => {
    ///             response.status(400).text(format!("{}\n", err.source())); // the query: page: invalid digit …
    ///             return Ok(());
    ///         }
    ///     };
    ///     response.text(format!("page {} of {q} {tag:?}\n", page.unwrap_or(1)));
    ///     Ok(())
    /// }
    /// # use effe_abi::{Lambda, Params, StartError, Started, export, testing::Effe};
    /// # struct Searcher;
    /// # impl Lambda for Searcher {
    /// #     fn start(_: Params) -> Result<Self, StartError<Self>> { Ok(Searcher) }
    /// #     fn run(searcher: Started<Self>, request: &Request, response: &mut Response) -> Result {
    /// #         searcher?;
    /// #         search(request, response)
    /// #     }
    /// # }
    /// # export!(Searcher);
    /// # fn main() {
    /// # let effe = Effe::of(&LAMBDA);
    /// # assert_eq!(effe.get("/?q=effe&tag=a&tag=b").text(), "page 1 of effe [\"a\", \"b\"]\n");
    /// # let bad = effe.get("/?q=effe&page=two");
    /// # assert_eq!(bad.text(), "the query: page: invalid digit found in string\n");
    /// # }
    /// ```
    ///
    /// # Errors
    /// It doesn't fit the type. The error's [`source`](Error::source) is one line that names the field and can be shown
    /// to the client.
    #[track_caller]
    pub fn query<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        match parse("the query", self.query_string().unwrap_or("").as_bytes()) {
            Ok(value) => Ok(value),
            Err(line) => Err(Error::new(line)),
        }
    }

    /// The whole body, read into a type of the author's, if it is a form of the type that browsers send by default
    /// (`application/x-www-form-urlencoded`). Fields are read as [`query`](Request::query) reads them. Needs the
    /// feature
    /// `form`.
    ///
    /// ```
    /// use effe_abi::{Request, Response, Result};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Entry {
    ///     name: String,
    ///     text: String,
    /// }
    ///
    /// fn sign(request: &Request, response: &mut Response) -> Result {
    ///     let Entry { name, text } = request.form()?;
    ///     response.status(201).text(format!("{name}: {text}"));
    ///     Ok(())
    /// }
    /// # use effe_abi::{Lambda, Params, StartError, Started, export, testing::{Call, Effe}};
    /// # struct Book;
    /// # impl Lambda for Book {
    /// #     fn start(_: Params) -> Result<Self, StartError<Self>> { Ok(Book) }
    /// #     fn run(book: Started<Self>, request: &Request, response: &mut Response) -> Result {
    /// #         book?;
    /// #         sign(request, response)
    /// #     }
    /// # }
    /// # export!(Book);
    /// # fn main() {
    /// # let call = Call::post("/").header("content-type", "application/x-www-form-urlencoded");
    /// # assert_eq!(Effe::of(&LAMBDA).call(call.body("name=Ada&text=%C3%A0+bient%C3%B4t")).text(), "Ada: à bientôt");
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`bytes`](Request::bytes); or the content type is another one, or the body doesn't fit the type: then the
    /// error's [`source`](Error::source) is one line that can be shown to the client.
    #[cfg(feature = "form")]
    #[track_caller]
    pub fn form<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        let sent = self.header("content-type").unwrap_or("");
        let (media_type, _) = sent.split_once(';').unwrap_or((sent, ""));
        if !media_type.trim().eq_ignore_ascii_case(FORM) {
            return Err(Error::new(match media_type.trim() {
                "" => format!("the form has no content type; send {FORM}"),
                other => one_line(format_args!("the form is {other}; send {FORM}")),
            }));
        }
        match parse("the form", self.bytes()?) {
            Ok(value) => Ok(value),
            Err(line) => Err(Error::new(line)),
        }
    }
}

/// Reads pairs of keys and values. The error is one line that says why they don't fit.
fn parse<'a, T: Deserialize<'a>>(what: &str, pairs: &'a [u8]) -> Result<T, String> {
    serde_path_to_error::deserialize(serde_html_form::Deserializer::from_bytes(pairs))
        .map_err(|err| one_line(format_args!("{what}: {err}")))
}

/// The text as one line of bounded length, with control characters escaped: it may quote what the client sent.
fn one_line(text: std::fmt::Arguments<'_>) -> String {
    let text = text.to_string();
    let (mut line, mut n_left) = (String::new(), MAX_LINE_LEN);
    for char in text.chars() {
        let escape = char.is_control().then(|| char.escape_default());
        let Some(left) = n_left.checked_sub(escape.as_ref().map_or(1, ExactSizeIterator::len)) else {
            line.push('…');
            break;
        };
        n_left = left;
        match escape {
            Some(escape) => line.extend(escape),
            None => line.push(char),
        }
    }
    line
}
