//! The request as an author sees it: its head, facts about it, and its body as bytes, text, JSON or a reader.
//!
//! Everything is fetched from the loader when it is asked for (`calls.rs`). A body to be awaited is left to `body.rs`;
//! forms, queries and cookies have files of their own.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

#[cfg(feature = "async")]
use crate::body::source::Source;
use crate::{
    calls::{ExchangeRef, TrailersHostRef},
    chunk::Chunk,
    error::{Error, Result, failure},
    raw::{self, attribute, status},
    report,
};

/// Number of headers that are fetched at a time.
pub(crate) const PAGE: usize = 16;
/// The error of a second reader of a stream.
pub(crate) const TAKEN: &str = "the body is being read by another reader";

/// One HTTP request. It is lent to Run: it can't be kept, nor sent to a thread that outlives the call.
///
/// Header values, the body and the peer are fetched from the loader when they are asked for, and cost nothing
/// otherwise.
pub struct Request {
    /// 'static stands for "as long as this request lives": see `new`.
    exchange: ExchangeRef<'static>,
    /// Whether a reader has taken the stream that follows the beginning of the body.
    reading: AtomicBool,
    /// The whole body of a request that came as a stream, once `bytes` was called.
    whole: OnceLock<std::result::Result<Vec<u8>, (io::ErrorKind, String)>>,
    #[cfg(feature = "async")]
    source: Source,
}

impl Request {
    /// # Safety
    /// The caller drops the request before the exchange ends, and until then gives away no more than references to it.
    #[expect(unsafe_code, reason = "its duty is the caller's")]
    pub(crate) unsafe fn new(exchange: ExchangeRef<'static>) -> Request {
        Request {
            exchange,
            reading: AtomicBool::new(false),
            whole: OnceLock::new(),
            #[cfg(feature = "async")]
            source: Source::default(),
        }
    }

    /// The request of an async run.
    ///
    /// # Safety
    /// As [`new`](Request::new).
    #[cfg(feature = "async")]
    #[expect(unsafe_code, reason = "its duty is the caller's")]
    pub(crate) unsafe fn awaited(exchange: ExchangeRef<'static>, source: Source) -> Request {
        Request { exchange, reading: AtomicBool::new(false), whole: OnceLock::new(), source }
    }

