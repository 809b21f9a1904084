//! A result that is sent while the lambda writes it, in messages of an event stream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use actix_http::body::MessageBody;
use bytes::Bytes;
use effe_abi::raw::plugin_flags;
use http::StatusCode;
use serde_json::json;

use super::{
    event_stream::message,
    invocations::{Failed, Invocations, RunLog},
    reply::ApiError,
};
use crate::{
    aws::{
        event::{Shape, prelude},
        failure::FunctionError,
        invoker::Whole,
    },
    body::{
        held::HeldBytes,
        outgoing::{Body, Producer, Stream},
        sender::{BodySender, BodySenders, Head},
    },
    http::response::Response,
    message::invocation::Invocation,
    net::private_listener::CLIENT_TIMEOUTS,
};

/// Runs an invocation, and answers with a stream whose last message says how it ended.
pub async fn stream(
    invocations: &Invocations,
    invocation: &Arc<Invocation>,
    log: Option<RunLog>,
) -> Result<Response, ApiError> {
    let (first, body) = match invocations.begin(invocation).await {
        Ok((Shape::Other, response)) if response.head.status.as_u16() >= 400 => {
            let whole = Whole::of(response, invocation).await;
            let failed = whole.and_then(|whole| whole.result(Shape::Other));
            (Err(failed.err().unwrap_or_else(FunctionError::broken_off)), None)
        }
        Ok((shape, response)) => {
            let Response { head, body, .. } = response;
            let prelude = (shape != Shape::Other).then(|| prelude(head.status, &head.fields));
            (Ok(prelude), Some(body))
        }
        Err(Failed::Busy) => return Err(ApiError::busy()),
        Err(Failed::Error(err)) => (Err(err), None),
    };
    let senders = BodySenders::new(CLIENT_TIMEOUTS.write, &HeldBytes::unlimited());
    let sender = senders.streams(plugin_flags::STREAM_RESPONSE).response.take();
    let sender = sender.ok_or_else(|| ApiError::new(500, "ServiceException", "no stream can be made"))?;
    sender.begin(Head { status: StatusCode::OK, fields: Arc::default(), length: None });
    sender.take_beginning();
    let mut messages = Messages { sender: Arc::clone(&sender), body, log };
    match first {
        Ok(Some(prelude)) => messages.payload(&prelude),
        Ok(None) => {}
        Err(err) => messages.complete(Some(&err)),
    }
    let producer: Option<Box<dyn Producer>> =
        if messages.body.is_some() { Some(Box::new(messages)) } else { None };
    let body = Body::Stream(Box::new(Stream::new(sender, None, producer)));
    let mut response = Response::bare(StatusCode::OK, body);
    response.set("content-type", "application/vnd.amazon.eventstream");
    Ok(response)
}

/// Makes messages of the lambda's pieces.
struct Messages {
    sender: Arc<BodySender>,
    body: Option<Body>,
    log: Option<RunLog>,
}

impl Messages {
    fn payload(&self, piece: &[u8]) {
        let bytes = Bytes::from(message("PayloadChunk", "application/octet-stream", piece));
        self.sender.write_now(bytes, true);
    }

    fn complete(&mut self, err: Option<&FunctionError>) {
        let mut what = json!({});
        if let Some(err) = err {
            what["ErrorCode"] = err.kind.clone().into();
            what["ErrorDetails"] = String::from_utf8_lossy(&err.to_json()).into();
        }
        if let Some(log) = self.log.take() {
            what["LogResult"] = log.end().into();
        }
        let bytes = message("InvokeComplete", "application/json", what.to_string().as_bytes());
        self.sender.write_now(bytes.into(), false);
        self.body = None;
    }
}

impl Producer for Messages {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(body) = &mut self.body {
            match self.sender.pipe.poll_room(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
            match Pin::new(body).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(piece))) => self.payload(&piece),
                Poll::Ready(Some(Err(_))) => self.complete(Some(&FunctionError::broken_off())),
                Poll::Ready(None) => self.complete(None),
            }
        }
        Poll::Ready(())
    }

    fn finish(self: Box<Self>) {}
}
