//! A connection as bytes that are read and sent: requests and pieces of bodies come out, answers go in.

use std::{
    cell::RefCell,
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::{
    Method, Request, RequestHead, Response, ServiceConfig, StatusCode, Version,
    body::BodySize,
    error::{ParseError, PayloadError},
    h1::{self, Codec, MessageType},
    header,
};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::AsyncWrite;
use tokio_util::{
    codec::{Decoder, Encoder},
    io::poll_read_buf,
};

use super::{Over, buf_pool, write_buf::Output};
use crate::{
    body::incoming::announced,
    net::{activity::Traffic, connection::Connection},
};

/// Room there is at least when something is read.
const MIN_ROOM: usize = 1024;
/// Bytes that are read at a time, at first and when there is much to read.
const FIRST_READ: usize = 4 * 1024;
const LARGE_READ: usize = 128 * 1024;
/// Bytes that are read ahead of what is being answered.
const MAX_AHEAD: usize = 64 * 1024;
/// Bytes of a body that nobody wants which are read for the sake of the connection.
pub const MAX_DRAIN: u64 = 256 * 1024;

/// A connection.
pub struct Wire {
    connection: Connection,
    codec: Codec,
    input: BytesMut,
    /// Bytes that are read at a time.
    n_wanted: usize,
    /// Whether the client has closed its end.
    is_at_end: bool,
    /// What goes out.
    pub output: Output,
    request: Current,
}

/// The request that is being answered.
struct Current {
    version: Version,
    is_head: bool,
    body: Rest,
    /// Whether the client keeps its body back until it is asked for it.
    expects: bool,
    /// Whether somebody may still read the body.
    has_reader: bool,
    /// Whether its answer has begun.
    is_answered: bool,
}

impl Default for Current {
    fn default() -> Current {
        Current {
            version: Version::HTTP_11,
            is_head: false,
            body: Rest::Nothing,
            expects: false,
            has_reader: false,
            is_answered: false,
        }
    }
}

/// What of a body has not been read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Who knows.
    Chunks,
    /// The client has broken it off, or broken its rules.
    Broken,
}

/// What has come.
pub enum Message {
    /// A request, of whose head so many bytes are, and its body if that has come together with it.
    Request { request: Request, n_head: usize, body: Option<Bytes> },
    /// No request, and nothing behind it can be one.
    Refused(StatusCode),
    /// Nothing more comes.
    End,
}

impl Wire {
    /// Nothing has come yet.
    pub fn new(connection: Connection, config: ServiceConfig) -> Wire {
        Wire {
            connection,
            codec: Codec::new(config),
            input: BytesMut::new(),
            n_wanted: FIRST_READ,
            is_at_end: false,
            output: Output::default(),
            request: Current::default(),
        }
    }

