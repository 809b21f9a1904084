//! A run of an async lambda, which is polled.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use actix_http::Response;
use bytes::Bytes;
use tokio::time;

use super::{
    Handler,
    failure::Failure,
    response::{respond, stream},
    unanswered,
};
use crate::{
    body::{
        outgoing::{Body, Producer},
        sender::{self, BodySender, Streams},
    },
    effe::async_run::AsyncCall,
    exchange::call::Call,
    http::{head::Head, request::Request},
    rt::clock::Moment,
};

impl Handler {
    /// The call of an async run that begins now.
    pub(super) fn call(&self, request: &Request, body: Bytes, streams: Streams) -> (Box<Call>, Moment) {
        self.monitor.look();
        let mut call = self.worker.in_flight.call();
        call.head.take(request);
        call.body = body;
        call.streams = streams;
        let now = Moment::now();
        call.deadline = self.worker.effe.limits.timeouts.run.map(|timeout| now + timeout);
        (call, now)
    }

    /// Waits for an async run or for the head of its answer, or drops it when it takes too long.
    pub(super) async fn wait(
        &self,
        mut waiting: AsyncCall,
        request: &Request,
    ) -> Result<Response<Body>, Failure> {
        let (sender, deadline) = (waiting.sender().cloned(), waiting.deadline());
        let progress = Arc::clone(waiting.progress());
        let begun = poll_fn(|context| {
            if let Some(sender) = &sender
                && let Poll::Ready(head) = sender.poll_head(context)
            {
                return Poll::Ready(Begun::Head(head));
            }
            match Pin::new(&mut waiting).poll(context) {
                Poll::Ready(call) => Poll::Ready(Begun::Over(call)),
                // A client that has closed its end is taken for one that has left, as others do.
                Poll::Pending => progress.poll_unwanted(context).map(|()| Begun::Left),
            }
        });
        let outcome = match deadline {
            Some(deadline) => time::timeout(deadline.remaining(), begun).await,
            None => Ok(begun.await),
        };
        match (outcome, sender) {
            (Ok(Begun::Head(head)), Some(sender)) => {
                let writes = Writes { run: waiting, sender: Arc::clone(&sender) };
                Ok(stream(request, head, sender, Some(Box::new(writes))))
            }
            (Ok(Begun::Head(_)), None) => unreachable!("a head comes out of an outlet"),
            (Ok(Begun::Over(call)), sender) => {
                drop((sender, progress, waiting));
                self.answered(request, call)
            }
            (Ok(Begun::Left), _) => Err(Failure::Left),
            (Err(_), _) => {
                let what = match waiting.overdue() {
                    Some(n_lost) => format!("{n_lost} threads are lost to such runs"),
                    None => "it is dropped".to_owned(),
                };
                let head = Head::Live(request);
                self.worker.effe.report_overdue(&head, waiting.id(), &what);
                Err(Failure::Overdue)
            }
        }
    }

    /// An async run is over: its answer, which may still be on its way out.
    pub(super) fn answered(&self, request: &Request, mut call: Box<Call>) -> Result<Response<Body>, Failure> {
        let sender = call.streams.response.take();
        let head = sender.as_ref().and_then(|sender| sender.take_head());
        let response = match (head, sender) {
            (Some(head), Some(sender)) => Some(stream(request, head, sender, None)),
            (_, unneeded) => {
                if let Some(sender) = unneeded {
                    self.senders.keep(sender);
                }
                respond(&mut call.response, request)
            }
        };
        let response = response.ok_or_else(|| unanswered(&call));
        self.worker.in_flight.keep(call);
        response
    }
}

/// A run that is polled with the body that it writes.
struct Writes {
    run: AsyncCall,
    sender: Arc<BodySender>,
}

impl Producer for Writes {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut self.run).poll(cx) {
            Poll::Ready(call) => self.run.keep(call),
            Poll::Pending if self.run.progress().poll_unwanted(cx).is_ready() => self.sender.abandon(),
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    fn finish(self: Box<Self>) {
        // Its last word may be on another thread, and it may have more to do than to answer.
        self.run.go_on();
    }
}

/// How far an async run has come.
enum Begun {
    /// Its answer goes out.
    Head(sender::Head),
    Over(Box<Call>),
    /// Nobody waits for it any more.
    Left,
}