    #[cfg(feature = "async")]
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    #[cfg(feature = "async")]
    pub(crate) fn exchange(&self) -> ExchangeRef<'static> {
        self.exchange
    }

    /// The exchange, for no longer than the request lives.
    #[cfg(feature = "aws")]
    pub(crate) fn lent_exchange(&self) -> ExchangeRef<'_> {
        self.exchange
    }

    /// Takes the stream that follows the beginning of the body. False: somebody has taken it already.
    pub(crate) fn take_stream(&self) -> bool {
        !self.reading.swap(true, Ordering::Relaxed)
    }

    /// Whether the stream may only be awaited, and not be read by a call that waits.
    fn is_awaited(&self) -> bool {
        #[cfg(feature = "async")]
        return self.source.awaited;
        #[cfg(not(feature = "async"))]
        false
    }

    /// The method as it came: `GET`, `POST`, …
    pub fn method(&self) -> &str {
        self.exchange.method()
    }

    /// The path as it came, with its escapes: `/caf%C3%A9`.
    pub fn path(&self) -> &str {
        let target = self.target();
        target.get(..self.exchange.path_len()).unwrap_or(target)
    }

    /// What follows the `?` after the path, as it came. `None` if there is no `?`.
    pub fn query_string(&self) -> Option<&str> {
        self.target().get(self.exchange.path_len()..)?.strip_prefix('?')
    }

    /// Path and query as they came.
    pub fn target(&self) -> &str {
        self.exchange.target()
    }

    /// The version of HTTP: 10, 11, 20 or 30, for 1.0, 1.1, 2 and 3.
    pub fn version(&self) -> u32 {
        self.exchange.version()
    }

    /// The first value of a header; `None` also if it isn't UTF-8. Case doesn't matter in the name.
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header_bytes(name)?).ok()
    }

    /// The first value of a header, as the bytes that came.
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        self.exchange.header(name, 0)
    }

    /// All values of a header, in the order they came in.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        (0..).map_while(move |nth| self.exchange.header(name, nth))
    }

    /// All headers: names in lower case, values as the bytes that came.
    pub fn headers(&self) -> Headers<'_> {
        let mut page = [raw::Header::EMPTY; PAGE];
        let total = self.exchange.headers(0, &mut page);
        Headers { exchange: self.exchange, page, at: 0, fetched: total.min(PAGE), total }
    }

    /// The trailers that came behind the body: names in lower case, values as the bytes that came. There are none
    /// before the body was read to its end, and none if the loader is older than this. Fields that can't be trailers
    /// (RFC 9110, section 6.5.1) are left out.
    pub fn trailers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let host = report::current().and_then(TrailersHostRef::find);
        let trailers = host.map_or_else(Vec::new, |host| host.request(self.exchange));
        trailers.into_iter().map(|trailer| (trailer.name.as_str(), trailer.value.as_slice()))
    }

    /// The id of this request, for logs: the client's `X-Request-Id`, or one that the loader made.
    pub fn id(&self) -> &str {
        self.exchange.attribute(attribute::REQUEST_ID).unwrap_or("")
    }

    /// `https` if the connection to the loader is encrypted (TLS), else `http`.
    ///
    /// It says nothing of how a client reached a proxy in front of the loader. A proxy tells that in a header, such as
    /// `X-Forwarded-Proto`; believe it only if every request comes through that proxy.
    pub fn scheme(&self) -> &str {
        self.exchange.attribute(attribute::SCHEME).unwrap_or("http")
    }

    /// The host the client asked for, from `:authority` or `Host`.
    pub fn authority(&self) -> Option<&str> {
        self.exchange.attribute(attribute::AUTHORITY)
    }

    /// The path at which clients find this lambda, if a router in front has removed it from the request: `/notes`, or
    /// nothing. A redirect or a link to a page of the lambda's own begins with it:
    ///
    /// ```
    /// # fn list(request: &effe_abi::Request, response: &mut effe_abi::Response) {
    /// response.redirect(&format!("{}/list", request.base()));
    /// # }
    /// ```
    ///
    /// It comes from `X-Forwarded-Prefix`, which the routers that `effe-tool route` configures set or remove. Behind
    /// another router, or without one, a client may say anything in that header that is a path of this host.
    pub fn base(&self) -> &str {
        let base = self.header("x-forwarded-prefix").unwrap_or("").trim_end_matches('/');
        // A path that begins with `//` would be another host, and characters that a path can't have end it.
        let is_path = base.starts_with('/')
            && !base.starts_with("//")
            && base.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._~-%!$&'()*+;=:@".contains(&byte));
        if is_path { base } else { "" }
    }

    /// The address of the other end of the connection. Behind a proxy, that is the proxy. `None` over a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.exchange.attribute(attribute::PEER)?.parse().ok()
    }

    /// When the time for this run is over and the client gets an error instead of an answer; once the answer was ended
    /// early, when the time for the rest of the run is over. `None`: there is no limit.
    pub fn deadline(&self) -> Option<Instant> {
        match self.exchange.state() {
            (_, u64::MAX) => None,
            (_, remaining) => Instant::now().checked_add(Duration::from_nanos(remaining)),
        }
    }

    /// Whether nobody waits for the answer any more, because the client has gone or the deadline has passed. After an
    /// answer that was ended early only the deadline counts, and that the effe stops.
    pub fn cancelled(&self) -> bool {
        self.exchange.state().0 != status::OK
    }

    /// The whole body. If the lambda reads bodies as streams, this waits until all of it has come; an async lambda
    /// calls `body` instead.
    ///
    /// # Errors
    /// The client left before the end, the body is too large, or a [`reader`](Request::reader) has taken it.
    #[track_caller]
    pub fn bytes(&self) -> Result<&[u8]> {
        if !self.exchange.more_body() {
            return Ok(self.exchange.body());
        }
        let whole = self.whole.get_or_init(|| {
            let mut bytes = Vec::new();
            match io::Read::read_to_end(&mut self.reader(), &mut bytes) {
                Ok(_) => Ok(bytes),
                Err(err) => Err((err.kind(), err.to_string())),
            }
        });
        match whole {
            Ok(bytes) => Ok(bytes),
            Err((kind, text)) => Err(Error::new(io::Error::new(*kind, text.as_str()))),
        }
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// As [`bytes`](Request::bytes), or it isn't UTF-8.
    #[track_caller]
    pub fn text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(self.bytes()?)?)
    }

    /// The whole body, read as JSON into a type of the author's, which may borrow from it. Needs the feature `json`,
    /// which is on by default.
    ///
    /// # Errors
    /// As [`bytes`](Request::bytes), or the body doesn't fit the type; the error says where.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T> {
        let bytes = self.bytes()?;
        // To check the whole body once takes a fraction of what it takes to check each text in it.
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(serde_json::from_str(text)?),
            // What is wrong may be in a member that is not wanted; if not, the error says where it is.
            Err(_) => Ok(serde_json::from_slice(bytes)?),
        }
    }

    /// A reader of the body. If the lambda declares [`Options::stream_request`](crate::Options::stream_request), it
    /// reads what has arrived and waits for more; without, all of the body is here already. Only one reader can read
    /// the stream: every read of a second one fails.
    pub fn reader(&self) -> Reader<'_> {
        let stream = if !self.exchange.more_body() {
            Stream::Ended
        } else if self.is_awaited() {
            Stream::Refused("this lambda is async and reads streams: await the pieces of `body`")
        } else if self.take_stream() {
            Stream::Open
        } else {
            Stream::Refused(TAKEN)
        };
        let begin = if matches!(stream, Stream::Refused(_)) { &[] } else { self.exchange.body() };
        Reader { exchange: self.exchange, begin, piece: Chunk::from_static(b""), at: 0, stream }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.target())
    }
}

