//! The answer as an author writes it: status, headers, and a body that is held or sent piece by piece.
//!
//! This file owns the order of things: the head before the body, nothing after the end, the first fault kept. What may
//! be in a header is left to `headers.rs`; waiting without a thread is left to `async_response.rs`; how bytes reach the
//! client is left to the loader.

use std::{borrow::Cow, error, fmt, io, mem};

use crate::{
    calls::{EarlyHostRef, ExchangeRef, HostRef, TrailersHostRef, upgrade::UpgradeHostRef},
    chunk::Chunk,
    error::{Error, Level, Result, failure},
    headers::{Headers, in_a_row, is_field},
    raw::{self, Status, host_attribute, status},
    upgraded::Upgraded,
};

/// Bytes of a streamed answer after which the buffer is sent.
pub(crate) const STREAM_BUFFER: usize = 64 * 1024;
/// A held body up to this many bytes is lent to the loader, which copies it, and its buffer is used again. A larger one
/// is given to the loader with its buffer.
const COPY_LIMIT: usize = 16 * 1024;

/// The answer to a request. What is written is held until Run returns or [`end`](Response::end) is called. If the
/// lambda declares [`Options::stream_response`](crate::Options::stream_response), it is sent earlier: whenever 64 KiB
/// are waiting, and at a flush.
///
/// Methods that set something can be chained, and `std::io::Write` is implemented. What can't be sent (a status of 99,
/// a line feed in a header) makes the run fail: the client gets 500, and the log says why.
pub struct Response<'a> {
    exchange: ExchangeRef<'a>,
    scratch: &'a mut Scratch,
    /// What is waiting to be sent, if it is one piece with an owner; otherwise it is in `scratch.body`.
    chunk: Option<Chunk>,
    /// So many bytes can be written to `scratch.body` without a further look: 0 unless they are to be added to what is
    /// there, held or until the buffer is sent.
    room: usize,
    status: Option<u16>,
    state: State,
    terms: Terms,
    /// The first thing that makes the answer unfit to be sent, with the author's line.
    fault: Option<Error>,
}

/// What is the same for all answers of a Context.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// Its tables are looked for when they are needed: few answers need one.
    host: HostRef,
    delivery: Delivery,
    /// Whether a held answer may go out before Run returns.
    may_answer_early: bool,
    /// Number of bytes that may be held.
    limit: usize,
}

impl Terms {
    /// How many bytes the buffer may have before it must be looked at.
    fn most(self) -> usize {
        if self.delivery == Delivery::Waiting { STREAM_BUFFER } else { self.limit }
    }

    /// `may_answer_early`: the lambda has declared it, or needn't.
    pub(crate) fn of(host: HostRef, delivery: Delivery, may_answer_early: bool) -> Terms {
        let limit = host.attribute(host_attribute::RESPONSE_LIMIT).and_then(|text| text.parse().ok());
        Terms { host, delivery, may_answer_early, limit: limit.unwrap_or(usize::MAX) }
    }
}

/// How an answer goes out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// All at once.
    Whole,
    /// Piece by piece. A write waits, and its thread with it, while the client is slow.
    Waiting,
    /// Piece by piece, by calls that are awaited. A plain write only fills the buffer.
    #[cfg(feature = "async")]
    Awaited,
}

/// Buffers that stay with the Context from one request to the next, so that a request allocates nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    body: Vec<u8>,
    headers: Headers,
    /// The host's table, once it was looked for.
    trailers: Option<Option<TrailersHostRef>>,
    /// Here, because a request that isn't upgraded must not pay for it.
    upgrades: Upgrades,
}

/// Whether a run may take its connection over.
#[derive(Clone, Copy, Default)]
enum Upgrades {
    By(UpgradeHostRef),
    /// The host is older than this.
    Unknown,
    /// The lambda has not declared it.
    #[default]
    Undeclared,
}

