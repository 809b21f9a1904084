//! What both kinds of sockets have in common: when a socket closes, and with which code.

use std::io;

use tungstenite::{
    Message, Utf8Bytes,
    error::{CapacityError, Error as Fault},
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
};

use super::link::Link;
use crate::upgraded::Upgraded;

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

pub(super) fn closing(code: u16, reason: &str) -> Message {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = Utf8Bytes::from(&reason[..end]);
    Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason }))
}

/// What both kinds of sockets have in common: each call does what can be done now. Where something would have to wait,
/// the error is `WouldBlock`, which only a socket that is awaited sees.
pub(super) struct Socket {
    pub(super) inner: tungstenite::WebSocket<Link>,
    pub(super) closed_with: Option<u16>,
    /// Whether the answer to a ping may not have gone yet.
    owes_pong: bool,
    /// Whether the client breaks the protocol: it was told so, and why.
    failed: Option<io::Error>,
}

impl Socket {
    pub(super) fn new(stream: Upgraded, limits: Limits) -> Socket {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(MOST_WAITING)
            .max_message_size(Some(limits.message))
            .max_frame_size(Some(limits.frame));
        let inner = tungstenite::WebSocket::from_raw_socket(Link::new(stream), Role::Server, Some(config));
        Socket { inner, closed_with: None, owes_pong: false, failed: None }
    }

    pub(super) fn stream(&self) -> &Upgraded {
        self.inner.get_ref().stream()
    }

    /// Reads what is next; `None` if that is nothing for the author, or if the effe stops and the client was told so.
    pub(super) fn receive(&mut self) -> Option<io::Result<Option<Message>>> {
        if self.failed.is_some() {
            return Some(self.say_failed());
        }
        // A client that pings and doesn't read is not read from either: else its answers would fill the memory.
        if self.owes_pong {
            match self.inner.flush() {
                Err(Fault::Io(err)) if err.kind() == io::ErrorKind::WouldBlock => return Some(Err(err)),
                // If the connection is broken, the next read says so.
                _ => self.owes_pong = false,
            }
        }
        match self.inner.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => Some(Ok(Some(message))),
            Ok(Message::Close(frame)) => {
                self.closed_with = Some(frame.map_or(1005, |frame| frame.code.into()));
                None
            }
            Ok(message) => {
                self.owes_pong = message.is_ping();
                None
            }
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
    pub(super) fn begin(&mut self, message: Message) -> io::Result<()> {
        match self.inner.write(message) {
            Ok(()) => Ok(()),
            // It is in the buffer, and goes with the next flush.
            Err(Fault::Io(err)) if err.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(fault) => Err(refusal(fault)),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
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
