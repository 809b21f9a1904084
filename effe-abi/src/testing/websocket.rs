//! A WebSocket as a test's client speaks it.

use std::io;

use tungstenite::{
    Message,
    error::Error as Fault,
    protocol::{CloseFrame, Role, WebSocket, frame::coding::CloseCode},
};

use super::client::Client;

/// The client's end of a WebSocket; made by [`Effe::websocket`](super::Effe::websocket). Needs the feature `websocket`.
pub struct WebSocketClient {
    socket: WebSocket<Client>,
    closed_with: Option<u16>,
}

impl WebSocketClient {
    /// Over a connection that the lambda has made a WebSocket; [`Effe::websocket`](super::Effe::websocket) does that,
    /// too.
    pub fn over(client: Client) -> WebSocketClient {
        WebSocketClient { socket: WebSocket::from_raw_socket(client, Role::Client, None), closed_with: None }
    }

    /// The client's end below it: the head of the answer, and how the effe stops.
    pub fn client(&self) -> &Client {
        self.socket.get_ref()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The lambda has closed the socket.
    pub fn send(&mut self, message: impl Into<Message>) -> io::Result<()> {
        self.socket.send(message.into()).map_err(failed)
    }

    /// The next message, also a ping's or pong's; `None` once the socket is closed in order.
    ///
    /// # Errors
    /// The lambda breaks the protocol, or has dropped the socket without closing it.
    pub fn receive(&mut self) -> io::Result<Option<Message>> {
        match self.socket.read() {
            Ok(Message::Close(frame)) => {
                self.closed_with = Some(frame.map_or(1005, |frame| frame.code.into()));
                // Agrees.
                match self.socket.flush() {
                    Ok(()) | Err(Fault::ConnectionClosed) => Ok(None),
                    Err(fault) => Err(failed(fault)),
                }
            }
            Ok(message) => Ok(Some(message)),
            Err(Fault::ConnectionClosed | Fault::AlreadyClosed) => Ok(None),
            Err(fault) => Err(failed(fault)),
        }
    }

    /// Closes the socket with a code, and receives until the lambda agrees: the code that it closes with.
    ///
    /// # Errors
    /// As [`receive`](WebSocketClient::receive).
    pub fn close(mut self, code: u16) -> io::Result<Option<u16>> {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.socket.close(Some(frame)).map_err(failed)?;
        while self.receive()?.is_some() {}
        Ok(self.closed_with)
    }

    /// The code with which the lambda has closed the socket, if it has: 1005 if it gave none.
    pub fn closed_with(&self) -> Option<u16> {
        self.closed_with
    }
}

fn failed(fault: Fault) -> io::Error {
    match fault {
        Fault::Io(err) => err,
        fault => io::Error::other(fault),
    }
}
