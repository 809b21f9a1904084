//! Answers of the server's own: a status and a fixed sentence.

use actix_http::{
    ConnectionType, Response, StatusCode,
    header::{self, HeaderValue},
};
use bytes::Bytes;

use crate::body::outgoing::Body;

/// A sentence of the server's.
pub fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::with_body(status, Body::Whole(Bytes::from_static(text.as_bytes())));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.head_mut().headers.insert(header::CONTENT_TYPE, plain);
    response
}

/// What is said where our own code has failed: it is the connection's last answer.
pub fn sorry() -> Response<Body> {
    let mut response = plain(StatusCode::INTERNAL_SERVER_ERROR, "the server failed\n");
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}
