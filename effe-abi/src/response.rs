//! The answer as an author writes it: status, headers, and a body that is held or sent piece by piece.

use std::{borrow::Cow, fmt, io, mem};

use crate::{
    calls::ExchangeRef,
    chunk::Chunk,
    error::{Error, Level, Result},
    raw::{self, status},
    request::failure,
};

/// A streamed answer goes out when this much of it is waiting.
const STREAM_BUFFER: usize = 64 * 1024;
/// A held body up to this size is copied out of the buffer, which stays; a larger one is given away with it.
const COPY_LIMIT: usize = 16 * 1024;
/// Headers of one answer that need no allocation.
const FEW_HEADERS: usize = 16;

/// The way to answer. Writes are held until Run returns, or, if the lambda declares
/// [`Options::stream_response`](crate::Options::stream_response), sent on past 64 KiB or at a flush.
///
/// Methods that set something can be chained; `std::io::Write` works on it. What can't be sent (a status of 99, a
/// line feed in a header) makes the run fail: the client gets 500, the log says why.
pub struct Response<'a> {
    exchange: ExchangeRef<'a>,
    scratch: &'a mut Scratch,
    /// The body, as long as it is this one piece.
    chunk: Option<Chunk>,
    status: Option<u16>,
    state: State,
    streams: bool,
    /// Bytes that may be held.
    limit: usize,
    /// What makes the answer unfit to be sent.
    fault: Option<Fault>,
}

/// Buffers that live with the Context, so that a request allocates nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    body: Vec<u8>,
    /// Names and values, one after the other.
    head: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy)]
struct Span {
    begin: u32,
    name_end: u32,
    end: u32,
}

#[derive(PartialEq, Eq)]
enum State {
    Unsent,
    /// The head has gone, more of the body may follow.
    Sending,
    Ended,
}

enum Fault {
    Status(u16),
    Header(String),
    HeadSent,
    TooLarge(usize),
}

impl<'a> Response<'a> {
    pub(crate) fn new(
        exchange: ExchangeRef<'a>,
        scratch: &'a mut Scratch,
        streams: bool,
        limit: usize,
    ) -> Self {
        scratch.body.clear();
        scratch.head.clear();
        scratch.spans.clear();
        let state = State::Unsent;
        Response { exchange, scratch, chunk: None, status: None, state, streams, limit, fault: None }
    }

    /// The status, 200 to 599; 200 if it is never set.
    pub fn status(&mut self, status: u16) -> &mut Self {
        match (&self.state, status) {
            (State::Unsent, 200..=599) => self.status = Some(status),
            (State::Unsent, _) => self.fail(Fault::Status(status)),
            _ => self.fail(Fault::HeadSent),
        }
        self
    }

