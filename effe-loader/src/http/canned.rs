//! Answers of the server's own: a status and a fixed sentence.

use bytes::Bytes;
use http::StatusCode;

use super::response::Response;
use crate::body::outgoing::Body;

/// A sentence of the server's.
pub fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::bare(status, Body::Whole(Bytes::from_static(text.as_bytes())));
    response.set("content-type", "text/plain; charset=utf-8");
    response
}

/// What is said where our own code has failed: it is the connection's last answer.
pub fn sorry() -> Response {
    let mut response = plain(StatusCode::INTERNAL_SERVER_ERROR, "the server failed\n");
    response.head.is_last = true;
    response
}
