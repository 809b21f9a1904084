//! A WebSocket whose calls wait on their thread.

use std::io;

use tungstenite::{Bytes, Message};

use super::{
    accepts::Accepts,
    handshake,
    socket::{Limits, Socket, closing},
};
use crate::{error::Result, request::Request, response::Response};

impl Accepts for Response<'_> {
    type Socket = WebSocket;

    #[track_caller]
    fn accept(&mut self, request: &Request, limits: Limits) -> Result<WebSocket> {
        let stream = handshake::accept(request, self)?;
        Ok(WebSocket(Socket::new(stream, limits)))
    }
}

/// A WebSocket whose calls wait on their thread; made by [`Request::websocket`]. It is `Send`, and may outlive its run
/// on a thread of the lambda's own.
///
/// Pings are answered, and the closing handshake is done, while [`receive`](WebSocket::receive) waits. When the effe
/// stops, `receive` closes the socket with code 1001, and gives what the client still has to say before it agrees.
pub struct WebSocket(Socket);

impl WebSocket {
    /// The next message, text or binary; `None` once the socket is closed in order.
    ///
    /// # Errors
    /// The connection is broken, or the client breaks the protocol or a limit; the socket is then closed with the code
    /// that says so.
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

    /// Closes the socket with a code, 1000 for "all is done", and a reason of at most 123 bytes; then receives until
    /// the client agrees, or has left.
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
