//! WebSockets (RFC 6455): the handshake, and messages both ways. Needs the feature `websocket`.
//!
//! This file owns when a socket closes, and with which code. Frames and messages are left to `tungstenite`, the handshake
//! to `websocket/handshake.rs`, bytes that can't be read or written now to `websocket/link.rs`, and waiting without a
//! thread to `websocket/awaited.rs`.

#[cfg(feature = "async")]
mod awaited;
mod handshake;
mod link;

use std::io;

use tungstenite::{
    Bytes, Message, Utf8Bytes,
    error::{CapacityError, Error as Fault},
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
};

#[cfg(feature = "async")]
pub use self::awaited::AsyncWebSocket;
use self::link::Link;
use crate::{
    error::{Error, Level, Result},
    request::Request,
    response::Response,
    upgraded::Upgraded,
};

/// Bytes that are read at a time. A socket that idles has so much memory.
const READ_BUFFER: usize = 4 * 1024;

/// Bytes that may wait for a slow client before a message more is refused.
const MOST_WAITING: usize = 64 << 20;

/// What a client may send. A larger message or frame closes the socket with code 1009.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a message, of all its fragments together.
    pub message: usize,
    /// Bytes of a frame.
    pub frame: usize,
}

impl Default for Limits {
    /// 1 MiB each.
    fn default() -> Limits {
        Limits { message: 1 << 20, frame: 1 << 20 }
    }
}

/// An answer that can become a WebSocket: a [`Response`] one whose calls wait on their thread, an `AsyncResponse` one that
/// is awaited.
pub trait Accepts: sealed::Sealed {
    /// What it becomes.
    type Socket;

    #[doc(hidden)]
    fn accept(&mut self, request: &Request, limits: Limits) -> Result<Self::Socket>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::response::Response<'_> {}
    #[cfg(feature = "async")]
    impl Sealed for crate::async_response::AsyncResponse<'_> {}
}

impl Request {
    /// Makes the connection a WebSocket, with the headers that were set on the response; a subprotocol is chosen by
    /// `sec-websocket-protocol`. The lambda must declare [`Options::upgrades`](crate::Options::upgrades). Needs the feature
    /// `websocket`.
    ///
    /// # Errors
    /// The request is no WebSocket handshake, and the response says so: 426 if the client speaks another version or no
    /// WebSocket, 400 if it is malformed. `?` ends the run with that answer, and the log says nothing unless it is at debug.
    /// Or as [`Response::upgrade`].
    #[track_caller]
    pub fn websocket<R: Accepts>(&self, response: &mut R) -> Result<R::Socket> {
        self.websocket_within(response, Limits::default())
    }

    /// As [`websocket`](Request::websocket), with other limits than the default ones.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn websocket_within<R: Accepts>(&self, response: &mut R, limits: Limits) -> Result<R::Socket> {
        response.accept(self, limits)
    }
}

impl Accepts for Response<'_> {
    type Socket = WebSocket;

    #[track_caller]
    fn accept(&mut self, request: &Request, limits: Limits) -> Result<WebSocket> {
        let stream = handshake::accept(request, self)?;
        Ok(WebSocket(Socket::new(stream, limits)))
    }
}

/// A WebSocket whose calls wait on their thread; made by [`Request::websocket`]. It is `Send`, and may outlive its run on a
/// thread of the lambda's own.
///
/// Pings are answered, and the closing handshake is done, while [`receive`](WebSocket::receive) waits. When the effe stops,
/// `receive` closes the socket with code 1001, and gives what the client still has to say before it agrees.
pub struct WebSocket(Socket);

impl WebSocket {
    /// The next message, text or binary; `None` once the socket is closed in order.
    ///
    /// # Errors
    /// The connection is broken, or the client breaks the protocol or a limit; the socket is then closed with the code that
    /// says so.
    pub fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(received) = self.0.receive() {
                return received;
            }
        }
    }

    /// Sends a message. Waits while the client is slow.
    ///
    /// # Errors
    /// The socket is closed.
    pub fn send(&mut self, message: impl Into<Message>) -> io::Result<()> {
        self.0.begin(message.into())?;
        self.0.flush()
    }

    /// Sends a ping, of at most 125 bytes, which the client must answer.
    ///
    /// # Errors
    /// As [`send`](WebSocket::send).
    pub fn ping(&mut self, bytes: impl Into<Bytes>) -> io::Result<()> {
        self.send(Message::Ping(bytes.into()))
    }

    /// Closes the socket with a code, 1000 for "all is done", and a reason of at most 123 bytes; then receives until the
    /// client agrees, or has left.
    ///
    /// # Errors
    /// The connection broke before that.
    pub fn close(mut self, code: u16, reason: &str) -> io::Result<()> {
        self.0.begin(closing(code, reason))?;
        self.0.flush()?;
        while self.receive()?.is_some() {}
        Ok(())
    }

    /// The code with which the client has closed the socket, if it has: 1005 if it gave none.
    pub fn closed_with(&self) -> Option<u16> {
        self.0.closed_with
    }

    /// Whether the effe stops, or the connection is closed.
    pub fn is_cancelled(&self) -> bool {
        self.0.stream().is_cancelled()
    }
}

