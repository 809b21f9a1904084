//! What AWS Lambda says of an invocation, beside the request that its event has become. Needs the feature `aws`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{calls::ExchangeRef, extensions::aws_attribute, request::Request};

/// An invocation of AWS Lambda's; from [`Request::invocation`]. Needs the feature `aws`.
#[derive(Clone, Copy)]
pub struct Invocation<'a> {
    exchange: ExchangeRef<'a>,
    request_id: &'a str,
}

impl Request {
    /// The invocation that this request has come of. `None` for a request that came over HTTP. Needs the feature `aws`.
    pub fn invocation(&self) -> Option<Invocation<'_>> {
        let exchange = self.lent_exchange();
        let request_id = exchange.attribute(aws_attribute::REQUEST_ID)?;
        Some(Invocation { exchange, request_id })
    }
}

impl<'a> Invocation<'a> {
    /// Its id, which Lambda's own log lines have too.
    pub fn request_id(&self) -> &'a str {
        self.request_id
    }

    /// When it times out, by the system's clock; [`Request::deadline`] has the same as an `Instant`.
    pub fn deadline(&self) -> Option<SystemTime> {
        let millis = self.exchange.attribute(aws_attribute::DEADLINE_MS)?.parse().ok()?;
        UNIX_EPOCH.checked_add(Duration::from_millis(millis))
    }

    /// The ARN under which the function was invoked, with its version or alias.
    pub fn function_arn(&self) -> Option<&'a str> {
        self.exchange.attribute(aws_attribute::FUNCTION_ARN)
    }

    /// The tracing header of X-Ray.
    pub fn trace_id(&self) -> Option<&'a str> {
        self.exchange.attribute(aws_attribute::TRACE_ID)
    }

    /// What the caller says of itself, as JSON.
    pub fn client_context(&self) -> Option<&'a str> {
        self.exchange.attribute(aws_attribute::CLIENT_CONTEXT)
    }

    /// The Cognito identity of the caller, as JSON.
    pub fn cognito_identity(&self) -> Option<&'a str> {
        self.exchange.attribute(aws_attribute::COGNITO_IDENTITY)
    }

    /// The event as it came, as JSON. That of an HTTP event has what its request has not, such as what an authorizer
    /// of API Gateway's has added.
    pub fn event(&self) -> Option<&'a str> {
        self.exchange.attribute(aws_attribute::EVENT)
    }
}
