//! A run on a thread of the pool.

use std::{
    future::{Future, pending, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{
    Handler,
    failure::Failure,
    half_closed::{ClientEnd, HalfClosed},
    response::{informed, respond, stream},
    unanswered,
};
use crate::{
    body::{
        outgoing::Producer,
        sender::{Awaited, Beginning, BodySender, Head as ResponseHead, Streams},
    },
    effe::{async_run::Worker, generation::Generation},
    exchange::{call::Progress, response::ResponseBuilder},
    http::{response::Response, service::RequestGuard},
    message::request::Request,
    scheduler::in_flight::{Outcome, PendingCall},
};

impl Handler {
    /// Hands a run to the pool, and waits for it or for the head of its answer. If the client leaves, the future or the
    /// answer's body is dropped, which the run is told.
    pub(super) async fn run_on_pool(
        &self,
        generation: Arc<Generation>,
        request: &Request,
        body: Bytes,
        streams: Streams,
        guard: &RequestGuard,
    ) -> Result<Response, Failure> {
        self.monitor.look();
        let mut call = self.worker.in_flight.call();
        call.head = request.clone();
        call.body = body;
        call.served = self.worker.status.served();
        let mut awaited = Awaited(streams.response.clone());
        call.streams = streams;
        let is_async = generation.plugin.is_async();
        let may_answer_early = generation.plugin.may_answer_early() || call.streams.upgrade.is_some();
        let progress = may_answer_early.then(|| Arc::clone(&call.progress));
        let pending_call =
            self.worker.in_flight.ask(call, |call| self.worker.effe.run_on_pool(generation, call));
        let mut run = PooledRun { call: Some(pending_call), progress, worker: Rc::clone(&self.worker) };
        let mut client = is_async.then(|| Client::watched(guard));
        let came = poll_fn(|cx| {
            if let Some(sender) = &awaited.0
                && let Poll::Ready(head) = sender.poll_head(cx, |interims| guard.inform(interims))
            {
                return Poll::Ready(Came::Head(head));
            }
            if let Poll::Ready(answer) = run.poll_early(cx) {
                return Poll::Ready(Came::Answer(answer));
            }
            match (Pin::new(run.call()).poll(cx), &mut client) {
                (Poll::Ready(outcome), _) => Poll::Ready(Came::Outcome(outcome)),
                (Poll::Pending, Some(client)) => client.poll_left(None, cx).map(|()| Came::Left),
                (Poll::Pending, None) => Poll::Pending,
            }
        });
        match came.await {
            Came::Head(head) => {
                let sender = awaited.0.take().expect("the head came from the sender");
                run.call().take_your_time();
                if client.is_none() {
                    guard.watch(run.call().progress());
                }
                let producer = PooledProducer { run, client, sender: Arc::clone(&sender) };
                Ok(stream(request, head, sender, Some(Box::new(producer))))
            }
            Came::Left => {
                drop(run);
                guard.hang_up();
                pending().await
            }
            Came::Answer(mut answer) => {
                run.go_on();
                respond(&mut answer, request).expect("what is ended early is complete")
            }
            Came::Outcome(Outcome::Back(mut call)) => {
                // `keep` uses the progress again if nobody else has it.
                drop(run);
                let response = respond(&mut call.response, request).unwrap_or_else(|| Err(unanswered(&call)));
                self.worker.in_flight.keep(call);
                match awaited.0.as_ref().and_then(|sender| sender.take_beginning()) {
                    Some(Beginning { interims, .. }) => response.map(|response| informed(response, interims)),
                    None => response,
                }
            }
            Came::Outcome(Outcome::GivenUp) => Err(Failure::Busy),
            Came::Outcome(Outcome::Overdue(progress)) => {
                let what = self.worker.effe.lose_thread();
                self.worker.effe.report_overdue(request, &progress.id, &what);
                Err(Failure::Overdue)
            }
        }
    }
}

/// What comes first of a run on the pool.
enum Came {
    Head(ResponseHead),
    /// The answer, while the run goes on.
    Answer(ResponseBuilder),
    Outcome(Outcome),
    /// The client has closed its end, and the run has had its time.
    Left,
}

/// A run on the pool as its request waits for it. One that has ended its answer goes on when this is dropped.
struct PooledRun {
    /// `None` once it goes on in the background.
    call: Option<PendingCall>,
    /// `None` if the run can't end its answer early.
    progress: Option<Arc<Progress>>,
    worker: Rc<Worker>,
}

impl PooledRun {
    fn call(&mut self) -> &mut PendingCall {
        self.call.as_mut().expect("it is taken last of all")
    }

    fn poll_early(&self, cx: &mut Context<'_>) -> Poll<ResponseBuilder> {
        self.progress.as_ref().map_or(Poll::Pending, |progress| progress.early.poll(cx))
    }

    /// Waits for the rest of the run in the background, for as long as a run may take.
    fn go_on(mut self) {
        self.wait_for_rest();
    }

    fn wait_for_rest(&mut self) {
        let (Some(call), Some(progress)) = (self.call.take(), self.progress.take()) else { return };
        if self.worker.background.is_over() {
            return;
        }
        let is_timed = progress.early.rest().is_none_or(|rest| rest.is_timed);
        if is_timed {
            call.begin_rest();
        } else {
            call.take_your_time();
        }
        let worker = Rc::clone(&self.worker);
        let rest = async move {
            match call.await {
                Outcome::Back(call) => {
                    drop(progress);
                    worker.in_flight.keep(call);
                }
                Outcome::GivenUp => {}
                Outcome::Overdue(progress) => {
                    let what = worker.effe.lose_thread();
                    worker.effe.report_rest_overdue(&progress, &what);
                }
            }
        };
        if is_timed {
            self.worker.background.add(&self.worker.status, Box::pin(rest));
        } else {
            self.worker.background.add_uncounted(self.worker.effe.counting_upgraded(rest));
        }
    }
}

impl Drop for PooledRun {
    fn drop(&mut self) {
        if self.progress.as_ref().is_some_and(|progress| progress.is_answered()) {
            self.wait_for_rest();
        }
    }
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
    run: PooledRun,
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

    fn finish(self: Box<Self>) {
        let PooledProducer { run, client, .. } = *self;
        if client.is_some() {
            // An async run would be dropped. A synchronous one goes on in any case.
            run.go_on();
        }
    }
}