/// All headers of a request: `(name, value)`, names in lower case.
pub struct Headers<'a> {
    exchange: ExchangeRef<'a>,
    page: [raw::Header<'a>; PAGE],
    /// The number of the next header to return.
    at: usize,
    /// How many have been fetched.
    fetched: usize,
    total: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.fetched {
            if self.at == self.total {
                return None;
            }
            self.exchange.headers(self.fetched, &mut self.page);
            self.fetched = self.total.min(self.fetched + PAGE);
        }
        // Pages begin at multiples of their size.
        let header = self.page[self.at % PAGE];
        self.at += 1;
        Some((header.name.as_str(), header.value.as_slice()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.total - self.at;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Reads the body of a request as it arrives; made by [`Request::reader`].
pub struct Reader<'a> {
    exchange: ExchangeRef<'a>,
    /// What is left of the part that was here before the stream began.
    begin: &'a [u8],
    /// The piece of the stream that is being read; `at` is where its unread part begins.
    piece: Chunk,
    at: usize,
    stream: Stream,
}

enum Stream {
    Open,
    Ended,
    /// Every read fails, with this text.
    Refused(&'static str),
}

impl Reader<'_> {
    /// The next piece, with its owner, so that it can be passed on without a copy. `None` at the end.
    ///
    /// # Errors
    /// As any read: the client left before the end, or the body is larger than the operator's limit.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        if io::BufRead::fill_buf(self)?.is_empty() {
            return Ok(None);
        }
        if self.begin.is_empty() && self.at == 0 {
            return Ok(Some(std::mem::replace(&mut self.piece, Chunk::from_static(b""))));
        }
        let rest = io::BufRead::fill_buf(self)?.to_vec();
        io::BufRead::consume(self, rest.len());
        Ok(Some(rest.into()))
    }
}

impl io::BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.begin.is_empty() && self.at == self.piece.len() {
            match self.stream {
                Stream::Ended => return Ok(&[]),
                Stream::Refused(why) => return Err(io::Error::other(why)),
                Stream::Open => {}
            }
            match self.exchange.read() {
                Ok(piece) => (self.piece, self.at) = (piece, 0),
                Err(status::END) => self.stream = Stream::Ended,
                Err(status) => return Err(failure(status)),
            }
        }
        Ok(if self.begin.is_empty() { &self.piece[self.at..] } else { self.begin })
    }

    fn consume(&mut self, n: usize) {
        if self.begin.is_empty() {
            self.at = self.piece.len().min(self.at + n);
        } else {
            self.begin = &self.begin[n.min(self.begin.len())..];
        }
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = io::BufRead::fill_buf(self)?;
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        io::BufRead::consume(self, n);
        Ok(n)
    }
}
