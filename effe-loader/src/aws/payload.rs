//! What is sent to the Runtime API: bytes, or an answer while the lambda writes it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::{event::N_ZEROS, failure::FunctionError};
use crate::body::outgoing::Body;

pub const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");
pub const ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");

pub enum Payload {
    Whole(Bytes),
    /// What comes before the lambda's own bytes, and these.
    Streamed {
        prelude: Option<Bytes>,
        body: Option<Body>,
    },
}

impl http_body::Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (prelude, body) = match &mut *self {
            Payload::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Payload::Streamed { prelude, body } => (prelude, body),
        };
        if let Some(mut rest) = prelude.take() {
            // The head and the zeros are a piece each, for readers that look at pieces and not at bytes.
            let head = rest.split_to(rest.len().saturating_sub(N_ZEROS));
            if head.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(rest))));
            }
            *prelude = Some(rest);
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        let Some(producing) = body else { return Poll::Ready(None) };
        match ready!(Pin::new(producing).poll_next(cx)) {
            Some(Ok(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => {
                *body = None;
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                *body = None;
                Poll::Ready(Some(Ok(Frame::trailers(broken_off()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Payload::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Streamed { .. } => SizeHint::default(),
        }
    }
}

/// How an answer says at its end that it has failed.
fn broken_off() -> HeaderMap {
    let err = FunctionError::broken_off();
    let mut trailers = HeaderMap::new();
    for (name, value) in [(ERROR_TYPE, err.kind.clone()), (ERROR_BODY, STANDARD.encode(err.to_json()))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            trailers.insert(name, value);
        }
    }
    trailers
}
