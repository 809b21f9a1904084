//! A WebSocket that is awaited.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use tungstenite::{Bytes, Message};

use super::{
    accepts::Accepts,
    handshake,
    socket::{Limits, Socket, closing},
};
use crate::{async_response::AsyncResponse, error::Result, request::Request};

/// How long a client that has been told to close may take to agree.
const AGREE: Duration = Duration::from_secs(5);

impl Accepts for AsyncResponse<'_> {
    type Socket = AsyncWebSocket;

    #[track_caller]
    fn accept(&mut self, request: &Request, limits: Limits) -> Result<AsyncWebSocket> {
        let stream = handshake::accept(request, self)?;
        Ok(AsyncWebSocket(Socket::new(stream, limits)))
    }
}

/// A [`WebSocket`](super::WebSocket) that is awaited; made by [`Request::websocket`] of an async lambda. It may outlive
/// its run in a task. Needs the features `websocket` and `async`.
pub struct AsyncWebSocket(Socket);

impl AsyncWebSocket {
    /// The next message, text or binary; `None` once the socket is closed in order. A call that is dropped while it
    /// waits loses nothing, so that this can stand in a `select!`.
    ///
    /// # Errors
    /// As [`WebSocket::receive`](super::WebSocket::receive).
    pub async fn receive(&mut self) -> io::Result<Option<Message>> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Message>>> {
        self.0.inner.get_mut().wake(cx.waker());
        loop {
            match self.0.receive() {
                None => {}
                Some(Err(err)) if err.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Some(received) => return Poll::Ready(received),
            }
        }
    }

    /// Sends a message. Waits while the client is slow. A call that is dropped while it waits has sent its message
    /// nevertheless, or will with the next call.
    ///
    /// # Errors
    /// The socket is closed.
    pub async fn send(&mut self, message: impl Into<Message>) -> io::Result<()> {
        let mut message = Some(message.into());
        poll_fn(|cx| {
            self.0.inner.get_mut().wake(cx.waker());
            if let Some(message) = message.take() {
                self.0.begin(message)?;
            }
            match self.0.flush() {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                flushed => Poll::Ready(flushed),
            }
        })
        .await
    }

    /// Sends a ping, of at most 125 bytes, which the client must answer.
    ///
    /// # Errors
    /// As [`send`](AsyncWebSocket::send).
    pub async fn ping(&mut self, bytes: impl Into<Bytes>) -> io::Result<()> {
        self.send(Message::Ping(bytes.into())).await
    }

    /// Closes the socket with a code, 1000 for "all is done", and a reason of at most 123 bytes; then receives until
    /// the client agrees, for which it has five seconds.
    ///
    /// # Errors
    /// The connection broke before that, or the client has not agreed in time.
    pub async fn close(mut self, code: u16, reason: &str) -> io::Result<()> {
        self.send(closing(code, reason)).await?;
        let agreed = async {
            while self.receive().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(AGREE, agreed).await.map_err(|_| io::ErrorKind::TimedOut)?
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
