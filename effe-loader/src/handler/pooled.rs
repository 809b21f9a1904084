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
    http::{head::Head, request::Request, request_guard::RequestGuard},
    scheduler::in_flight::{Asked, Outcome},
};

impl Handler {
    pub(super) async fn run_on_pool(
        &self,
        request: &Request,
        body: Bytes,
        streams: Streams,
        guard: &RequestGuard,
    ) -> Result<Response<Body>, Failure> {
        self.watch.look();
        let mut call = self.thread.desk.call();
        call.head.take(request);
        call.body = body;
        let mut awaited = Awaited::new(streams.outlet.clone());
        call.streams = streams;
        let mut asked = self.thread.desk.ask(call, |call| self.thread.effe.run_on_pool(call));
        let head = poll_fn(|context| match awaited.outlet().map(|outlet| outlet.poll_head(context)) {
            Some(Poll::Ready(head)) => Poll::Ready(Ok(head)),
            _ => Pin::new(&mut asked).poll(context).map(Err),
        });
        let outcome = match head.await {
            Ok(head) => {
                let outlet = awaited.take().expect("the head came out of it");
                asked.take_your_time();
                guard.watch(asked.progress());
                return Ok(stream(request, head, outlet, Some(Box::new(asked))));
            }
            Err(outcome) => outcome,
        };
        match outcome {
            Outcome::Back(mut call) => {
                let response = respond(&mut call.answer, request).ok_or_else(|| unanswered(&call));
                self.thread.desk.keep(call);
                response
            }
            Outcome::GivenUp => Err(Failure::Busy),
            Outcome::Overdue(progress) => {
                let what = format!("{} threads are lost to such runs", self.thread.effe.lose_thread());
                self.thread.effe.report_overdue(&Head::Live(request), &progress.id, &what);
                Err(Failure::Overdue)
            }
        }
    }
}

/// The run that writes a body is on the pool: what it writes comes by itself.
impl Producer for Asked {
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn finish(self: Box<Self>) {}
}
