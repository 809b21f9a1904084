//! The invocation of AWS Lambda's that a request has come of: what the lambda may ask about it, when its time is over,
//! and what went wrong in it. Requests that came over a connection have none.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use effe_abi::extensions::aws_attribute;

use crate::rt::clock::Moment;

/// An invocation, as Lambda tells of it.
#[derive(Debug, Default)]
pub struct Invocation {
    pub request_id: String,
    /// When its caller is told that it took too long.
    pub deadline: Option<Moment>,
    /// The same in milliseconds since 1970, as digits.
    pub deadline_ms: Option<String>,
    pub function_arn: Option<String>,
    pub trace_id: Option<String>,
    /// JSON.
    pub client_context: Option<String>,
    /// JSON.
    pub cognito_identity: Option<String>,
    /// JSON, as it came.
    pub event: Bytes,
    /// To be noted, and asked for, by the methods.
    pub fault: Mutex<Option<Fault>>,
}

/// What went wrong in an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `start`, `run`
    pub step: &'static str,
    pub is_panic: bool,
}

impl Invocation {
    /// A fact for the lambda, by a key of `aws_attribute`.
    pub fn attribute(&self, key: u32) -> Option<&str> {
        match key {
            aws_attribute::REQUEST_ID => Some(&self.request_id),
            aws_attribute::DEADLINE_MS => self.deadline_ms.as_deref(),
            aws_attribute::FUNCTION_ARN => self.function_arn.as_deref(),
            aws_attribute::TRACE_ID => self.trace_id.as_deref(),
            aws_attribute::CLIENT_CONTEXT => self.client_context.as_deref(),
            aws_attribute::COGNITO_IDENTITY => self.cognito_identity.as_deref(),
            aws_attribute::EVENT => std::str::from_utf8(&self.event).ok(),
            _ => None,
        }
    }

    /// Notes what went wrong; the first fault counts, since others may follow from it.
    pub fn note(&self, step: &'static str, is_panic: bool) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(Fault { step, is_panic });
    }

    pub fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request has of its invocation.
#[derive(Clone, Debug, Default)]
pub struct Invoked(Option<Arc<Invocation>>);

impl Invoked {
    pub const NONE: Invoked = Invoked(None);

    pub fn by(invocation: Arc<Invocation>) -> Invoked {
        Invoked(Some(invocation))
    }

    pub fn invocation(&self) -> Option<&Invocation> {
        self.0.as_deref()
    }

    /// The earlier of two deadlines: the one that is given, and the invocation's.
    pub fn deadline(&self, given: Option<Moment>) -> Option<Moment> {
        let own = self.0.as_ref().and_then(|invocation| invocation.deadline);
        own.into_iter().chain(given).min()
    }
}
