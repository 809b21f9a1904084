//! The paths of the admin listener: what it shows, and the orders that it takes. Answers are JSON, except for probes
//! and metrics.

use std::str;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{access::Refused, metrics, operations::Operations};
use crate::{
    body::{
        incoming::Incoming,
        outgoing::Body,
        upload::{self, Upload},
    },
    effe::health::Probe,
    http::response::Response,
    journal::Severity,
    message::request::RequestHead,
    net::private_listener::CLIENT_TIMEOUTS,
    process::control::Change,
};

/// Bytes of a request body.
const MAX_BODY: usize = 1024;

pub async fn answer(admin: &dyn Operations, request: &RequestHead, incoming: Incoming) -> Response {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let orders = request.method == Method::POST;
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
pub fn refuse(refused: Refused) -> Response {
    let status = match refused {
        Refused::Token => StatusCode::UNAUTHORIZED,
        Refused::Host | Refused::Origin | Refused::NoToken => StatusCode::FORBIDDEN,
    };
    let mut response = failed(status, &refused.to_string());
    response.head.is_last = true;
    if refused == Refused::Token {
        response.set("www-authenticate", "Bearer");
    }
    response
}

/// Answers a request that breaks a rule of HTTP, and closes the connection.
pub fn malformed() -> Response {
    let mut response = failed(StatusCode::BAD_REQUEST, "the request breaks a rule of HTTP");
    response.head.is_last = true;
    response
}

async fn show_metrics(admin: &dyn Operations, request: &RequestHead) -> Response {
    let accepts = request.fields.get_all("accept").filter_map(|value| str::from_utf8(value).ok());
    match metrics::text(admin.scrape().await, accepts) {
        Ok((text, content_type)) => with_type(StatusCode::OK, content_type, text),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written"),
    }
}

async fn answer_probe(admin: &dyn Operations, probe: Probe) -> Response {
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

fn show_level(admin: &dyn Operations) -> Response {
    json(StatusCode::OK, &json!({ "level": admin.level().as_str() }))
}

async fn set_level(admin: &dyn Operations, request: &RequestHead, incoming: Incoming) -> Response {
    let body = match Upload::read(incoming, request, MAX_BODY, CLIENT_TIMEOUTS.read).await {
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
async fn change(admin: &dyn Operations, change: Change) -> Response {
    match admin.change(change).await {
        Some(Ok(changed)) => {
            json(StatusCode::OK, &json!({ "generation": changed.generation, "swapped": changed.swapped }))
        }
        Some(Err(why)) => failed(StatusCode::UNPROCESSABLE_ENTITY, &why),
        None => failed(StatusCode::CONFLICT, "the effe is on its way out, or not up yet"),
    }
}

fn not_allowed(methods: &'static str) -> Response {
    let mut response = failed(StatusCode::METHOD_NOT_ALLOWED, &format!("what is here takes {methods}"));
    response.set("allow", methods);
    response
}

fn nothing() -> Response {
    failed(
        StatusCode::NOT_FOUND,
        "there are GET /state, /info, /metrics, /health/liveness, /health/readiness, /log-level; \
         POST /swap, /rollback, /upgrade, /drain, /log-level",
    )
}

fn failed(status: StatusCode, error: &str) -> Response {
    json(status, &json!({ "error": error }))
}

fn json(status: StatusCode, value: &Value) -> Response {
    with_type(status, "application/json", value.to_string())
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::bare(status, Body::Whole(body.into()));
    response.set("content-type", content_type);
    // It may be out of date a moment later.
    response.set("cache-control", "no-store");
    response
}
