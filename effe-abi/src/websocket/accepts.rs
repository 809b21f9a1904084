//! How a request becomes a WebSocket, of whichever kind the lambda is.

use super::socket::Limits;
use crate::{error::Result, request::Request};

/// An answer that can become a WebSocket: a [`Response`](crate::Response) one whose calls wait on their thread, an
/// `AsyncResponse` one that is awaited.
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
    /// `sec-websocket-protocol`. The lambda must declare [`Options::upgrades`](crate::Options::upgrades). Needs the
    /// feature `websocket`.
    ///
    /// # Errors
    /// The request is no WebSocket handshake, and the response says so: 426 if the client speaks another version or no
    /// WebSocket, 400 if it is malformed. `?` ends the run with that answer, and the log says nothing unless it is at
    /// debug. Or as [`Response::upgrade`](crate::Response::upgrade).
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
