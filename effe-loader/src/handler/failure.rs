//! Why a request has no answer of the lambda's, and what its client is told instead.

use actix_http::StatusCode;

use crate::{body::upload::Refused, http::validate::Violation};

/// What a client is told when there is no answer of the lambda's: a status and a fixed sentence. Never an error's
/// own text, which is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The lambda failed, and the log says how.
    Lambda,
    /// As many requests as may be are running and waiting.
    Busy,
    /// The run takes longer than the operator allows.
    Overdue,
    /// The body is larger than the operator's limit.
    TooLarge,
    /// The request breaks a rule of HTTP.
    Rules,
    /// The method is none that can be answered.
    Method,
    /// Path and query are too long.
    LongTarget,
    /// The headers are too large.
    LargeHead,
    /// The body takes too long to come.
    Slow,
    /// The effe wants no requests now.
    NotReady,
    /// The client has closed its end; if it still listens, this is all it gets.
    Left,
    /// The body broke off or was not what its head says.
    Malformed,
}

impl Failure {
    /// What the client gets.
    pub fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Failure::Lambda => (StatusCode::INTERNAL_SERVER_ERROR, "the lambda failed\n"),
            Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again\n"),
            Failure::Overdue => (StatusCode::GATEWAY_TIMEOUT, "the lambda took too long\n"),
            Failure::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large\n"),
            Failure::Rules => (StatusCode::BAD_REQUEST, "the request breaks a rule of HTTP\n"),
            Failure::Method => (StatusCode::NOT_IMPLEMENTED, "the method is not implemented\n"),
            Failure::LongTarget => (StatusCode::URI_TOO_LONG, "the request's target is too long\n"),
            Failure::LargeHead => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too large\n")
            }
            Failure::Slow => (StatusCode::REQUEST_TIMEOUT, "the request body takes too long\n"),
            // As nginx says it.
            Failure::Left => (
                StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
                "the client has closed its end\n",
            ),
            Failure::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            Failure::Malformed => (StatusCode::BAD_REQUEST, "the request body is malformed\n"),
        }
    }
}

impl Failure {
    /// Whether the connection can be used again: not where the rest of the request is not read.
    pub fn keeps_connection(self) -> bool {
        matches!(self, Failure::Lambda | Failure::Busy | Failure::Overdue | Failure::NotReady)
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        match violation {
            Violation::Rules => Failure::Rules,
            Violation::Method => Failure::Method,
            Violation::LongTarget => Failure::LongTarget,
            Violation::LargeHead => Failure::LargeHead,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        match refused {
            Refused::TooLarge => Failure::TooLarge,
            Refused::Malformed => Failure::Malformed,
            Refused::Slow => Failure::Slow,
        }
    }
}
