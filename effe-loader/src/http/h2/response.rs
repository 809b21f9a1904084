//! Sends an answer of a `Service` over HTTP/2, no faster than the client takes it.

use std::{cell::RefCell, future::poll_fn, mem, pin::pin, task::Poll};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{
    body::{
        min_rate::MinRate,
        outgoing::{Body, BodySize},
        trailers::Trailers,
    },
    http::response::Response,
    message::response::ResponseHead,
    net::connections::ConnHandle,
    rt::date,
};

/// Bytes of an answer that is short: it is handed to h2 at once, whether or not the client has room for it.
const SHORT: usize = 16 * 1024;

/// Bytes that room is asked for at a time: more would take room from the other answers of the connection.
const PIECE: usize = 64 * 1024;

/// What HTTP/1.1 says of a connection, and HTTP/2 in frames (RFC 9113, section 8.2.2); and the length, which is told
/// from the body.
const NOT_SENT: [&str; 6] =
    ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "content-length"];

/// Tells a client to send the body that it keeps back. If this fails, the client has left.
pub fn go_on(respond: &mut SendResponse<Bytes>) {
    let mut interim = http::Response::new(());
    *interim.status_mut() = StatusCode::CONTINUE;
    let _ = respond.send_informational(interim);
}

/// Sends interim responses. If this fails, the client has left.
pub fn inform(respond: &mut SendResponse<Bytes>, interims: &[ResponseHead]) {
    for ResponseHead { status, fields, .. } in interims {
        let mut interim = http::Response::new(());
        *interim.status_mut() = *status;
        put(interim.headers_mut(), fields.iter());
        let _ = respond.send_informational(interim);
    }
}

/// Trailers as h2 has them; `None` if there are none.
fn fields(trailers: &Trailers) -> Option<HeaderMap> {
    let mut fields = HeaderMap::with_capacity(trailers.iter().len());
    put(&mut fields, trailers.iter());
    (!fields.is_empty()).then_some(fields)
}

/// Adds fields that were checked before, without those that HTTP/2 doesn't send. Their values share one block.
fn put<'a>(headers: &mut HeaderMap, fields: impl ExactSizeIterator<Item = (&'a str, &'a [u8])> + Clone) {
    let mut block = BytesMut::with_capacity(fields.clone().map(|(_, value)| value.len()).sum());
    for (name, value) in fields {
        if NOT_SENT.contains(&name) {
            continue;
        }
        block.extend_from_slice(value);
        let value = HeaderValue::from_maybe_shared(block.split().freeze());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            headers.append(name, value);
        }
    }
}

/// Whether an answer can be handed to h2 at once.
pub fn is_short(response: &Response) -> bool {
    match &response.body {
        Body::Whole(bytes) => bytes.len() <= SHORT,
        Body::Absent(_) => true,
        Body::Stream(stream) => {
            stream.interims.is_empty() && stream.held().is_some_and(|bytes| bytes.len() <= SHORT)
        }
        Body::Upgrade(_) => false,
    }
}

/// Sends an answer that is short.
pub fn send_short(response: Response, mut respond: SendResponse<Bytes>, is_head: bool) {
    let head = head(&response.head, &response.body);
    let (body, trailers) = match response.body {
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
pub async fn send(response: Response, mut respond: SendResponse<Bytes>, is_head: bool, handle: &ConnHandle) {
    let mut response = response;
    if let Body::Stream(stream) = &mut response.body {
        inform(&mut respond, &mem::take(&mut stream.interims));
    }
    let has_body = !is_head && !matches!(response.head.status.as_u16(), 204 | 304);
    if !has_body || is_short(&response) {
        return send_short(response, respond, is_head);
    }
    let head = head(&response.head, &response.body);
    let Ok(stream) = respond.send_response(head, false) else { return };
    let mut outgoing = Outgoing { stream, handle, n_sent: 0, pace: MinRate::new(handle.write_timeout()) };
    let mut body = pin!(response.body);
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
pub fn switching(head: &ResponseHead) -> http::Response<()> {
    let mut response = self::head(head, &Body::Absent(None));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    response
}

/// The head of an answer.
fn head(head: &ResponseHead, body: &Body) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = head.status;
    let headers = response.headers_mut();
    headers.reserve(head.fields.len() + 2);
    put(headers, head.fields.iter());
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
    headers.insert(header::DATE, date());
    response
}

/// The `Date` header, which each thread makes once a second.
fn date() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<([u8; 29], HeaderValue)> = const { RefCell::new(([0; 29], HeaderValue::from_static(""))) };
    }
    let now = date::now();
    LAST.with_borrow_mut(|(date, value)| {
        if *date != now {
            // It can't fail: a date has visible characters alone.
            (*date, *value) = (now, HeaderValue::from_bytes(&now).unwrap_or(HeaderValue::from_static("")));
        }
        value.clone()
    })
}
