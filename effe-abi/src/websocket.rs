//! WebSockets (RFC 6455): the handshake, and messages both ways. Needs the feature `websocket`.
//!
//! `accepts` is what an author calls, `handshake` checks the request, `socket` says when a socket closes and with which
//! code, `blocking` and `awaited` are what the author gets, and `link` is the stream below. Frames and messages are
//! left to `tungstenite`.

mod accepts;
#[cfg(feature = "async")]
mod awaited;
mod blocking;
mod handshake;
mod link;
mod socket;

#[cfg(feature = "async")]
pub use self::awaited::AsyncWebSocket;
pub use self::{accepts::Accepts, blocking::WebSocket, socket::Limits};
