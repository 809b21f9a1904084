//! The lambda's answers as they are sent: whole, or while they are being written.

use std::sync::Arc;

use actix_http::{
    Method, Request, Response, StatusCode,
    body::{BodySize, MessageBody},
    header,
};
use bytes::Bytes;

use super::failure::Failure;
use crate::{
    body::{
        outgoing::{Body, Producer, Stream, Upgrade},
        sender::{self, BodySender, Interim},
        trailers::Trailers,
    },
    exchange::response::ResponseBuilder,
};

/// The lambda's answer, if it gave one; the failure if there is no room to hold it.
pub fn respond(builder: &mut ResponseBuilder, request: &Request) -> Option<Result<Response<Body>, Failure>> {
    if builder.is_unusual() {
        return unusual(builder, request);
    }
    usual(builder, request).map(Ok)
}

#[inline]
fn usual(builder: &mut ResponseBuilder, request: &Request) -> Option<Response<Body>> {
    let length = builder.length;
    let Some((status, body)) = builder.take() else { return upgrade(builder) };
    let body = match length {
        // For a HEAD the lambda may say how long the answer to a GET would be, and needn't make it.
        Some(length) if body.is_empty() && request.method() == Method::HEAD => Body::Absent(Some(length)),
        _ => Body::Whole(body),
    };
    Some(with_headers(builder, status, body))
}

/// A response with the headers that the lambda has set.
#[inline]
fn with_headers(builder: &ResponseBuilder, status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::with_body(status, body);
    let head = response.head_mut();
    for (name, value) in &builder.headers {
        head.headers.append(name.clone(), value.clone());
    }
    response
}

/// An answer that there is no room for, or that has more than a head and a body.
#[cold]
fn unusual(builder: &mut ResponseBuilder, request: &Request) -> Option<Result<Response<Body>, Failure>> {
    if builder.has_no_room() {
        return Some(Err(Failure::NoRoom));
    }
    let extras = builder.take_extras().unwrap_or_default();
    let mut response = usual(builder, request)?;
    if !extras.trailers.is_empty() {
        if let Some(announced) = extras.announced {
            response.head_mut().headers.append(header::TRAILER, announced);
        }
        let trailers = extras.trailers;
        response = response.map_body(|_, body| match body {
            Body::Whole(bytes) => Body::Stream(Box::new(Stream::complete(bytes, BodySize::Stream, trailers))),
            body => body,
        });
    }
    Some(Ok(informed(response, extras.interims)))
}

/// The same answer, behind interim responses.
pub fn informed(response: Response<Body>, interims: Vec<Interim>) -> Response<Body> {
    if interims.is_empty() {
        return response;
    }
    response.map_body(|_, body| {
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
fn upgrade(builder: &mut ResponseBuilder) -> Option<Response<Body>> {
    let upgrade = Upgrade { end: *builder.take_upgraded()?, run: None, guard: None };
    Some(with_headers(builder, StatusCode::SWITCHING_PROTOCOLS, Body::Upgrade(Box::new(upgrade))))
}

/// An answer whose body is still being written.
pub fn stream(
    request: &Request,
    head: sender::Head,
    sender: Arc<BodySender>,
    producer: Option<Box<dyn Producer>>,
) -> Response<Body> {
    let sender::Head { status, headers, length } = head;
    let has_body = request.method() != Method::HEAD
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let body = if has_body {
        Body::Stream(Box::new(Stream::new(sender, length, producer)))
    } else {
        // Nobody wants the rest.
        sender.pipe.close();
        Body::Absent(length)
    };
    let mut response = Response::with_body(status, body);
    for (name, value) in headers {
        response.head_mut().headers.append(name, value);
    }
    response
}
