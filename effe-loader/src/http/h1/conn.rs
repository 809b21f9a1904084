//! A connection as HTTP/1.1 uses it: its parser and its two buffers together. It gives out requests and pieces of their
//! bodies, and takes answers; `h1` decides in which order.

use std::{
    cell::RefCell,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::{body::BodySize, error::PayloadError};
use bytes::Bytes;
use futures_core::Stream;
use http::{StatusCode, Version};
use tokio::io::AsyncWrite;

use super::{
    codec::{Codec, Message},
    encode::encode_interim,
    parse::{Origin, Rest},
    read_buf::{Fill, LARGE_READ, ReadBuf},
    write_buf::WriteBuf,
};
use crate::{
    body::{incoming::Source, trailers::Trailers},
    message::response::ResponseHead,
    net::{
        activity::ConnActivity,
        connection::Connection,
        connections::{CloseReason, ConnHandle},
    },
};

/// Bytes that are left of a body of which they are read through the buffer.
const SHORT: usize = 16 * 1024;

/// Bytes that are read ahead of what is being answered.
const MAX_AHEAD: usize = 64 * 1024;

/// The connection is closed: nothing more is read or sent.
pub struct Closed;

pub struct Conn {
    connection: Connection,
    pub input: ReadBuf,
    pub codec: Codec,
    pub output: WriteBuf,
}

impl Conn {
    pub fn new(connection: Connection, peer: Option<SocketAddr>, body_limit: u64) -> Conn {
        let codec = Codec::new(Origin { is_tls: connection.is_tls(), peer }, body_limit);
        Conn { connection, input: ReadBuf::new(), codec, output: WriteBuf::default() }
    }

    /// The next request, if it is here.
    pub fn message(&mut self) -> Option<Message> {
        self.codec.message(&mut self.input.bytes)
    }

    /// Reads until there may be a message; `None` if there may be one now.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Closed>> {
        Poll::Ready(match ready!(self.poll_fill(cx)) {
            Fill::Bytes => Ok(None),
            Fill::End | Fill::Overdue(CloseReason::Idle) => Ok(Some(Message::End)),
            Fill::Overdue(CloseReason::Late) if !self.input.bytes.is_empty() => {
                Ok(Some(Message::Refused(StatusCode::REQUEST_TIMEOUT)))
            }
            Fill::Overdue(CloseReason::Late) | Fill::Failed(_) => Err(Closed),
        })
    }

    /// The next piece of the body, or its end. A client that waits to be asked for its body is asked.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            if let Poll::Ready(piece) = self.codec.piece(&mut self.input.bytes) {
                return Poll::Ready(piece);
            }
            if self.codec.take_expectation() {
                self.output.text().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // An error shows when something is read.
                let _ = self.output.poll_flush(&mut self.connection, cx);
            }
            if self.codec.raw().is_some_and(|left| left > SHORT) && self.input.bytes.is_empty() {
                return self.poll_large(cx).map(Some);
            }
            let err = match ready!(self.poll_fill(cx)) {
                Fill::Bytes => continue,
                Fill::End | Fill::Overdue(_) => PayloadError::Incomplete(None),
                Fill::Failed(err) => PayloadError::Io(err),
            };
            self.codec.request.body = Rest::Broken;
            return Poll::Ready(Some(Err(err)));
        }
    }

    /// Reads a piece of a body straight to where it stays.
    fn poll_large(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, PayloadError>> {
        let left = self.codec.raw().unwrap_or_default();
        let mut piece = Vec::with_capacity(left.min(LARGE_READ));
        Poll::Ready(match ready!(self.poll_read(&mut piece, cx)) {
            Some(Ok(_)) => {
                // A client that sends little at a time fills no more memory than that.
                piece.shrink_to_fit();
                Ok(piece.into())
            }
            Some(Err(err)) => Err(err),
            None => Err(PayloadError::Incomplete(None)),
        })
    }

    /// Reads what is next of a body straight into the room that `to` has; how many bytes. `None` if the next ones are not
    /// to be had so.
    pub fn poll_read(
        &mut self,
        to: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<usize, PayloadError>>> {
        let Some(left) = self.codec.raw().filter(|_| self.input.bytes.is_empty()) else {
            return Poll::Ready(None);
        };
        let before = to.len();
        let err = match ready!(self.input.poll_read(&mut self.connection, to, left, cx)) {
            Fill::Bytes => {
                let n = to.len() - before;
                self.codec.read(n as u64);
                return Poll::Ready(Some(Ok(n)));
            }
            Fill::End | Fill::Overdue(_) => PayloadError::Incomplete(None),
            Fill::Failed(err) => PayloadError::Io(err),
        };
        self.codec.request.body = Rest::Broken;
        Poll::Ready(Some(Err(err)))
    }

    /// Reads what comes while a request is being answered, unless that is its body or too much; what isn't read is only
    /// watched. Ready if the client has left.
    pub fn poll_look_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        while self.codec.is_read() && !self.input.is_at_end && self.input.bytes.len() < MAX_AHEAD {
            match ready!(self.poll_fill(cx)) {
                Fill::Bytes => {}
                Fill::End | Fill::Overdue(CloseReason::Idle) => break,
                Fill::Overdue(CloseReason::Late) | Fill::Failed(_) => return Poll::Ready(Closed),
            }
        }
        if self.input.is_at_end { Poll::Pending } else { self.connection.poll_left(cx).map(|()| Closed) }
    }

    /// Reads some of what comes and forgets it; `None` if nothing more comes, or the effe stops and the connection has
    /// had the grace of one that idles.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        self.input.bytes.clear();
        Poll::Ready(match ready!(self.poll_fill(cx)) {
            Fill::Bytes => {
                self.connection.activity().rest();
                self.connection.handle().close_reason().is_none().then_some(())
            }
            Fill::End | Fill::Overdue(_) | Fill::Failed(_) => None,
        })
    }

    /// Writes the heads of interim responses. A client of HTTP/1.0 doesn't know them (RFC 9110, section 15.2).
    pub fn inform(&mut self, interims: &[ResponseHead]) {
        if self.codec.request.version < Version::HTTP_11 {
            return;
        }
        interims.iter().for_each(|head| encode_interim(head, self.output.text()));
    }

    /// Writes the head of a response.
    #[inline]
    pub fn begin(&mut self, head: &ResponseHead, size: BodySize) {
        self.codec.begin(head, size, self.output.text());
    }

    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.output.poll_flush(&mut self.connection, cx).map_err(|_| Closed)
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.connection).poll_shutdown(cx).map_err(|_| Closed)
    }

    /// Whether no unread input is left, and none can be on its way: closing the connection loses nothing. In another
    /// protocol a client may say more at any time.
    pub fn is_silent(&self) -> bool {
        let is_http = self.activity().tunnel.get().is_none();
        self.input.is_at_end || (is_http && self.input.bytes.is_empty() && self.codec.is_read())
    }

    /// The answer breaks off. If its end would look like the end of a whole one, the connection is reset.
    pub fn abort(&self) {
        if self.output.ends_by_close() {
            self.connection.reset();
        }
    }

    /// Ready once the connection is broken; what has come is left in the socket.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.poll_left(cx)
    }

    pub fn activity(&self) -> &Rc<ConnActivity> {
        self.connection.activity()
    }

    pub fn handle(&self) -> &ConnHandle {
        self.connection.handle()
    }

    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Fill> {
        self.input.poll_fill(&mut self.connection, cx)
    }
}

/// The body of the request that is being answered, for its reader.
pub struct Pieces(Rc<RefCell<Conn>>);

impl Pieces {
    /// To be called once for each request that has a body.
    pub fn of(conn: &Rc<RefCell<Conn>>) -> Pieces {
        conn.borrow_mut().codec.request.has_reader = true;
        Pieces(Rc::clone(conn))
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_piece(cx)
    }
}

impl Source for Pieces {
    fn poll_read(
        self: Pin<&mut Self>,
        body: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<usize, PayloadError>>> {
        self.0.borrow_mut().poll_read(body, cx)
    }

    fn trailers(self: Pin<&mut Self>) -> Trailers {
        self.0.borrow_mut().codec.trailers()
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.0.borrow_mut().codec.request.has_reader = false;
    }
}
