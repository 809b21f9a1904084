//! One request: its body is read, the lambda is run, the answer goes out. Every failure becomes a status here.

use std::{pin::Pin, rc::Rc, sync::Arc};

use actix_http::{
    Payload, Request, Response, StatusCode,
    error::PayloadError,
    header::{self, HeaderValue},
};
use bytes::{Bytes, BytesMut};

use crate::{
    call::{Call, Desk},
    effe::Effe,
    server::Drain,
};

/// What a client is told when there is no answer of the lambda's: a status and a fixed sentence. Never an error's
/// own text, which is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The lambda failed, and the log says how.
    Lambda,
    /// As many requests as may be are running and waiting.
    Busy,
    /// The body is larger than the operator's limit.
    TooLarge,
    /// The body broke off or was not what its head says.
    Malformed,
}

impl Failure {
    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Failure::Lambda => (StatusCode::INTERNAL_SERVER_ERROR, "the lambda failed\n"),
            Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again\n"),
            Failure::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large\n"),
            Failure::Malformed => (StatusCode::BAD_REQUEST, "the request body is malformed\n"),
        }
    }
}

/// What one thread of the server has to answer requests with.
pub struct Handler {
    pub effe: Arc<Effe>,
    pub desk: Rc<Desk>,
    pub body_limit: usize,
    pub drain: Arc<Drain>,
}

impl Handler {
    /// Answers one request.
    pub async fn handle(&self, mut request: Request) -> Response<Bytes> {
        let _running = self.effe.begin();
        let mut response = match self.answer(&mut request).await {
            Ok(response) => response,
            Err(failure) => failed(failure),
        };
        if self.drain.is_on() {
            response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
        }
        response
    }

    async fn answer(&self, request: &mut Request) -> Result<Response<Bytes>, Failure> {
        let body = read_body(request, self.body_limit).await?;
        let mut call = self.desk.call();
        call.head.take(request.head());
        call.body = body;
        let asked = self.desk.ask(call, |call| self.effe.run_on_pool(call));
        let mut call = match asked {
            Ok(asked) => asked.await,
            Err(call) => {
                self.desk.keep(call);
                return Err(Failure::Busy);
            }
        };
        let response = respond(&mut call);
        self.desk.keep(call);
        response.ok_or(Failure::Lambda)
    }
}

/// The lambda's answer, if it gave one.
fn respond(call: &mut Call) -> Option<Response<Bytes>> {
    let (status, headers, body) = call.answer.take()?;
    let mut response = Response::with_body(status, body);
    let head = response.head_mut();
    for (name, value) in headers {
        head.headers.append(name, value);
    }
    Some(response)
}

fn failed(failure: Failure) -> Response<Bytes> {
    let (status, text) = failure.answer();
    let mut response = Response::with_body(status, Bytes::from_static(text.as_bytes()));
    let head = response.head_mut();
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if failure == Failure::Busy {
        head.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if failure == Failure::TooLarge {
        // What is left of the body is not read, so the connection can't be used again.
        head.set_connection_type(actix_http::ConnectionType::Close);
    }
    response
}

/// The whole body, without a copy if it comes in one piece.
async fn read_body(request: &mut Request, limit: usize) -> Result<Bytes, Failure> {
    if let Payload::None = request.payload() {
        return Ok(Bytes::new());
    }
    let announced = request.head().headers.get(header::CONTENT_LENGTH);
    let announced =
        announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Failure::TooLarge);
    }
    let mut payload = request.take_payload();
    let Some(first) = next(&mut payload).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(Failure::TooLarge);
    }
    let Some(second) = next(&mut payload).await? else { return Ok(first) };
    let mut body = BytesMut::with_capacity(announced.unwrap_or(first.len() + second.len()));
    body.extend_from_slice(&first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        if body.len() + bytes.len() > limit {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&bytes);
        piece = next(&mut payload).await?;
    }
    Ok(body.freeze())
}

async fn next(payload: &mut Payload) -> Result<Option<Bytes>, Failure> {
    use futures_core::Stream;
    let piece = std::future::poll_fn(|context| Pin::new(&mut *payload).poll_next(context)).await;
    piece.transpose().map_err(|err| match err {
        PayloadError::Overflow => Failure::TooLarge,
        _ => Failure::Malformed,
    })
}
