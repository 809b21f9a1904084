//! Finds heads and pieces of bodies in the bytes of a connection, and keeps how much of the current request has been
//! read. `parse` parses heads, and `chunks` bodies in chunks; `conn` decides when bytes are read.

use std::task::{Poll, ready};

use actix_http::{body::BodySize, error::PayloadError};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode, Version};

use super::{
    chunks::{self, Chunks},
    encode::{Framing, encode},
    parse::{Origin, Rest, parse},
};
use crate::{
    body::trailers::Trailers,
    message::{request::Request, response::ResponseHead},
};

/// Bytes of a body that nobody wants which are read so that the connection can be used again.
pub const MAX_DRAIN: u64 = 256 * 1024;

/// The parser of a connection, and what it knows of the request that is being answered.
pub struct Codec {
    origin: Origin,
    body_limit: u64,
    pub request: Current,
    /// Those of the last body that had any.
    trailers: Trailers,
}

/// The request that is being answered.
#[derive(Default)]
pub struct Current {
    pub version: Version,
    /// Whether its method is HEAD, so that its answer has no body.
    pub is_head: bool,
    pub body: Rest,
    chunks: Chunks,
    /// Whether the client keeps its body back until it is asked for it.
    pub is_kept_back: bool,
    /// Whether somebody may still read the body.
    pub has_reader: bool,
    is_answered: bool,
    /// Whether the connection can be used again behind it, as far as the client and the answer say so.
    is_kept: bool,
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
    pub fn new(origin: Origin, body_limit: u64) -> Codec {
        Codec { origin, body_limit, request: Current::default(), trailers: Trailers::NONE }
    }

    /// The next request, if all of its head is in `input`.
    pub fn message(&mut self, input: &mut BytesMut) -> Option<Message> {
        if input.is_empty() {
            return None;
        }
        let (request, n_head, rest) = match parse(input, self.origin) {
            Ok(parsed) => parsed?,
            Err(status) => return Some(Message::Refused(status)),
        };
        input.advance(n_head);
        self.request = Current {
            version: request.version,
            is_head: request.method == Method::HEAD,
            body: rest,
            is_kept_back: request.expects_continue && input.is_empty() && rest != Rest::Nothing,
            is_kept: request.is_kept_alive(),
            ..Current::default()
        };
        let body = self.whole(input);
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
            Rest::Nothing => Poll::Ready(None),
            Rest::Broken => Poll::Ready(Some(Err(PayloadError::Incomplete(None)))),
            Rest::Chunks => self.chunk(input),
            Rest::Length(_) if input.is_empty() => Poll::Pending,
            Rest::Length(left) => {
                let piece = input.split_to(input.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                self.read(piece.len() as u64);
                Poll::Ready(Some(Ok(piece.freeze())))
            }
        }
    }

    /// How much of the body is left, if that may be read past the codec.
    pub fn raw(&self) -> Option<usize> {
        match self.request.body {
            Rest::Length(left) if !self.request.is_kept_back => {
                Some(usize::try_from(left).unwrap_or(usize::MAX))
            }
            _ => None,
        }
    }

    /// So many bytes of the body have been read past the codec.
    pub fn read(&mut self, n_bytes: u64) {
        if let Rest::Length(left) = &mut self.request.body {
            *left -= n_bytes;
            if *left == 0 {
                self.request.body = Rest::Nothing;
            }
        }
    }

    fn chunk(&mut self, input: &mut BytesMut) -> Poll<Option<Result<Bytes, PayloadError>>> {
        let next = ready!(self.request.chunks.next(input, self.body_limit, &mut self.trailers));
        match next {
            None => self.request.body = Rest::Nothing,
            Some(Err(_)) => self.request.body = Rest::Broken,
            Some(Ok(_)) => {}
        }
        Poll::Ready(next.map(|piece| {
            piece.map_err(|refused| match refused {
                chunks::Refused::Malformed => PayloadError::EncodingCorrupted,
                chunks::Refused::TooLarge => PayloadError::Overflow,
            })
        }))
    }

    /// Takes what has come behind the body, if all of that has been read.
    pub fn trailers(&mut self) -> Trailers {
        let has_any = self.is_read() && self.request.chunks.has_trailers();
        if has_any { std::mem::take(&mut self.trailers) } else { Trailers::NONE }
    }

    /// Writes the head of a response.
    #[inline]
    pub fn begin(&mut self, head: &ResponseHead, size: BodySize, output: &mut BytesMut) {
        self.request.is_answered = true;
        self.request.is_kept &= !head.is_last;
        let framing = Framing { version: self.request.version, size, is_kept: self.request.is_kept };
        encode(head, framing, output);
    }

    /// Whether the client must be told now to send its body: once at most, and not after its answer has begun.
    pub fn take_expectation(&mut self) -> bool {
        std::mem::take(&mut self.request.is_kept_back) && !self.request.is_answered
    }

    /// Whether all of the request has been read.
    pub fn is_read(&self) -> bool {
        self.request.body == Rest::Nothing
    }

    /// Whether the heads of request and response let the client use the connection again.
    pub fn is_kept(&self) -> bool {
        self.request.is_kept
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
