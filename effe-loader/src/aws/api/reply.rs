//! Answers of Lambda's API: results, and errors in AWS's own shapes.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::{body::outgoing::Body, http::response::Response, message::fields::checked};

/// Why a request gets no invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    /// `ResourceNotFoundException`
    pub kind: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, message: message.into() }
    }

    pub fn content(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "InvalidRequestContentException", message)
    }

    pub fn parameter(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "InvalidParameterValueException", message)
    }

    pub fn busy() -> ApiError {
        ApiError::new(429, "TooManyRequestsException", "Rate Exceeded.")
    }

    pub fn too_large(n_bytes: u64, limit: usize, kind: &str) -> ApiError {
        let text = format!(
            "{n_bytes} byte payload is too large for the {kind} invocation type (limit {limit} bytes)"
        );
        ApiError::new(413, "RequestTooLargeException", text)
    }

    pub fn response(&self) -> Response {
        let who = if self.status >= 500 { "Service" } else { "User" };
        let mut body = json!({"Type": who, "Message": self.message, "message": self.message});
        if self.status == 429 {
            body["Reason"] = "ConcurrentInvocationLimitExceeded".into();
        }
        let mut response = json_response(self.status, body.to_string().into());
        response.set("x-amzn-errortype", self.kind);
        response
    }
}

pub fn json_response(status: u16, body: Bytes) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = if status == StatusCode::NO_CONTENT { Body::Absent(None) } else { Body::Whole(body) };
    let mut response = Response::bare(status, body);
    response.set("content-type", "application/json");
    response
}

/// Sets a header of ours, whose value is left out if no header can have it.
pub fn set(response: &mut Response, name: &'static str, value: &str) {
    if checked(name.as_bytes(), value.as_bytes()).is_some() {
        response.set(name, value);
    }
}
