//! A run on a thread of the pool.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::Response;
use bytes::Bytes;

use super::{
    Handler,
    failure::Failure,
    response::{respond, stream},
    unanswered,
};
use crate::{
    body::{
        outgoing::{Body, Producer},
        sender::{Awaited, Streams},
    },
    http::{
        head::{Head, Request},
        service::RequestGuard,
    },
    scheduler::in_flight::{Outcome, PendingCall},
};

impl Handler {
    pub(super) async fn run_on_pool(
        &self,
        request: &Request,
        body: Bytes,
        streams: Streams,
        guard: &RequestGuard,
    ) -> Result<Response<Body>, Failure> {
        self.monitor.look();
        let mut call = self.worker.in_flight.call();
        call.head.take(request);
        call.body = body;
        let mut awaited = Awaited(streams.response.clone());
        call.streams = streams;
        let mut pending = self.worker.in_flight.ask(call, |call| self.worker.effe.run_on_pool(call));
        let head = poll_fn(|cx| match awaited.0.as_ref().map(|sender| sender.poll_head(cx)) {
            Some(Poll::Ready(head)) => Poll::Ready(Ok(head)),
            _ => Pin::new(&mut pending).poll(cx).map(Err),
        });
        match head.await {
            Ok(head) => {
                let sender = awaited.0.take().expect("the head came from the sender");
                pending.take_your_time();
                guard.watch(pending.progress());
                Ok(stream(request, head, sender, Some(Box::new(pending))))
            }
            Err(Outcome::Back(mut call)) => {
                let response = respond(&mut call.response, request).ok_or_else(|| unanswered(&call));
                self.worker.in_flight.keep(call);
                response
            }
            Err(Outcome::GivenUp) => Err(Failure::Busy),
            Err(Outcome::Overdue(progress)) => {
                let what = format!("{} threads are lost to such runs", self.worker.effe.lose_thread());
                self.worker.effe.report_overdue(&Head::Live(request), &progress.id, &what);
                Err(Failure::Overdue)
            }
        }
    }
}

/// The run that writes the body is on the pool and needs no polling.
impl Producer for PendingCall {
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn finish(self: Box<Self>) {}
}
