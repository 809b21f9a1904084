//! Finds heads and pieces of bodies in the bytes of a connection, and keeps how much of the current request has been
//! read. actix-http parses; `conn` decides when bytes are read.

use std::task::Poll;

use actix_http::{
    Method, Request, RequestHead, Response, ServiceConfig, StatusCode, Version,
    body::BodySize,
    error::{ParseError, PayloadError},
    h1::{self, MessageType},
    header,
};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::{body::incoming::announced, net::activity::ConnActivity};

/// Bytes of a body that nobody wants which are read so that the connection can be used again.
pub const MAX_DRAIN: u64 = 256 * 1024;

/// The parser of a connection, and what it knows of the request that is being answered.
pub struct Codec {
    codec: h1::Codec,
    pub request: Current,
}

/// The request that is being answered.
#[derive(Default)]
pub struct Current {
    pub version: Version,
    /// Whether its method is HEAD, so that its answer has no body.
    pub is_head: bool,
    pub body: Rest,
    /// Whether the client keeps its body back until it is asked for it.
    pub is_kept_back: bool,
    /// Whether somebody may still read the body.
    pub has_reader: bool,
    is_answered: bool,
}

/// What of a body has not been read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    #[default]
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks; how many is not known.
    Chunks,
    /// The client has broken it off, or has sent what is no chunk.
    Broken,
}

/// What has come.
pub enum Message {
    /// A request, how many bytes its head has, and its body if that has come together with it.
    Request { request: Request, n_head: usize, body: Option<Bytes> },
    /// Something that is no request: nothing that follows it is read.
    Refused(StatusCode),
    /// Nothing more comes.
    End,
}

impl Codec {
    pub fn new(config: ServiceConfig) -> Codec {
        Codec { codec: h1::Codec::new(config), request: Current::default() }
    }

    /// The next request, if all of its head is in `input`.
    pub fn message(&mut self, input: &mut BytesMut, activity: &ConnActivity) -> Option<Message> {
        if input.is_empty() {
            return None;
        }
        let before = input.len();
        let request = match self.codec.decode(input) {
            Ok(Some(h1::Message::Item(request))) => request,
            Ok(None) => return None,
            Err(ParseError::TooLarge) => {
                return Some(Message::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            Ok(Some(h1::Message::Chunk(_))) | Err(_) => {
                return Some(Message::Refused(StatusCode::BAD_REQUEST));
            }
        };
        let n_head = before - input.len();
        let head = request.head();
        self.request =
            Current { version: head.version, is_head: head.method == Method::HEAD, ..Current::default() };
        let mut body = None;
        match self.codec.message_type() {
            MessageType::None => {}
            MessageType::Payload => {
                self.request.body = length(head).map_or(Rest::Chunks, Rest::Length);
                body = self.whole(input);
                self.request.is_kept_back = head.expect() && input.is_empty() && !self.is_read();
            }
            // The client offers to speak another protocol, and actix-http takes all that follows for that protocol. We
            // don't accept: the body is what the head says, and the connection ends behind it.
            MessageType::Stream => {
                activity.is_closing.set(true);
                if let Some(length @ 1..) = length(head) {
                    self.request.body = Rest::Length(length);
                }
            }
        }
        Some(Message::Request { request, n_head, body })
    }

    /// A body that has come together with its head.
    fn whole(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        let Rest::Length(length) = self.request.body else { return None };
        if (input.len() as u64) < length {
            return None;
        }
        match self.piece(input) {
            Poll::Ready(piece) => piece?.ok(),
            Poll::Pending => None,
        }
    }

    /// The next piece of the body, or its end; pending if more bytes are needed to tell.
    pub fn piece(&mut self, input: &mut BytesMut) -> Poll<Option<Result<Bytes, PayloadError>>> {
        match self.request.body {
            Rest::Nothing => return Poll::Ready(None),
            Rest::Broken => return Poll::Ready(Some(Err(PayloadError::Incomplete(None)))),
            Rest::Length(_) | Rest::Chunks => {}
        }
        match self.codec.decode(input) {
            Ok(Some(h1::Message::Chunk(Some(mut piece)))) => {
                if let Rest::Length(left) = &mut self.request.body {
                    piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.request.body = Rest::Nothing;
                        // So that the codec takes what follows for a head.
                        let _ = self.codec.decode(input);
                    }
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Ok(Some(h1::Message::Chunk(None))) => {
                self.request.body = Rest::Nothing;
                Poll::Ready(None)
            }
            Ok(None) => Poll::Pending,
            Ok(Some(h1::Message::Item(_))) | Err(_) => {
                self.request.body = Rest::Broken;
                Poll::Ready(Some(Err(PayloadError::EncodingCorrupted)))
            }
        }
    }

    /// Writes an answer's head; `None` if it can't be written.
    pub fn begin(&mut self, response: Response<()>, size: BodySize, output: &mut BytesMut) -> Option<()> {
        self.request.is_answered = true;
        self.codec.encode(h1::Message::Item((response, size)), output).ok()
    }

    /// Whether the client must be told now to send its body: once at most, and not after its answer has begun.
    pub fn take_expectation(&mut self) -> bool {
        std::mem::take(&mut self.request.is_kept_back) && !self.request.is_answered
    }

    /// Whether all of the request has been read.
    pub fn is_read(&self) -> bool {
        self.request.body == Rest::Nothing
    }

    /// Whether the answer's head lets the client use the connection again.
    pub fn is_kept(&self) -> bool {
        self.codec.keep_alive() || self.codec.upgrade()
    }

    /// Whether the rest of the body can be read so that the connection can be used again.
    pub fn can_skip(&self) -> bool {
        match self.request.body {
            Rest::Nothing => true,
            _ if self.request.is_kept_back => false,
            Rest::Length(left) => left <= MAX_DRAIN || self.request.has_reader,
            Rest::Chunks => true,
            Rest::Broken => false,
        }
    }
}

fn length(head: &RequestHead) -> Option<u64> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) { None } else { announced(head) }
}