    /// The next request, if it is here.
    pub fn message(&mut self, traffic: &Traffic) -> Option<Message> {
        if self.input.is_empty() {
            return None;
        }
        let before = self.input.len();
        let request = match self.codec.decode(&mut self.input) {
            Ok(Some(h1::Message::Item(request))) => request,
            Ok(None) => return None,
            Err(ParseError::TooLarge) => {
                return Some(Message::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            Ok(Some(h1::Message::Chunk(_))) | Err(_) => {
                return Some(Message::Refused(StatusCode::BAD_REQUEST));
            }
        };
        let n_head = before - self.input.len();
        let head = request.head();
        self.request =
            Current { version: head.version, is_head: head.method == Method::HEAD, ..Current::default() };
        let mut body = None;
        match self.codec.message_type() {
            MessageType::None => {}
            MessageType::Payload => {
                self.request.body = length(head).map_or(Rest::Chunks, Rest::Length);
                body = self.whole();
                self.request.expects = head.expect() && self.input.is_empty() && !self.is_read();
            }
            // The client would like to speak another protocol, and actix-http takes all that comes for that. It isn't
            // asked to: the body is what its head says, and there the connection ends.
            MessageType::Stream => {
                traffic.close();
                if let Some(length @ 1..) = length(head) {
                    self.request.body = Rest::Length(length);
                }
            }
        }
        Some(Message::Request { request, n_head, body })
    }

    /// A body that has come together with its head.
    fn whole(&mut self) -> Option<Bytes> {
        let Rest::Length(length) = self.request.body else { return None };
        if (self.input.len() as u64) < length {
            return None;
        }
        self.piece()??.ok()
    }

    /// The next piece of the body, or its end, if that is here.
    #[expect(
        clippy::option_option,
        reason = "of a piece that may be the end it is not known whether it is here"
    )]
    fn piece(&mut self) -> Option<Option<Result<Bytes, PayloadError>>> {
        match self.request.body {
            Rest::Nothing => return Some(None),
            Rest::Broken => return Some(Some(Err(PayloadError::Incomplete(None)))),
            Rest::Length(_) | Rest::Chunks => {}
        }
        match self.codec.decode(&mut self.input) {
            Ok(Some(h1::Message::Chunk(Some(mut piece)))) => {
                if let Rest::Length(left) = &mut self.request.body {
                    piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.request.body = Rest::Nothing;
                        // So that the next head is taken for one.
                        let _ = self.codec.decode(&mut self.input);
                    }
                }
                Some(Some(Ok(piece)))
            }
            Ok(Some(h1::Message::Chunk(None))) => {
                self.request.body = Rest::Nothing;
                Some(None)
            }
            Ok(None) => None,
            Ok(Some(h1::Message::Item(_))) | Err(_) => {
                self.request.body = Rest::Broken;
                Some(Some(Err(PayloadError::EncodingCorrupted)))
            }
        }
    }

    /// The next piece of the body, or its end. A client that waits to be asked for it is.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            if let Some(piece) = self.piece() {
                return Poll::Ready(piece);
            }
            if mem::take(&mut self.request.expects) && !self.request.is_answered {
                self.output.text().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // What fails shows when something is read.
                let _ = self.output.poll_flush(&mut self.connection, context);
            }
            let err = match ready!(self.poll_fill(context)) {
                Ok(0) => PayloadError::Incomplete(None),
                Ok(_) => continue,
                Err(err) => PayloadError::Io(err),
            };
            self.request.body = Rest::Broken;
            return Poll::Ready(Some(Err(err)));
        }
    }

    /// Reads something; 0 if the client has closed its end.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_at_end {
            return Poll::Ready(Ok(0));
        }
        if self.input.capacity() == 0 {
            self.input = buf_pool::take();
        }
        if self.input.capacity() - self.input.len() < MIN_ROOM.max(self.n_wanted / 4) {
            self.input.reserve(self.n_wanted);
        }
        let read = poll_read_buf(Pin::new(&mut self.connection), context, &mut self.input);
        match &read {
            Poll::Pending if self.input.is_empty() => buf_pool::give(mem::take(&mut self.input)),
            Poll::Pending => {}
            Poll::Ready(Ok(0)) => self.is_at_end = true,
            Poll::Ready(Ok(_)) if self.input.len() == self.input.capacity() => {
                self.n_wanted = (self.n_wanted * 2).min(LARGE_READ);
            }
            Poll::Ready(_) => {}
        }
        read
    }

    /// Reads what comes while nobody asks for anything, if that isn't a body: it may be that the client leaves.
    pub fn poll_look_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.request.body == Rest::Nothing && !self.is_at_end && self.input.len() < MAX_AHEAD {
            ready!(self.poll_fill(context))?;
        }
        Poll::Pending
    }

    /// Reads and forgets all that comes until the client closes its end.
    pub fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            self.input.clear();
            match ready!(self.poll_fill(context)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// What it means that nothing can be read any more.
    pub fn unreadable(&self, err: &io::Error) -> Option<Message> {
        let is_late = err.kind() == io::ErrorKind::TimedOut && !self.input.is_empty();
        is_late.then_some(Message::Refused(StatusCode::REQUEST_TIMEOUT))
    }

    /// The version of the request that is being answered.
    pub fn version(&self) -> Version {
        self.request.version
    }

    /// Whether its answer has no body.
    pub fn is_head(&self) -> bool {
        self.request.is_head
    }

    /// The head of the answer, or of one to what is no request.
    pub fn begin(&mut self, response: Response<()>, size: BodySize) -> Result<(), Over> {
        self.request.is_answered = true;
        self.codec.encode(h1::Message::Item((response, size)), self.output.text()).map_err(|_| Over)
    }

    /// Whether the connection may be used again, as the answer's head has it.
    pub fn is_kept(&self) -> bool {
        self.codec.keep_alive() || self.codec.upgrade()
    }

    /// Whether what is left of the body can be read for the sake of the connection, if nobody else reads it.
    pub fn can_skip(&self) -> bool {
        match self.request.body {
            Rest::Nothing => true,
            _ if self.request.expects => false,
            Rest::Length(left) => left <= MAX_DRAIN || self.request.has_reader,
            Rest::Chunks => true,
            Rest::Broken => false,
        }
    }

    /// Whether all of the request has been read.
    pub fn is_read(&self) -> bool {
        self.request.body == Rest::Nothing
    }

    /// Whether the client keeps its body back until it is asked for it.
    pub fn is_kept_back(&self) -> bool {
        self.request.expects
    }

    /// The answer has been given.
    pub fn end(&mut self) {
        self.n_wanted = FIRST_READ;
    }

    /// Sends what is to be sent.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        self.output.poll_flush(&mut self.connection, context).map_err(|_| Over)
    }

    /// Tells the client that nothing more comes.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        Pin::new(&mut self.connection).poll_shutdown(context).map_err(|_| Over)
    }

    /// Whether the client may not be saying something that nobody has heard.
    pub fn is_silent(&self) -> bool {
        self.is_at_end || (self.input.is_empty() && self.is_read())
    }

    /// The answer breaks off, and must not look whole.
    pub fn abort(&self) {
        if self.output.ends_by_close() {
            self.connection.reset();
        }
    }
}

fn length(head: &RequestHead) -> Option<u64> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) { None } else { announced(head) }
}

/// The body of the request that is being answered, for whoever reads it.
pub struct Pieces(Rc<RefCell<Wire>>);

impl Pieces {
    /// Once for each request that has one.
    pub fn of(wire: &Rc<RefCell<Wire>>) -> Pieces {
        wire.borrow_mut().request.has_reader = true;
        Pieces(Rc::clone(wire))
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_piece(context)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.0.borrow_mut().request.has_reader = false;
    }
}
