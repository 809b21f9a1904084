//! The paths of the admin listener: what it shows, and the orders that it takes. Answers are JSON, except for probes
//! and metrics.

use std::str;

use actix_http::{
    ConnectionType, Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{access::Refused, metrics, operations::Operations};
use crate::{
    body::{
        incoming::Incoming,
        outgoing::Body,
        upload::{self, Upload},
    },
    effe::health::Probe,
    journal::Severity,
    net::private_listener::CLIENT_TIMEOUTS,
    process::control::Change,
};

/// Bytes of a request body.
const MAX_BODY: usize = 1024;

pub async fn answer(admin: &dyn Operations, request: &Request, incoming: Incoming) -> Response<Body> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let orders = *request.method() == Method::POST;
    match request.path() {
        "/state" if reads => json(StatusCode::OK, &admin.state().await),
        "/info" if reads => with_type(StatusCode::OK, "application/json", admin.info().await),
        "/metrics" if reads => show_metrics(admin, request).await,
        "/log-level" if reads => show_level(admin),
        "/log-level" if orders => set_level(admin, request, incoming).await,
        "/swap" if orders => change(admin, Change::Reload).await,
        "/rollback" if orders => change(admin, Change::RollBack).await,
        "/upgrade" if orders => change(admin, Change::Upgrade).await,
        "/drain" if orders => {
            admin.drain();
            json(StatusCode::ACCEPTED, &json!({ "state": "draining" }))
        }
        "/log-level" => not_allowed("GET, HEAD, POST"),
        "/swap" | "/rollback" | "/upgrade" | "/drain" => not_allowed("POST"),
        "/state" | "/info" | "/metrics" => not_allowed("GET, HEAD"),
        path => match Probe::at(path) {
            Some(probe) if reads => answer_probe(admin, probe).await,
            Some(_) => not_allowed("GET, HEAD"),
            None => nothing(),
        },
    }
}

/// Answers a request that is refused, and closes the connection: its place is for those who may ask.
pub fn refuse(refused: Refused) -> Response<Body> {
    let status = match refused {
        Refused::Token => StatusCode::UNAUTHORIZED,
        Refused::Host | Refused::Origin | Refused::NoToken => StatusCode::FORBIDDEN,
    };
    let mut response = failed(status, &refused.to_string());
    response.head_mut().set_connection_type(ConnectionType::Close);
    if refused == Refused::Token {
        response.head_mut().headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Answers a request that breaks a rule of HTTP, and closes the connection.
pub fn malformed() -> Response<Body> {
    let mut response = failed(StatusCode::BAD_REQUEST, "the request breaks a rule of HTTP");
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

async fn show_metrics(admin: &dyn Operations, request: &Request) -> Response<Body> {
    let accepts = request.head().headers.get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    match metrics::text(admin.scrape().await, accepts) {
        Ok((text, content_type)) => with_type(StatusCode::OK, content_type, text),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written"),
    }
}

async fn answer_probe(admin: &dyn Operations, probe: Probe) -> Response<Body> {
    let plain = "text/plain; charset=utf-8";
    let ready = match probe {
        Probe::Readiness => admin.readiness().await,
        Probe::Liveness => Ok(()),
    };
    match ready {
        Ok(()) => with_type(StatusCode::OK, plain, "ok\n"),
        Err(why) => with_type(StatusCode::SERVICE_UNAVAILABLE, plain, format!("not ready: {why}\n")),
    }
}

fn show_level(admin: &dyn Operations) -> Response<Body> {
    json(StatusCode::OK, &json!({ "level": admin.level().as_str() }))
}

async fn set_level(admin: &dyn Operations, request: &Request, incoming: Incoming) -> Response<Body> {
    let body = match Upload::read(incoming, request.head(), MAX_BODY, CLIENT_TIMEOUTS.read).await {
        Ok(body) => body,
        Err(upload::Refused::TooLarge) => {
            return failed(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
        }
        Err(upload::Refused::NoRoom) => {
            return failed(StatusCode::SERVICE_UNAVAILABLE, "there is no room for the body");
        }
        Err(upload::Refused::Slow) => return failed(StatusCode::REQUEST_TIMEOUT, "the body takes too long"),
        Err(upload::Refused::Malformed) => return failed(StatusCode::BAD_REQUEST, "the body is malformed"),
    };
    let level = str::from_utf8(&body).map_err(|_| "the body is no text".to_owned());
    match level.and_then(|level| level.trim().parse::<Severity>()) {
        Ok(level) => {
            admin.set_level(level);
            show_level(admin)
        }
        Err(err) => failed(StatusCode::BAD_REQUEST, &err),
    }
}

/// Orders a change and waits for its outcome. The client can't choose what is loaded: the order holds nothing of the
/// request.
async fn change(admin: &dyn Operations, change: Change) -> Response<Body> {
    match admin.change(change).await {
        Some(Ok(changed)) => {
            json(StatusCode::OK, &json!({ "generation": changed.generation, "swapped": changed.swapped }))
        }
        Some(Err(why)) => failed(StatusCode::UNPROCESSABLE_ENTITY, &why),
        None => failed(StatusCode::CONFLICT, "the effe is on its way out, or not up yet"),
    }
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = failed(StatusCode::METHOD_NOT_ALLOWED, &format!("what is here takes {methods}"));
    response.head_mut().headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

fn nothing() -> Response<Body> {
    failed(
        StatusCode::NOT_FOUND,
        "there are GET /state, /info, /metrics, /health/liveness, /health/readiness, /log-level; \
         POST /swap, /rollback, /upgrade, /drain, /log-level",
    )
}

fn failed(status: StatusCode, error: &str) -> Response<Body> {
    json(status, &json!({ "error": error }))
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    with_type(status, "application/json", value.to_string())
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::with_body(status, Body::Whole(body.into()));
    let headers = &mut response.head_mut().headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // It may be out of date a moment later.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