impl Scratch {
    pub(crate) fn new(host: HostRef, may_upgrade: bool) -> Scratch {
        let upgrades = match UpgradeHostRef::find(host) {
            _ if !may_upgrade => Upgrades::Undeclared,
            Some(host) => Upgrades::By(host),
            None => Upgrades::Unknown,
        };
        Scratch { upgrades, ..Scratch::default() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unsent,
    /// The head has been sent; more of the body may follow.
    Sending,
    Ended,
    /// The loader refused a piece with this status, and takes no further one.
    Lost(Status),
}

enum Fault {
    Status(u16),
    Header(String),
    #[cfg(feature = "cookies")]
    Cookie(String),
    HeadSent,
    Trailer(String),
    TrailersLate,
    TrailersTooLarge,
    TooLarge(usize),
    Unwritten(io::Error),
}

impl<'a> Response<'a> {
    pub(crate) fn new(exchange: ExchangeRef<'a>, scratch: &'a mut Scratch, terms: Terms) -> Self {
        scratch.body.clear();
        // A large body that was never sent must not stay with the Context.
        scratch.body.shrink_to(2 * COPY_LIMIT);
        scratch.headers.clear();
        let state = State::Unsent;
        let room = terms.most();
        Response { exchange, scratch, chunk: None, room, status: None, state, terms, fault: None }
    }

    /// The status, 200 to 599; 200 if it is never set.
    #[track_caller]
    pub fn status(&mut self, status: u16) -> &mut Self {
        match (&self.state, status) {
            (State::Unsent, 200..=599) => self.status = Some(status),
            (State::Unsent, _) => self.fail(Fault::Status(status)),
            _ => self.fail(Fault::HeadSent),
        }
        self
    }

    /// Sets a header and replaces earlier ones of that name.
    ///
    /// The loader sets `Transfer-Encoding`, `Connection` and `Date` itself, and `Content-Length` too. Only a streamed
    /// answer and the answer to a HEAD may have a `Content-Length` of the lambda's; a stream must then keep to it.
    #[track_caller]
    pub fn header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.scratch.headers.remove(name);
        self.add_header(name, value)
    }

    /// Adds a header and keeps others of that name: for `Set-Cookie`, `Link`, `Vary`.
    #[track_caller]
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.push_header(name, value.as_ref());
        self
    }

    /// Adds a trailer, a field behind the body, until the answer has ended: for what is known only when the body has
    /// been made, such as a checksum.
    ///
    /// It reaches clients of HTTP/2, and those of HTTP/1.1 that say `TE: trailers`; for others, and by a loader that
    /// knows no trailers, it is left out. So are fields that can't be trailers (RFC 9110, section 6.5.1), such as
    /// `Content-Type` or `Set-Cookie`. A header `Trailer` may announce their names.
    #[track_caller]
    pub fn trailer(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let (name, value) = (name.to_ascii_lowercase(), value.as_ref());
        if !is_field(&name, value) {
            self.fail(Fault::Trailer(name));
            return self;
        }
        self.add_trailers(&[raw::Header { name: name.as_str().into(), value: value.into() }]);
        self
    }

    /// Adds trailers that can be sent.
    #[track_caller]
    pub(crate) fn add_trailers(&mut self, trailers: &[raw::Header<'_>]) {
        match self.state {
            State::Unsent | State::Sending => {}
            State::Ended => return self.fail(Fault::TrailersLate),
            State::Lost(_) => return,
        }
        let known = &mut self.scratch.trailers;
        let Some(host) = *known.get_or_insert_with(|| TrailersHostRef::find(self.terms.host)) else { return };
        match host.respond(self.exchange, trailers) {
            // Where they are left out, the answer is as good as it was.
            status::OK | status::UNSUPPORTED => {}
            status::TOO_LARGE => self.fail(Fault::TrailersTooLarge),
            _ => self.fail(Fault::TrailersLate),
        }
    }

    /// Sends an interim response, which the answer follows (RFC 9110, section 15.2): 103 with `Link` headers lets a
    /// browser fetch what the answer will need (RFC 8297). `status` is 102 to 199.
    ///
    /// It goes out at once if the lambda declares [`Options::stream_response`](crate::Options::stream_response);
    /// without, together with the answer. A client of HTTP/1.0 doesn't get it, nor does anybody from a loader older
    /// than this.
    ///
    /// ```
    /// # fn run(response: &mut effe_abi::Response) -> effe_abi::Result {
    /// response.informational(103, [("link", "</style.css>; rel=preload; as=style")])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The head of the answer has been sent, the status is another one (100 is the loader's, and 101 no interim
    /// response), a header has a bad name or value, or there were 64 of them. The answer can be sent all the same.
    pub fn informational<N: AsRef<str>, V: AsRef<[u8]>>(
        &mut self,
        status: u16,
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> io::Result<()> {
        self.refuse_if_ended()?;
        if self.state != State::Unsent {
            return Err(informational_refusal("the head of the response has been sent".to_owned()));
        }
        if !(102..=199).contains(&status) {
            let text = format!("the status of an interim response is {status}; it must be 102 to 199");
            return Err(informational_refusal(text));
        }
        let mut checked = Headers::default();
        for (name, value) in headers {
            if !checked.push(name.as_ref(), value.as_ref()) {
                let text =
                    format!("the interim response's header {:?} has a bad name or value", name.as_ref());
                return Err(informational_refusal(text));
            }
        }
        let headers: Vec<raw::Header<'_>> = checked.iter().collect();
        match self.exchange.respond(status, &headers, raw::Chunk::EMPTY, raw::MORE) {
            status::OK => Ok(()),
            status => Err(failure(status)),
        }
    }

    /// Adds text to the body; the content type is `text/plain; charset=utf-8` unless one is set.
    #[track_caller]
    pub fn text<'t>(&mut self, text: impl Into<Cow<'t, str>>) -> &mut Self {
        self.content_type("text/plain; charset=utf-8").put_text(text.into())
    }

    /// Adds HTML to the body; the content type is `text/html; charset=utf-8` unless one is set.
    #[track_caller]
    pub fn html<'t>(&mut self, html: impl Into<Cow<'t, str>>) -> &mut Self {
        self.content_type("text/html; charset=utf-8").put_text(html.into())
    }