    /// Sets a header, in place of an earlier one of that name.
    ///
    /// `Content-Length`, `Transfer-Encoding`, `Connection` and `Date` are the loader's business.
    pub fn header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let Scratch { head, spans, .. } = &mut *self.scratch;
        spans.retain(|span| !span.name(head).eq_ignore_ascii_case(name.as_bytes()));
        self.add_header(name, value)
    }

    /// Adds a header beside others of that name: `Set-Cookie`, `Link`, `Vary`.
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.push_header(name, value.as_ref());
        self
    }

    /// Text, as `text/plain; charset=utf-8` unless a content type is set.
    pub fn text<'t>(&mut self, text: impl Into<Cow<'t, str>>) -> &mut Self {
        self.content_type("text/plain; charset=utf-8").put_text(text.into())
    }

    /// HTML, as `text/html; charset=utf-8` unless a content type is set.
    pub fn html<'t>(&mut self, html: impl Into<Cow<'t, str>>) -> &mut Self {
        self.content_type("text/html; charset=utf-8").put_text(html.into())
    }

    /// A value as JSON, as `application/json` unless a content type is set.
    ///
    /// # Errors
    /// The value can't be written as JSON.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<&mut Self> {
        self.content_type("application/json");
        serde_json::to_writer(&mut *self, value)?;
        Ok(self)
    }

    /// 303, and where to go: the client GETs it. Set another status afterwards to change that.
    pub fn redirect(&mut self, location: &str) -> &mut Self {
        self.status(303).header("location", location)
    }

    /// Adds bytes to the body. What owns them moves to the loader without a copy if it is the whole body.
    pub fn body(&mut self, bytes: impl Into<Chunk>) -> &mut Self {
        // A failure is remembered, and ends the run.
        let _ = self.put(bytes.into());
        self
    }

    /// Sends bytes now, if the answer is a stream, after what is waiting; otherwise adds them to the body.
    ///
    /// # Errors
    /// The client has gone, the deadline has passed, or the answer is too large to be held.
    pub fn send(&mut self, bytes: impl Into<Chunk>) -> io::Result<()> {
        let chunk = bytes.into();
        if !self.streams {
            return self.put(chunk);
        }
        if self.state == State::Unsent || !self.scratch.body.is_empty() || self.chunk.is_some() {
            self.push()?;
        }
        self.refuse_if_ended()?;
        match self.exchange.write(chunk.into_raw(), raw::MORE) {
            status::OK => Ok(()),
            status => Err(failure(status)),
        }
    }

    /// Ends the answer, so that the client has it while Run goes on. Nothing can be written after it.
    ///
    /// # Errors
    /// As [`send`](Response::send).
    pub fn end(&mut self) -> io::Result<()> {
        self.refuse_if_ended()?;
        if let Some(fault) = &self.fault {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fault.to_string()));
        }
        let sent = self.transmit(0);
        self.state = State::Ended;
        sent
    }

    /// Ends what Run began, and says what the loader should log.
    pub(crate) fn finish(mut self, outcome: Result) -> Result {
        if self.state == State::Ended {
            return self.fault.take().map_or(outcome, |fault| Err(fault.into()));
        }
        if let Err(err) = outcome {
            let wrote = self.status.is_some() || self.chunk.is_some() || !self.scratch.body.is_empty();
            if self.state == State::Unsent && wrote && self.fault.is_none() {
                let _ = self.transmit(0);
            }
            return Err(err);
        }
        if let Some(fault) = self.fault.take() {
            return Err(fault.into());
        }
        match self.transmit(0) {
            Ok(()) => Ok(()),
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {
                Err(Error::new(err).at_level(Level::Debug))
            }
            Err(err) => Err(Error::new(err)),
        }
    }

    fn put_text(&mut self, text: Cow<'_, str>) -> &mut Self {
        // A failure is remembered, and ends the run.
        let _ = match text {
            Cow::Borrowed(text) => io::Write::write_all(self, text.as_bytes()),
            Cow::Owned(text) => self.put(text.into()),
        };
        self
    }

    fn put(&mut self, chunk: Chunk) -> io::Result<()> {
        let empty = self.chunk.is_none() && self.scratch.body.is_empty();
        if empty && self.state == State::Unsent && self.fits(chunk.len()) {
            self.chunk = Some(chunk);
            return Ok(());
        }
        io::Write::write_all(self, &chunk)
    }

    /// Sends what is waiting and says that more follows.
    fn push(&mut self) -> io::Result<()> {
        self.refuse_if_ended()?;
        if let Some(fault) = &self.fault {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fault.to_string()));
        }
        self.transmit(raw::MORE)?;
        self.state = State::Sending;
        Ok(())
    }

    /// Hands what is waiting to the host.
    fn transmit(&mut self, flags: u32) -> io::Result<()> {
        let body = match self.chunk.take() {
            Some(chunk) => chunk.into_raw(),
            None if self.scratch.body.len() > COPY_LIMIT => {
                Chunk::from(mem::take(&mut self.scratch.body)).into_raw()
            }
            None => raw::Chunk::view(&self.scratch.body),
        };
        let sent = if self.state == State::Unsent {
            let mut few = [raw::Header::EMPTY; FEW_HEADERS];
            let many: Vec<raw::Header<'_>>;
            let Scratch { head, spans, .. } = &*self.scratch;
            let headers = if spans.len() <= FEW_HEADERS {
                for (header, span) in few.iter_mut().zip(spans) {
                    *header = span.header(head);
                }
                &few[..spans.len()]
            } else {
                many = spans.iter().map(|span| span.header(head)).collect();
                &many
            };
            self.exchange.respond(self.status.unwrap_or(200), headers, body, flags)
        } else {
            self.exchange.write(body, flags)
        };
        self.scratch.body.clear();
        match sent {
            status::OK => Ok(()),
            status => Err(failure(status)),
        }
    }

    fn content_type(&mut self, value: &str) -> &mut Self {
        let Scratch { head, spans, .. } = &*self.scratch;
        if !spans.iter().any(|span| span.name(head) == b"content-type") {
            self.push_header("content-type", value.as_bytes());
        }
        self
    }

    fn push_header(&mut self, name: &str, value: &[u8]) {
        if self.state != State::Unsent {
            return self.fail(Fault::HeadSent);
        }
        let well_formed =
            !name.is_empty() && name.bytes().all(is_token) && value.iter().all(|&b| is_value(b));
        let Scratch { head, spans, .. } = &mut *self.scratch;
        let offsets = (
            head.len().try_into(),
            (head.len() + name.len()).try_into(),
            (head.len() + name.len() + value.len()).try_into(),
        );
        let (true, (Ok(begin), Ok(name_end), Ok(end))) = (well_formed, offsets) else {
            return self.fail(Fault::Header(name.to_owned()));
        };
        head.extend(name.bytes().map(|b| b.to_ascii_lowercase()));
        head.extend_from_slice(value);
        spans.push(Span { begin, name_end, end });
    }

    /// Whether `len` more bytes may be held; if not, the answer is unfit to be sent.
    fn fits(&mut self, len: usize) -> bool {
        let held = self.scratch.body.len() + self.chunk.as_deref().map_or(0, <[u8]>::len);
        let fits = self.streams || held.saturating_add(len) <= self.limit;
        if !fits {
            self.fail(Fault::TooLarge(self.limit));
        }
        fits
    }

    fn refuse_if_ended(&self) -> io::Result<()> {
        if self.state == State::Ended {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the response has ended"));
        }
        Ok(())
    }

    /// Keeps the first fault: the others follow from it.
    fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}

