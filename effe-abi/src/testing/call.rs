//! A request as a test writes it, and the answer as a test reads it.

use std::time::Duration;

/// A request that is to be made.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// What follows the body, piece by piece, for a lambda that reads streams.
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) trailers: Vec<(String, Vec<u8>)>,
    pub(super) deadline: Option<Duration>,
    pub(super) gone_after: Option<usize>,
    pub(super) is_https: bool,
    /// What it has come of, if it is an invocation of AWS Lambda's.
    pub(super) event: Option<String>,
}

impl Call {
    /// A request of any method; `target` is the path, with the query if there is one.
    pub fn new(method: &str, target: &str) -> Call {
        Call {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            pieces: Vec::new(),
            trailers: Vec::new(),
            deadline: None,
            gone_after: None,
            is_https: false,
            event: None,
        }
    }

    /// `GET target`.
    pub fn get(target: &str) -> Call {
        Call::new("GET", target)
    }

    /// `POST target`.
    pub fn post(target: &str) -> Call {
        Call::new("POST", target)
    }

    /// `GET target` with the handshake of a client of WebSocket's; for [`Effe::upgrade`](super::Effe::upgrade).
    pub fn websocket(target: &str) -> Call {
        let call = Call::get(target).header("connection", "upgrade").header("upgrade", "websocket");
        // The key of the example of RFC 6455, section 1.3.
        call.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Call {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// The request comes over TLS: [`Request::scheme`](crate::Request::scheme) is `https`.
    #[must_use]
    pub fn https(mut self) -> Call {
        self.is_https = true;
        self
    }

    /// The request has come of this event of AWS Lambda's, and is an invocation. The request itself isn't made of it.
    #[must_use]
    pub fn event(mut self, event: &str) -> Call {
        self.event = Some(event.to_owned());
        self
    }

    /// The body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Call {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Adds a piece of the body that arrives later, as it does for a lambda that declares `stream_request`.
    #[must_use]
    pub fn chunk(mut self, piece: impl AsRef<[u8]>) -> Call {
        self.pieces.push(piece.as_ref().to_vec());
        self
    }

    /// Adds a trailer, which the lambda sees when it has read the body.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Call {
        self.trailers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// The time until the deadline, as the lambda sees it; it has it anew once it has ended its answer early. The
    /// harness doesn't end a run that takes longer.
    #[must_use]
    pub fn deadline(mut self, after: Duration) -> Call {
        self.deadline = Some(after);
        self
    }

    /// The client leaves after this many pieces of the answer.
    #[must_use]
    pub fn gone_after(mut self, pieces: usize) -> Call {
        self.gone_after = Some(pieces);
        self
    }
}

/// An interim response, such as 103 Early Hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interim {
    /// 102 to 199.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// The answer to a call, and what else came of it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status that the client gets: 500 if the lambda answered nothing.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, in the pieces that the lambda sent: one, unless it streamed the answer.
    pub pieces: Vec<Vec<u8>>,
    /// What came behind the body: names, in lower case, and values. A loader leaves out what can't be a trailer.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// The interim responses, which went before the answer.
    pub informational: Vec<Interim>,
    /// Run's error, or where it panicked, as the operator reads it.
    pub failure: Option<String>,
    /// Whether Start or Run panicked.
    pub panicked: bool,
    /// Whether the connection broke off before the end of the answer.
    pub broken: bool,
    /// Whether the client had the whole answer while Run went on, because Run ended it by
    /// [`end`](crate::Response::end).
    pub early: bool,
    /// Whether the client left before there was an answer.
    pub(super) dropped: bool,
}

impl Answer {
    /// The whole body.
    pub fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    /// The whole body as text.
    ///
    /// # Panics
    /// It isn't UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("the body is text")
    }

    /// The body as JSON. Needs the feature `json`, which is on by default.
    ///
    /// # Panics
    /// It isn't.
    #[cfg(feature = "json")]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes()).expect("the body is JSON")
    }

    /// The first value of a header, if it is UTF-8. Case doesn't matter in the name.
    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// The first value of a trailer, if it is UTF-8. Case doesn't matter in the name.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        text(&self.trailers, name)
    }
}

fn text<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a str> {
    let (_, value) = fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok()
}

/// How a run is made.
pub(super) enum RunMode {
    /// By the entry that waits.
    Waiting,
    /// By the entry that is polled, at most so often; by the one that waits if the lambda is not async.
    Polled(usize),
    /// As `Polled`, and the host has the run spawned.
    Spawned(usize),
}