    /// Adds a value as JSON to the body; the content type is `application/json` unless one is set. Needs the feature
    /// `json`, which is on by default.
    ///
    /// # Errors
    /// The value can't be written as JSON. The answer is then what it was before, unless part of it has been sent.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<&mut Self> {
        let (held, n_headers) = (self.held(), self.scratch.headers.len());
        self.content_type("application/json");
        if let Err(err) = serde_json::to_writer(&mut *self, value) {
            if self.state == State::Unsent {
                self.scratch.body.truncate(held);
                self.scratch.headers.truncate(n_headers);
            }
            return Err(Error::new(err));
        }
        Ok(self)
    }

    /// Sends the client to another place, with status 303: the client then GETs it. Set another status afterwards to
    /// change that.
    #[track_caller]
    pub fn redirect(&mut self, location: &str) -> &mut Self {
        self.status(303).header("location", location)
    }

    /// Adds bytes to the body. If they are the whole body, they go to the loader with their owner, without a copy.
    #[track_caller]
    pub fn body(&mut self, bytes: impl Into<Chunk>) -> &mut Self {
        let written = self.put(bytes.into());
        self.remember(written)
    }

    /// Sends bytes now, after what is waiting, if the answer is a stream; otherwise adds them to the body.
    ///
    /// # Errors
    /// The client has gone, the deadline has passed, or the answer is too large to be held.
    pub fn send(&mut self, bytes: impl Into<Chunk>) -> io::Result<()> {
        let chunk = bytes.into();
        if self.terms.delivery != Delivery::Waiting {
            return self.put(chunk);
        }
        if self.has_waiting() {
            self.push()?;
        }
        self.write_chunk(chunk)
    }

    /// Hands a piece to the host. The head has been sent.
    pub(crate) fn write_chunk(&mut self, chunk: Chunk) -> io::Result<()> {
        self.refuse_if_ended()?;
        let sent = self.exchange.write(chunk.into_raw(), raw::MORE);
        self.taken(sent)
    }

    /// Ends the answer and sends it, so that the client has all of it while Run goes on. Nothing can be written
    /// afterwards. A lambda that isn't async and doesn't stream its answers must declare
    /// [`Options::answers_early`](crate::Options::answers_early).
    ///
    /// From then on the client may leave: the run is not cancelled, and
    /// [`Request::cancelled`](crate::Request::cancelled) stays false. The rest of Run has the operator's
    /// `--run-timeout` anew, which [`Request::deadline`](crate::Request::deadline) tells. What a client has not sent
    /// yet of a streamed body can't be read any more.
    ///
    /// # Errors
    /// As [`send`](Response::send). Or the lambda hasn't declared that it answers early, or the loader is too old to do
    /// so: then nothing is ended.
    pub fn end(&mut self) -> io::Result<()> {
        #[cfg(feature = "async")]
        if self.terms.delivery == Delivery::Awaited && self.is_sending() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the end of this answer must be awaited",
            ));
        }
        self.finish_body()
    }

    pub(crate) fn finish_body(&mut self) -> io::Result<()> {
        self.refuse_if_unfit()?;
        let Terms { host, may_answer_early, .. } = self.terms;
        let early = may_answer_early.then(|| EarlyHostRef::find(host)).flatten();
        let goes_out = early.is_some_and(|early| early.end_early(self.exchange));
        if !goes_out && self.state == State::Unsent {
            if !self.is_stream() {
                return Err(early_refusal(may_answer_early));
            }
            // Every loader sends what belongs to a stream that has begun.
            self.push()?;
        }
        self.transmit(0)?;
        self.go_to(State::Ended);
        Ok(())
    }

    /// The protocols that the client offers to switch its connection to, as it lists them: `websocket`. `None` if it
    /// offers none, or this lambda can't take connections over.
    pub fn offered_protocols(&self) -> Option<&'a str> {
        match self.scratch.upgrades {
            Upgrades::By(host) => host.offered(self.exchange),
            Upgrades::Unknown | Upgrades::Undeclared => None,
        }
    }

    /// Whether this lambda can take connections over that clients offer.
    #[cfg(feature = "websocket")]
    pub(crate) fn may_upgrade(&self) -> bool {
        matches!(self.scratch.upgrades, Upgrades::By(_))
    }

    /// Switches the connection to a protocol that the client offers (RFC 9110, section 7.8): answers with 101 and the
    /// headers that were set, and returns the connection as a stream of bytes. That stream may outlive Run, and Run has
    /// no limit of time from here on. A lambda must declare [`Options::upgrades`](crate::Options::upgrades).
    ///
    /// # Errors
    /// The client doesn't offer this protocol, part of another answer was written, the client has gone, the lambda
    /// hasn't declared that it upgrades, or the loader is too old. Then no answer has begun: Run may give any other
    /// one, which the client gets in HTTP.
    pub fn upgrade(&mut self, protocol: &str) -> io::Result<Upgraded> {
        self.refuse_if_unfit()?;
        let host = match self.scratch.upgrades {
            Upgrades::By(host) => host,
            Upgrades::Undeclared => {
                let text = "Response::upgrade needs `const OPTIONS: Options = Options::new().upgrades()`";
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            Upgrades::Unknown => {
                let text =
                    "this loader can't hand a connection over; Response::upgrade needs a newer effe-loader";
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        };
        if self.state != State::Unsent || self.held() > 0 {
            let text = "part of another answer was written already";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let name = raw::Header { name: "upgrade".into(), value: protocol.as_bytes().into() };
        let others = self.scratch.headers.iter().filter(|header| header.name.as_str() != "upgrade");
        let headers: Vec<_> = others.chain([name]).collect();
        match host.upgrade(self.exchange, &headers) {
            Ok(link) => {
                self.go_to(State::Ended);
                Ok(Upgraded::new(link))
            }
            Err(status::END | status::INVALID) => {
                let text = format!("the client doesn't offer to switch to {protocol:?}");
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
            Err(status) => Err(self.taken(status).err().unwrap_or_else(|| failure(status))),
        }
    }

    /// Ends the answer after Run has returned, and returns what the loader is to log.
    pub(crate) fn finish(mut self, outcome: Result) -> Result {
        let unfit = self.fault.is_some();
        let outcome = outcome.and(self.fault.take().map_or(Ok(()), Err));
        let wrote = self.status.is_some() || self.held() > 0 || self.chunk.is_some();
        let sent = match self.state {
            State::Lost(status) => Err(failure(status)),
            State::Ended => Ok(()),
            _ if outcome.is_ok() => self.transmit(0),
            // Run failed, but what it has written is sent.
            State::Unsent if wrote && !unfit => self.transmit(0),
            _ => Ok(()),
        };
        // What is in a map may keep the author's memory.
        #[cfg(feature = "http")]
        self.scratch.headers.clear();
        match (outcome.and(sent.map_err(Error::new)), self.state) {
            // A client that leaves is no fault of the lambda's.
            (Err(err), State::Lost(status::GONE)) if is_broken_pipe(&err) => Err(err.at_level(Level::Debug)),
            (outcome, _) => outcome,
        }
    }

    #[track_caller]
    fn put_text(&mut self, text: Cow<'_, str>) -> &mut Self {
        let written = match text {
            Cow::Borrowed(text) => io::Write::write_all(self, text.as_bytes()),
            Cow::Owned(text) => self.put(text.into()),
        };
        self.remember(written)
    }

    /// For methods that return no result: a failure to write makes the run fail.
    #[track_caller]
    fn remember(&mut self, written: io::Result<()>) -> &mut Self {
        match (written, self.state) {
            // `Lost` is remembered already.
            (Ok(()), _) | (Err(_), State::Lost(_)) => {}
            (Err(err), _) => self.fail(Fault::Unwritten(err)),
        }
        self
    }

    #[track_caller]
    fn put(&mut self, chunk: Chunk) -> io::Result<()> {
        let empty = self.chunk.is_none() && self.scratch.body.is_empty();
        if empty && self.state == State::Unsent && self.fits(chunk.len()) {
            (self.chunk, self.room) = (Some(chunk), 0);
            return Ok(());
        }
        io::Write::write_all(self, &chunk)
    }

    /// Sends what is waiting; more will follow.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        self.refuse_if_unfit()?;
        self.transmit(raw::MORE)?;
        self.go_to(State::Sending);
        Ok(())
    }

    fn go_to(&mut self, state: State) {
        // The next write finds out whether it may be made.
        (self.state, self.room) = (state, 0);
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
            let (headers, status) = (&self.scratch.headers, self.status.unwrap_or(200));
            in_a_row(headers.len(), headers.iter(), |headers| {
                self.exchange.respond(status, headers, body, flags)
            })
        } else {
            self.exchange.write(body, flags)
        };
        self.scratch.body.clear();
        // Its memory may have gone to the host.
        self.room = 0;
        self.taken(sent)
    }

    /// Takes note of what the host said to a piece that was handed to it.
    pub(crate) fn taken(&mut self, sent: Status) -> io::Result<()> {
        if sent == status::OK {
            return Ok(());
        }
        self.go_to(State::Lost(sent));
        Err(failure(sent))
    }

    #[track_caller]
    fn content_type(&mut self, value: &str) -> &mut Self {
        if !self.scratch.headers.contains("content-type") {
            self.push_header("content-type", value.as_bytes());
        }
        self
    }

    /// Adds headers from the `http` crate.
    #[cfg(feature = "http")]
    #[track_caller]
    pub(crate) fn add_http(&mut self, headers: http::HeaderMap) {
        if self.state != State::Unsent && !headers.is_empty() {
            return self.fail(Fault::HeadSent);
        }
        self.scratch.headers.add_map(headers);
    }

    /// An empty map for the headers of a request, which has memory if the answer before had such headers.
    #[cfg(feature = "tower")]
    pub(crate) fn spare_map(&mut self) -> &mut http::HeaderMap {
        self.scratch.headers.spare_map()
    }

    #[track_caller]
    fn push_header(&mut self, name: &str, value: &[u8]) {
        if self.state != State::Unsent {
            return self.fail(Fault::HeadSent);
        }
        if !self.scratch.headers.push(name, value) {
            self.fail(Fault::Header(name.to_owned()));
        }
    }

    #[cfg(feature = "cookies")]
    #[track_caller]
    pub(crate) fn refuse_cookie(&mut self, name: &str) -> &mut Self {
        self.fail(Fault::Cookie(name.to_owned()));
        self
    }

    /// Number of bytes that wait to be sent.
    pub(crate) fn held(&self) -> usize {
        self.scratch.body.len() + self.chunk.as_deref().map_or(0, <[u8]>::len)
    }

    /// Whether anything waits to be sent, even if it is the head alone.
    pub(crate) fn has_waiting(&self) -> bool {
        self.state == State::Unsent || !self.scratch.body.is_empty() || self.chunk.is_some()
    }

    /// Whether this is a stream whose head has not been sent.
    #[cfg(feature = "http")]
    pub(crate) fn may_begin(&self) -> bool {
        self.is_stream() && self.state == State::Unsent
    }

    /// Whether the head has been sent and more may follow.
    #[cfg(feature = "async")]
    pub(crate) fn is_sending(&self) -> bool {
        self.state == State::Sending
    }

    /// Whether pieces may be sent before the end.
    pub(crate) fn is_stream(&self) -> bool {
        self.terms.delivery != Delivery::Whole
    }

    #[cfg(feature = "async")]
    pub(crate) fn exchange(&self) -> ExchangeRef<'a> {
        self.exchange
    }

    /// Whether `len` more bytes may be held. If not, the answer becomes unfit to be sent.
    #[track_caller]
    fn fits(&mut self, len: usize) -> bool {
        let Terms { delivery, limit, .. } = self.terms;
        let fits = delivery == Delivery::Waiting || self.held().saturating_add(len) <= limit;
        if !fits {
            self.fail(Fault::TooLarge(limit));
        }
        fits
    }

    /// Writes bytes for which there is no `room`, and finds out how much there is from then on.
    fn write_further(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.refuse_if_ended()?;
        if !self.fits(bytes.len()) {
            return Err(failure(status::TOO_LARGE));
        }
        if let Some(chunk) = self.chunk.take() {
            self.scratch.body.extend_from_slice(&chunk);
        }
        self.scratch.body.extend_from_slice(bytes);
        if self.terms.delivery == Delivery::Waiting && self.scratch.body.len() >= STREAM_BUFFER {
            self.push()?;
        }
        self.room = self.terms.most().saturating_sub(self.scratch.body.len());
        Ok(())
    }

    fn refuse_if_ended(&self) -> io::Result<()> {
        match self.state {
            State::Unsent | State::Sending => Ok(()),
            State::Ended => Err(io::Error::new(io::ErrorKind::InvalidInput, "the response has ended")),
            State::Lost(status) => Err(failure(status)),
        }
    }

    fn refuse_if_unfit(&self) -> io::Result<()> {
        self.refuse_if_ended()?;
        match &self.fault {
            None => Ok(()),
            Some(fault) => Err(io::Error::new(io::ErrorKind::InvalidInput, fault.source().to_string())),
        }
    }

    /// Remembers the first fault; later ones are consequences of it.
    #[track_caller]
    fn fail(&mut self, fault: Fault) {
        if self.fault.is_none() {
            self.fault = Some(Error::new(fault.to_string()));
        }
    }
}

