//! Queries and forms as types of the author's.

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    request::Request,
};

/// What a browser calls the body of a form.
#[cfg(feature = "form")]
const FORM: &str = "application/x-www-form-urlencoded";
/// How many characters an error's line has: the client may have written most of it.
const LONGEST: usize = 200;

impl Request {
    /// The query as a type of the author's. A key that comes several times is a list; no query is an empty one, which
    /// fits where every field is an `Option`, a list or has a default.
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
    /// It doesn't fit the type. The error's [`source`](Error::source) is one line that names the field, fit to be
    /// shown to the client.
    #[track_caller]
    pub fn query<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        match parse("the query", self.query_string().unwrap_or("").as_bytes()) {
            Ok(value) => Ok(value),
            Err(line) => Err(Error::new(line)),
        }
    }

    /// The whole body as a type of the author's, if it is a form as browsers send it unless they are told otherwise
    /// (`application/x-www-form-urlencoded`). Fields are read as [`query`](Request::query) reads them.
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
    /// As [`bytes`](Request::bytes); the content type is another one, or it doesn't fit the type: then the error's
    /// [`source`](Error::source) is one line, fit to be shown to the client.
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

/// Reads pairs of keys and values, or says in one line why they don't fit.
fn parse<'a, T: Deserialize<'a>>(what: &str, pairs: &'a [u8]) -> Result<T, String> {
    serde_path_to_error::deserialize(serde_html_form::Deserializer::from_bytes(pairs))
        .map_err(|err| one_line(format_args!("{what}: {err}")))
}

/// Keys and values of the client's may be in it: no control character is left, and not too much of them.
fn one_line(text: std::fmt::Arguments<'_>) -> String {
    let text = text.to_string();
    let (mut line, mut n_left) = (String::new(), LONGEST);
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
