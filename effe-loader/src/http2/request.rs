//! A request of HTTP/2 as our service knows requests.

use std::{
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::{
    HttpMessage, Method, Payload, Request, Uri, Version,
    error::PayloadError,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_core::Stream;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap as Fields, StatusCode};

use crate::connection::Traffic;

/// The same request; `None` for one that breaks a rule which h2 leaves to us.
pub fn translate(
    request: http::Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    peer: Option<SocketAddr>,
) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    if has_body && parts.headers.get(http::header::EXPECT).is_some_and(|value| value == "100-continue") {
        let mut go_on = http::Response::new(());
        *go_on.status_mut() = StatusCode::CONTINUE;
        // A client that has left gets no answer either.
        let _ = respond.send_informational(go_on);
    }
    let payload =
        if has_body { Payload::Stream { payload: Box::pin(Incoming(body)) as _ } } else { Payload::None };
    let mut request = Request::with_payload(payload);
    let head = request.head_mut();
    head.version = Version::HTTP_2;
    head.peer_addr = peer;
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    head.uri = match parts.uri.path_and_query() {
        Some(target) => Uri::try_from(target.as_str()).ok()?,
        // CONNECT has none, and is refused as in HTTP/1.1.
        None => Uri::from_static("/"),
    };
    head.headers = headers(&parts.headers)?;
    if let Some(authority) = parts.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).ok()?;
        // RFC 9113, section 8.3.1: two that differ name two hosts.
        if head.headers.get(header::HOST).is_some_and(|other| !same_host(other, &host)) {
            return None;
        }
        head.headers.insert(header::HOST, host);
    }
    Some(request)
}

/// Says which connection a request has come over; HTTP/1.1 has that for all requests of one.
pub fn name_connection(request: &Request, traffic: &Rc<Traffic>) {
    request.extensions_mut().insert(Rc::clone(traffic));
}

fn same_host(one: &HeaderValue, other: &HeaderValue) -> bool {
    one.as_bytes().eq_ignore_ascii_case(other.as_bytes())
}

fn headers(fields: &Fields) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    // RFC 9113, section 8.2.3: a cookie may come in crumbs, and is one header for everybody else.
    if headers.get_all(header::COOKIE).nth(1).is_some() {
        let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).map(HeaderValue::as_bytes).collect();
        let cookie = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).ok()?;
        headers.insert(header::COOKIE, cookie);
    }
    Some(headers)
}

/// A body as it comes in. The client may send more of it once a piece has been taken.
struct Incoming(RecvStream);

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = match ready!(self.0.poll_data(context)) {
            Some(Ok(piece)) => piece,
            Some(Err(_)) => return Poll::Ready(Some(Err(PayloadError::Incomplete(None)))),
            None => return Poll::Ready(None),
        };
        // It fails for a stream that is no more; the next look says so.
        let _ = self.0.flow_control().release_capacity(piece.len());
        Poll::Ready(Some(Ok(piece)))
    }
}
