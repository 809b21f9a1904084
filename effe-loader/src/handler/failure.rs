//! Why a request has no answer of the lambda's, and what its client is told instead.

use http::StatusCode;

use crate::{body::upload::Refused, http::validate::Violation};

/// Why there is no answer of the lambda's. The client is told a status and a fixed sentence, never an error's own text,
/// which is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The lambda failed, and the log says how.
    Lambda,
    /// As many requests as may be are running and waiting.
    Busy,
    /// As many bytes as may be are held.
    NoRoom,
    /// The run takes longer than the operator allows.
    Overdue,
    /// The head breaks a rule.
    Head(Violation),
    /// The body is too large, comes too slowly, breaks off or is not what its head says.
    Body(Refused),
    /// The effe wants no requests now.
    NotReady,
}

impl Failure {
    /// What the client gets.
    pub fn answer(self) -> (StatusCode, &'static str) {
        let (status, text) = match self {
            Failure::Lambda => (500, "the lambda failed\n"),
            Failure::NoRoom | Failure::Body(Refused::NoRoom) => (503, "too many bytes are held; try again\n"),
            Failure::Busy => (503, "too many requests at once; try again\n"),
            Failure::Overdue => (504, "the lambda took too long\n"),
            Failure::Head(Violation::Rules) => (400, "the request breaks a rule of HTTP\n"),
            Failure::Head(Violation::Method) => (501, "the method is not implemented\n"),
            Failure::Head(Violation::LongTarget) => (414, "the request's target is too long\n"),
            Failure::Head(Violation::LargeHead) => (431, "the request's headers are too large\n"),
            Failure::Body(Refused::TooLarge) => (413, "the request body is too large\n"),
            Failure::Body(Refused::Slow) => (408, "the request body takes too long\n"),
            Failure::Body(Refused::Malformed) => (400, "the request body is malformed\n"),
            Failure::NotReady => (503, "not ready\n"),
        };
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text)
    }

    /// Whether the connection can be used again: not where the rest of the request is not read.
    pub fn keeps_connection(self) -> bool {
        matches!(
            self,
            Failure::Lambda | Failure::Busy | Failure::NoRoom | Failure::Overdue | Failure::NotReady
        )
    }
}
