//! Sends an answer of a `Service` over HTTP/2, no faster than the client takes it.

use std::{
    cell::RefCell,
    future::poll_fn,
    mem,
    pin::pin,
    task::Poll,
    time::{SystemTime, UNIX_EPOCH},
};

use actix_http::{
    Response, ResponseHead,
    body::{BodySize, MessageBody},
    header::HttpDate,
};
use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{
    body::{min_rate::MinRate, outgoing::Body, sender::Interim, trailers::Trailers},
    net::connections::ConnHandle,
};

/// Bytes of an answer that is short: it is handed to h2 at once, whether or not the client has room for it.
const SHORT: usize = 16 * 1024;

/// Bytes that room is asked for at a time: more would take room from the other answers of the connection.
const PIECE: usize = 64 * 1024;

/// What HTTP/1.1 says of a connection, and HTTP/2 in frames (RFC 9113, section 8.2.2); and the length, which is told
/// from the body.
const NOT_SENT: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::CONTENT_LENGTH,
];

/// Tells a client to send the body that it keeps back. If this fails, the client has left.
pub fn go_on(respond: &mut SendResponse<Bytes>) {
    let mut interim = http::Response::new(());
    *interim.status_mut() = StatusCode::CONTINUE;
    let _ = respond.send_informational(interim);
}

/// Sends interim responses. If this fails, the client has left.
pub fn inform(respond: &mut SendResponse<Bytes>, interims: Vec<Interim>) {
    for Interim { status, headers } in interims {
        let mut interim = http::Response::new(());
        let Ok(status) = StatusCode::from_u16(status.as_u16()) else { continue };
        *interim.status_mut() = status;
        for (name, value) in headers {
            put(interim.headers_mut(), name.as_str(), value.as_bytes());
        }
        let _ = respond.send_informational(interim);
    }
}

/// Trailers as h2 has them; `None` if there are none.
fn fields(trailers: &Trailers) -> Option<HeaderMap> {
    let mut fields = HeaderMap::with_capacity(trailers.iter().len());
    for (name, value) in trailers.iter() {
        put(&mut fields, name, value);
    }
    (!fields.is_empty()).then_some(fields)
}

/// Adds a field that was checked before.
fn put(fields: &mut HeaderMap, name: &str, value: &[u8]) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
        fields.append(name, value);
    }
}

/// Whether an answer can be handed to h2 at once.
pub fn is_short(response: &Response<Body>) -> bool {
    match response.body() {
        Body::Whole(bytes) => bytes.len() <= SHORT,
        Body::Absent(_) => true,
        Body::Stream(stream) => {
            stream.interims.is_empty() && stream.held().is_some_and(|bytes| bytes.len() <= SHORT)
        }
        Body::Upgrade(_) => false,
    }
}

/// Sends an answer that is short.
pub fn send_short(response: Response<Body>, mut respond: SendResponse<Bytes>, is_head: bool) {
    let Some(head) = head(response.head(), response.body()) else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    let (body, trailers) = match response.into_body() {
        Body::Whole(bytes) if !is_head => (bytes, None),
        Body::Stream(mut stream) if !is_head => {
            let (bytes, trailers) = stream.take_held();
            (bytes, fields(&trailers))
        }
        _ => (Bytes::new(), None),
    };
    // If this fails, the client has left.
    if let Ok(mut stream) = respond.send_response(head, body.is_empty() && trailers.is_none()) {
        if !body.is_empty() {
            let _ = stream.send_data(body, trailers.is_none());
        }
        if let Some(trailers) = trailers {
            let _ = stream.send_trailers(trailers);
        }
    }
}

/// Sends an answer of any length. A client that takes nothing of it for too long gets no more.
pub async fn send(
    response: Response<Body>,
    mut respond: SendResponse<Bytes>,
    is_head: bool,
    handle: &ConnHandle,
) {
    let response = response.map_body(|_, mut body| {
        if let Body::Stream(stream) = &mut body {
            inform(&mut respond, mem::take(&mut stream.interims));
        }
        body
    });
    let has_body = !is_head && !matches!(response.status().as_u16(), 204 | 304);
    if !has_body || is_short(&response) {
        return send_short(response, respond, is_head);
    }
    let Some(head) = head(response.head(), response.body()) else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    let Ok(stream) = respond.send_response(head, false) else { return };
    let mut outgoing = Outgoing { stream, handle, n_sent: 0, pace: MinRate::new(handle.write_timeout()) };
    let mut body = pin!(response.into_body());
    loop {
        let piece = poll_fn(|cx| match outgoing.stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => body.as_mut().poll_next(cx).map(Some),
        });
        let sent = match piece.await {
            // The client has reset the stream; dropping the body tells the run.
            None => return,
            Some(None) => {
                let trailers = body.trailers().and_then(fields);
                return drop(match trailers {
                    Some(trailers) => outgoing.stream.send_trailers(trailers),
                    None => outgoing.stream.send_data(Bytes::new(), true),
                });
            }
            // A body that is not whole must not end as if it were.
            Some(Some(Err(_))) => return outgoing.stream.send_reset(Reason::INTERNAL_ERROR),
            Some(Some(Ok(piece))) => outgoing.send(piece).await,
        };
        if sent.is_none() {
            return;
        }
    }
}

/// A body on its way out.
struct Outgoing<'a> {
    stream: SendStream<Bytes>,
    handle: &'a ConnHandle,
    n_sent: u64,
    pace: MinRate,
}

impl Outgoing<'_> {
    /// Sends a piece as the client has room for it; `None` if nothing more can be sent.
    async fn send(&mut self, mut piece: Bytes) -> Option<()> {
        while !piece.is_empty() {
            self.stream.reserve_capacity(piece.len().min(PIECE));
            let n = self.room().await?.min(piece.len());
            self.stream.send_data(piece.split_to(n), false).ok()?;
            self.n_sent += n as u64;
        }
        Some(())
    }

    async fn room(&mut self) -> Option<usize> {
        let room = poll_fn(|cx| self.stream.poll_capacity(cx));
        let room = tokio::select! {
            biased;
            room = self.pace.wait(self.n_sent, room) => room,
            () = self.handle.scarce() => None,
        };
        let Some(room) = room else {
            self.stream.send_reset(Reason::CANCEL);
            return None;
        };
        room?.ok()
    }
}

/// The head of the answer to an offer that was taken, which HTTP/1.1 would have as a 101 (RFC 8441, section 5).
pub fn switching(head: &ResponseHead) -> Option<http::Response<()>> {
    let mut response = self::head(head, &Body::Absent(None))?;
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    Some(response)
}

/// The head of an answer; `None` if a header can't be sent, which was checked before for those of a lambda.
fn head(head: &ResponseHead, body: &Body) -> Option<http::Response<()>> {
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status.as_u16()).ok()?;
    let headers = response.headers_mut();
    for (name, value) in head.headers.iter() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        if !NOT_SENT.contains(&name) {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
    }
    let has_length = match head.status.as_u16() {
        204 => false,
        304 => matches!(body, Body::Absent(_)),
        _ => true,
    };
    if let BodySize::Sized(length) = body.size()
        && has_length
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date()?);
    }
    Some(response)
}

/// The `Date` header, which each thread writes once a second.
fn date() -> Option<HeaderValue> {
    thread_local! {
        static DATE: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|date| {
        if date.as_ref().is_none_or(|(of, _)| *of != second) {
            *date = Some((second, HeaderValue::try_from(HttpDate::from(now).to_string()).ok()?));
        }
        date.as_ref().map(|(_, value)| value.clone())
    })
}
