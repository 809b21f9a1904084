//! A run on a thread of the pool.

use std::{
    future::{Future, pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_http::Response;
use bytes::Bytes;

use super::{
    Handler,
    failure::Failure,
    half_closed::{ClientEnd, HalfClosed},
    response::{respond, stream},
    unanswered,
};
use crate::{
    body::{
        outgoing::{Body, Producer},
        sender::{Awaited, BodySender, Head as ResponseHead, Streams},
    },
    http::{
        head::{Head, Request},
        service::RequestGuard,
    },
    scheduler::in_flight::{Outcome, PendingCall},
};

impl Handler {
    /// Hands a run to the pool, and waits for it or for the head of its answer. If the client leaves, the future or the
    /// answer's body is dropped, which the run is told.
    pub(super) async fn run_on_pool(
        &self,
        request: &Request,
        body: Bytes,
        streams: Streams,
        is_async: bool,
        guard: &RequestGuard,
    ) -> Result<Response<Body>, Failure> {
        self.monitor.look();
        let mut call = self.worker.in_flight.call();
        call.head.take(request);
        call.body = body;
        call.connection = self.worker.status.connection();
        let mut awaited = Awaited(streams.response.clone());
        call.streams = streams;
        let mut pending_call = self.worker.in_flight.ask(call, |call| self.worker.effe.run_on_pool(call));
        let mut client = is_async.then(|| Client::watched(guard));
        let came = poll_fn(|cx| {
            if let Some(Poll::Ready(head)) = awaited.0.as_ref().map(|sender| sender.poll_head(cx)) {
                return Poll::Ready(Came::Head(head));
            }
            match (Pin::new(&mut pending_call).poll(cx), &mut client) {
                (Poll::Ready(outcome), _) => Poll::Ready(Came::Outcome(outcome)),
                (Poll::Pending, Some(client)) => client.poll_left(None, cx).map(|()| Came::Left),
                (Poll::Pending, None) => Poll::Pending,
            }
        });
        match came.await {
            Came::Head(head) => {
                let sender = awaited.0.take().expect("the head came from the sender");
                pending_call.take_your_time();
                if client.is_none() {
                    guard.watch(pending_call.progress());
                }
                let producer = PooledProducer { _call: pending_call, client, sender: Arc::clone(&sender) };
                Ok(stream(request, head, sender, Some(Box::new(producer))))
            }
            Came::Left => {
                drop(pending_call);
                guard.hang_up();
                pending().await
            }
            Came::Outcome(Outcome::Back(mut call)) => {
                let response = respond(&mut call.response, request).ok_or_else(|| unanswered(&call));
                self.worker.in_flight.keep(call);
                response
            }
            Came::Outcome(Outcome::GivenUp) => Err(Failure::Busy),
            Came::Outcome(Outcome::Overdue(progress)) => {
                let what = format!("{} threads are lost to such runs", self.worker.effe.lose_thread());
                self.worker.effe.report_overdue(&Head::Live(request), &progress.id, &what);
                Err(Failure::Overdue)
            }
        }
    }
}

/// What comes first of a run on the pool.
enum Came {
    Head(ResponseHead),
    Outcome(Outcome),
    /// The client has closed its end, and the run has had its time.
    Left,
}

/// The client of an async run. A synchronous run goes on to its end in any case.
struct Client {
    end: Arc<ClientEnd>,
    half_closed: HalfClosed,
}

impl Client {
    fn watched(guard: &RequestGuard) -> Client {
        let end = Arc::<ClientEnd>::default();
        guard.watch(Some(Arc::clone(&end)));
        Client { end, half_closed: HalfClosed::default() }
    }

    /// Ready once the client has closed its end, and the run has had its time.
    fn poll_left(&mut self, answer: Option<&BodySender>, cx: &mut Context<'_>) -> Poll<()> {
        let closed = self.end.poll_closed(cx);
        self.half_closed.poll(closed, answer.map(|sender| &sender.pipe), cx)
    }
}

/// A run on the pool that writes the body while it is sent, and needs no polling.
struct PooledProducer {
    _call: PendingCall,
    client: Option<Client>,
    sender: Arc<BodySender>,
}

impl Producer for PooledProducer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(client) = &mut self.client else { return Poll::Pending };
        ready!(client.poll_left(Some(&self.sender), cx));
        self.sender.abandon();
        Poll::Ready(())
    }

    fn finish(self: Box<Self>) {}
}
