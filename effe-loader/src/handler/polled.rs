//! A run of an async lambda, which is polled.

use std::{
    future::{Future, pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::time;

use super::{
    Handler,
    failure::Failure,
    half_closed::HalfClosed,
    response::{informed, respond, stream},
    unanswered,
};
use crate::{
    body::{
        outgoing::{Body, Producer, Upgrade},
        sender::{self, Beginning, BodySender, Streams},
    },
    effe::async_run::AsyncCall,
    exchange::{call::Call, response::ResponseBuilder},
    http::{response::Response, service::RequestGuard},
    message::request::Request,
    rt::clock::Moment,
};

impl Handler {
    /// The call of an async run that begins now.
    pub(super) fn call(&self, request: &Request, body: Bytes, streams: Streams) -> (Box<Call>, Moment) {
        self.monitor.look();
        let mut call = self.worker.in_flight.call();
        call.head = request.clone();
        call.body = body;
        call.streams = streams;
        call.served = self.worker.status.served();
        let now = Moment::now();
        let timeout = self.worker.effe.limits.timeouts.run;
        call.deadline = request.invoked.deadline(timeout.map(|timeout| now + timeout));
        (call, now)
    }

    /// Waits for an async run or for the head of its answer, or drops it when it takes too long.
    pub(super) async fn wait(
        &self,
        mut call: AsyncCall,
        request: &Request,
        guard: &RequestGuard,
    ) -> Result<Response, Failure> {
        let (sender, deadline) = (call.sender.clone(), call.deadline);
        let progress = Arc::clone(&call.progress);
        let mut half_closed = HalfClosed::default();
        let begun = poll_fn(|cx| {
            if let Some(sender) = &sender
                && let Poll::Ready(head) = sender.poll_head(cx, |interims| guard.inform(interims))
            {
                return Poll::Ready(Begun::Head(head, Arc::clone(sender)));
            }
            match Pin::new(&mut call).poll(cx) {
                Poll::Ready(call) => return Poll::Ready(Begun::Over(call)),
                Poll::Pending => {}
            }
            if let Poll::Ready(answer) = progress.early.poll(cx) {
                return Poll::Ready(Begun::Answer(answer));
            }
            half_closed.poll(progress.poll_unwanted(cx), None, cx).map(|()| Begun::Left)
        });
        let outcome = match deadline {
            Some(deadline) => time::timeout(deadline.remaining(), begun).await,
            None => Ok(begun.await),
        };
        match outcome {
            Ok(Begun::Head(head, sender)) => {
                let producer =
                    PolledProducer { call, sender: Arc::clone(&sender), half_closed: HalfClosed::default() };
                Ok(stream(request, head, sender, Some(Box::new(producer))))
            }
            Ok(Begun::Answer(answer)) => early(answer, request, call),
            Ok(Begun::Over(over)) => {
                // `answered` keeps the sender and the progress for a later call only if nobody else holds them.
                drop((sender, progress, call));
                self.answered(request, over)
            }
            Ok(Begun::Left) => {
                drop(call);
                guard.hang_up();
                pending().await
            }
            Err(_) => {
                let Some(what) = call.overdue() else {
                    // On another thread, since it was polled.
                    let answer = call.progress.early.take();
                    return answer.map_or(Err(Failure::Overdue), |answer| early(answer, request, call));
                };
                self.worker.effe.report_overdue(request, &call.progress.id, &what);
                Err(Failure::Overdue)
            }
        }
    }

    /// The answer of an async run that is over; its body may still be waiting to be sent.
    pub(super) fn answered(&self, request: &Request, mut call: Box<Call>) -> Result<Response, Failure> {
        let sender = call.streams.response.take();
        let response = match sender.as_ref().and_then(|sender| sender.take_beginning()) {
            None => {
                if let Some(sender) = sender {
                    self.senders.keep(sender);
                }
                respond(&mut call.response, request)
            }
            Some(Beginning { interims, head }) => {
                let response = match (head, sender) {
                    (Some(head), Some(sender)) => Some(Ok(stream(request, head, sender, None))),
                    _ => respond(&mut call.response, request),
                };
                response.map(|response| response.map(|response| informed(response, interims)))
            }
        };
        let response = response.unwrap_or_else(|| Err(unanswered(&call)));
        self.worker.in_flight.keep(call);
        response
    }
}

/// An answer that goes out while its run goes on.
fn early(mut answer: ResponseBuilder, request: &Request, call: AsyncCall) -> Result<Response, Failure> {
    let response = respond(&mut answer, request).expect("what is ended early is complete");
    let Ok(response) = response else {
        call.go_on();
        return response;
    };
    Ok(response.map_body(|body| match body {
        Body::Upgrade(upgrade) => {
            Body::Upgrade(Box::new(Upgrade { run: Some(call.go_on_with_connection()), ..*upgrade }))
        }
        body => {
            call.go_on();
            body
        }
    }))
}

/// An async run whose answer's body is being sent: polling the body polls the run.
struct PolledProducer {
    call: AsyncCall,
    sender: Arc<BodySender>,
    half_closed: HalfClosed,
}

impl Producer for PolledProducer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut self.call).poll(cx) {
            Poll::Ready(call) => self.call.keep(call),
            Poll::Pending => {
                let left = self.call.progress.poll_unwanted(cx);
                ready!(self.half_closed.poll(left, Some(&self.sender.pipe), cx));
                self.sender.abandon();
            }
        }
        Poll::Ready(())
    }

    fn finish(self: Box<Self>) {
        // The run may have more to do than to answer, and its end may be reported by another thread.
        self.call.go_on();
    }
}

/// How far an async run has come.
enum Begun {
    Head(sender::Head, Arc<BodySender>),
    /// The answer, while the run goes on.
    Answer(ResponseBuilder),
    Over(Box<Call>),
    /// The client has closed its end, and the run has had its time.
    Left,
}