fn closing(code: u16, reason: &str) -> Message {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = Utf8Bytes::from(&reason[..end]);
    Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason }))
}

/// What both kinds of sockets have in common: each call does what can be done now. Where something would have to wait, the
/// error is `WouldBlock`, which only a socket that is awaited sees.
struct Socket {
    inner: tungstenite::WebSocket<Link>,
    closed_with: Option<u16>,
    /// Whether the client breaks the protocol: it was told so, and why.
    failed: Option<io::Error>,
}

impl Socket {
    fn new(stream: Upgraded, limits: Limits) -> Socket {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(MOST_WAITING)
            .max_message_size(Some(limits.message))
            .max_frame_size(Some(limits.frame));
        let inner = tungstenite::WebSocket::from_raw_socket(Link::new(stream), Role::Server, Some(config));
        Socket { inner, closed_with: None, failed: None }
    }

    fn stream(&self) -> &Upgraded {
        self.inner.get_ref().stream()
    }

    /// Reads what is next; `None` if that is nothing for the author, or if the effe stops and the client was told so.
    fn receive(&mut self) -> Option<io::Result<Option<Message>>> {
        if self.failed.is_some() {
            return Some(self.say_failed());
        }
        match self.inner.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => Some(Ok(Some(message))),
            Ok(Message::Close(frame)) => {
                self.closed_with = Some(frame.map_or(1005, |frame| frame.code.into()));
                None
            }
            Ok(_) => None,
            Err(Fault::ConnectionClosed | Fault::AlreadyClosed) => Some(Ok(None)),
            Err(Fault::Io(_)) if self.inner.get_mut().take_away() => {
                let told = self.inner.close(Some(CloseFrame {
                    code: CloseCode::Away,
                    reason: Utf8Bytes::from_static("going away"),
                }));
                // What can't be sent now is sent with the next read.
                drop(told);
                None
            }
            Err(Fault::Io(err)) => Some(Err(err)),
            Err(fault) => {
                let (code, text) = match &fault {
                    Fault::Capacity(CapacityError::MessageTooLong { .. }) => (CloseCode::Size, "too large"),
                    Fault::Utf8(_) => (CloseCode::Invalid, "text that is no UTF-8"),
                    _ => (CloseCode::Protocol, "a frame that breaks the protocol"),
                };
                self.failed = Some(io::Error::new(io::ErrorKind::InvalidData, fault));
                let _ = self.inner.close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(text) }));
                Some(self.say_failed())
            }
        }
    }

    /// Sends the rest of what tells the client that it has failed, and says why once that has gone.
    fn say_failed(&mut self) -> io::Result<Option<Message>> {
        match self.inner.flush() {
            Err(Fault::Io(err)) if err.kind() == io::ErrorKind::WouldBlock => Err(err),
            _ => {
                self.stream().finish();
                Err(self.failed.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    /// Takes a message to be sent, though not all of it may go now.
    fn begin(&mut self, message: Message) -> io::Result<()> {
        match self.inner.write(message) {
            Ok(()) => Ok(()),
            // It is in the buffer, and goes with the next flush.
            Err(Fault::Io(err)) if err.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(fault) => Err(refusal(fault)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush().map_err(refusal)
    }
}

fn refusal(fault: Fault) -> io::Error {
    match fault {
        Fault::Io(err) => err,
        Fault::ConnectionClosed | Fault::AlreadyClosed => {
            io::Error::new(io::ErrorKind::BrokenPipe, "the socket is closed")
        }
        fault => io::Error::new(io::ErrorKind::InvalidInput, fault),
    }
}

/// The error of a request that is no handshake: its answer is said already, so it is no fault of the lambda's.
#[track_caller]
fn no_handshake(why: &'static str) -> Error {
    Error::new(why).at_level(Level::Debug)
}