impl io::Write for Response<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.refuse_if_ended()?;
        if !self.fits(bytes.len()) {
            return Err(failure(status::TOO_LARGE));
        }
        if let Some(chunk) = self.chunk.take() {
            self.scratch.body.extend_from_slice(&chunk);
        }
        self.scratch.body.extend_from_slice(bytes);
        if self.streams && self.scratch.body.len() >= STREAM_BUFFER {
            self.push()?;
        }
        Ok(bytes.len())
    }

    /// Sends what is waiting, if the answer is a stream; waits while the client is slow.
    fn flush(&mut self) -> io::Result<()> {
        if self.streams { self.push() } else { Ok(()) }
    }
}

impl Span {
    fn name(self, head: &[u8]) -> &[u8] {
        &head[self.begin as usize..self.name_end as usize]
    }

    fn header(self, head: &[u8]) -> raw::Header<'_> {
        // Only tokens get into `head` as names, so this never falls back.
        let name = std::str::from_utf8(self.name(head)).unwrap_or_default();
        raw::Header { name: name.into(), value: head[self.name_end as usize..self.end as usize].into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Status(status) => write!(f, "the response's status is {status}; it must be 200 to 599"),
            Fault::Header(name) => write!(f, "the response's header {name:?} has a bad name or value"),
            Fault::HeadSent => f.write_str("a status or header was set after the head had been sent"),
            Fault::TooLarge(limit) => {
                write!(f, "the response is larger than the {limit} bytes that may be held; stream it")
            }
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::new(fault.to_string())
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110, section 5.5: visible characters, space, tab and whatever lies beyond ASCII.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