impl io::Write for Response<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// Writes all of the bytes or none.
    // Inlined, and most of it left to `write_further`: JSON comes in many small pieces.
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= self.room {
            return self.write_further(bytes);
        }
        self.room -= bytes.len();
        self.scratch.body.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what is waiting, if the answer is a stream. Waits while the client is slow.
    fn flush(&mut self) -> io::Result<()> {
        if self.terms.delivery == Delivery::Waiting { self.push() } else { Ok(()) }
    }
}

/// Why a held answer can't be ended before Run returns.
fn early_refusal(is_declared: bool) -> io::Error {
    let text = if is_declared {
        "this loader sends a held answer when Run returns; Response::end needs a newer effe-loader, or \
         Options::stream_response"
    } else {
        "Response::end needs `const OPTIONS: Options = Options::new().answers_early()`: without it, Run may be \
         on the thread that is to send the answer"
    };
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Why an interim response can't be sent.
fn informational_refusal(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Status(status) => write!(f, "the response's status is {status}; it must be 200 to 599"),
            Fault::Header(name) => write!(f, "the response's header {name:?} has a bad name or value"),
            #[cfg(feature = "cookies")]
            Fault::Cookie(name) => {
                write!(f, "the cookie {name:?} can't be set as it is; encode its name and value")
            }
            Fault::Trailer(name) => write!(f, "the response's trailer {name:?} has a bad name or value"),
            Fault::TrailersLate => f.write_str("a trailer was set after the response had ended"),
            Fault::TrailersTooLarge => {
                f.write_str("the response's trailers are larger than the loader sends")
            }
            Fault::HeadSent => f.write_str("a status or header was set after the head had been sent"),
            Fault::TooLarge(limit) => {
                write!(f, "the response is larger than the {limit} bytes that may be held; stream it")
            }
            Fault::Unwritten(err) => write!(f, "the response could not be written: {err}"),
        }
    }
}

/// Whether a broken pipe, which is a client that has left, is among the causes.
fn is_broken_pipe(err: &Error) -> bool {
    let mut cause: Option<&(dyn error::Error + 'static)> = Some(err.source());
    while let Some(err) = cause {
        if err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = err.source();
    }
    false
}
