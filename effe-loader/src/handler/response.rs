//! The lambda's answers as they are sent: whole, or while they are being written.

use std::sync::Arc;

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;
use http::{Method, StatusCode};

use super::failure::Failure;
use crate::{
    body::{
        outgoing::{Body, Producer, Stream, Upgrade},
        sender::{self, BodySender},
        trailers::Trailers,
    },
    exchange::response::ResponseBuilder,
    http::response::Response,
    message::{request::RequestHead, response::ResponseHead},
};

/// The lambda's answer, if it gave one; the failure if there is no room to hold it.
pub fn respond(builder: &mut ResponseBuilder, request: &RequestHead) -> Option<Result<Response, Failure>> {
    if builder.is_unusual() {
        return unusual(builder, request);
    }
    usual(builder, request).map(Ok)
}

#[inline]
fn usual(builder: &mut ResponseBuilder, request: &RequestHead) -> Option<Response> {
    let length = builder.length;
    let Some((status, body)) = builder.take() else { return upgrade(builder) };
    let body = match length {
        // For a HEAD the lambda may say how long the answer to a GET would be, and needn't make it.
        Some(length) if body.is_empty() && request.method == Method::HEAD => Body::Absent(Some(length)),
        _ => Body::Whole(body),
    };
    Some(Response::new(status, builder.fields(), body))
}

/// An answer that there is no room for, or that has more than a head and a body.
#[cold]
fn unusual(builder: &mut ResponseBuilder, request: &RequestHead) -> Option<Result<Response, Failure>> {
    if builder.has_no_room() {
        return Some(Err(Failure::NoRoom));
    }
    let extras = builder.take_extras().unwrap_or_default();
    let mut response = usual(builder, request)?;
    if !extras.trailers.is_empty() {
        if let Some(announced) = extras.announced {
            response.head.fields_mut().append("trailer", &announced);
        }
        let trailers = extras.trailers;
        response = response.map_body(|body| match body {
            Body::Whole(bytes) => Body::Stream(Box::new(Stream::complete(bytes, BodySize::Stream, trailers))),
            body => body,
        });
    }
    Some(Ok(informed(response, extras.interims)))
}

/// The same answer, behind interim responses.
pub fn informed(response: Response, interims: Vec<ResponseHead>) -> Response {
    if interims.is_empty() {
        return response;
    }
    response.map_body(|body| {
        let size = body.size();
        let mut stream = match body {
            Body::Stream(stream) => stream,
            Body::Whole(bytes) => Box::new(Stream::complete(bytes, size, Trailers::NONE)),
            Body::Absent(_) => Box::new(Stream::complete(Bytes::new(), size, Trailers::NONE)),
            // They are hints for an answer that this client doesn't wait for.
            upgrade @ Body::Upgrade(_) => return upgrade,
        };
        stream.interims.splice(0..0, interims);
        Body::Stream(stream)
    })
}

/// A 101, if that is the lambda's answer.
#[cold]
fn upgrade(builder: &mut ResponseBuilder) -> Option<Response> {
    let upgrade = Upgrade { end: *builder.take_upgraded()?, run: None, guard: None };
    let body = Body::Upgrade(Box::new(upgrade));
    Some(Response::new(StatusCode::SWITCHING_PROTOCOLS, builder.fields(), body))
}

/// An answer whose body is still being written.
pub fn stream(
    request: &RequestHead,
    head: sender::Head,
    sender: Arc<BodySender>,
    producer: Option<Box<dyn Producer>>,
) -> Response {
    let sender::Head { status, fields, length } = head;
    let has_body = request.method != Method::HEAD
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let body = if has_body {
        Body::Stream(Box::new(Stream::new(sender, length, producer)))
    } else {
        // Nobody wants the rest.
        sender.pipe.close();
        Body::Absent(length)
    };
    Response::new(status, fields, body)
}
