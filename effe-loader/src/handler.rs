//! One request: its body is read, the lambda is run, the answer goes out. Every failure becomes a status here.

pub mod access_log;
mod failure;
mod inline;
mod polled;
mod pooled;
mod response;
pub mod service;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use actix_http::{
    ConnectionType, RequestHead, Response,
    header::{self, HeaderValue},
};
use bytes::Bytes;
use effe_abi::raw::{plugin_flags, status};

use self::failure::Failure;
use crate::{
    body::{incoming::Incoming, outgoing::Body, pipe::Pipe, sender::BodySenders, upload::Upload},
    effe::{
        Effe,
        async_run::{AsyncCall, Worker},
        monitor::Monitor,
    },
    exchange::{call::Call, response::ResponseBuilder},
    http::{canned::plain, request::Request, request_guard::RequestGuard},
    net::activity::ClientTimeouts,
    rt::{clock::Moment, tasks, wake_batch::WakeBatch},
    scheduler::{background::BackgroundTasks, in_flight::InFlight, worker_status::OpenRequest},
};

/// What one thread of the server has to answer requests with.
pub struct Handler {
    worker: Rc<Worker>,
    monitor: Arc<Monitor>,
    client_timeouts: ClientTimeouts,
    /// Where a run on this thread puts its answer.
    response: RefCell<ResponseBuilder>,
    senders: BodySenders,
}

impl Handler {
    /// A handler for the thread that this is called on.
    pub fn new(effe: Arc<Effe>, monitor: Arc<Monitor>, client_timeouts: ClientTimeouts) -> Handler {
        let in_flight = Rc::new(InFlight::new(effe.limits.timeouts));
        tasks::spawn(Rc::clone(&in_flight).run({
            let effe = Arc::clone(&effe);
            move || effe.wake_pool()
        }));
        let status = effe.status(in_flight.completions());
        let background = Rc::<BackgroundTasks>::default();
        tasks::spawn(Rc::clone(&background).run());
        let wake_batch = Arc::<WakeBatch>::default();
        tasks::spawn(Arc::clone(&wake_batch).run());
        let worker = Rc::new(Worker { effe, status, in_flight, background, wake_batch });
        let senders = BodySenders::new(client_timeouts.write);
        Handler { worker, monitor, client_timeouts, response: RefCell::default(), senders }
    }

    /// Answers a request whose body, if any, is here, if it can be done here and now.
    pub fn try_now(&self, request: &Request, body: &Bytes) -> Attempt {
        let generation = self.worker.effe.generations.current();
        if !generation.is_polled_here() {
            let Some((response, took)) = self.run_inline(&generation, request, body) else {
                return Attempt::Later;
            };
            // There was nothing else to be done: the run's own two looks at the clock will do.
            return Attempt::Answered(self.finish(request.head(), response, Some(took)));
        }
        let since = self.is_observed().then(Moment::now);
        let streams = self.senders.streams(generation.plugin.flags());
        let n_others = self.worker.status.n_running();
        let response = if n_others >= self.worker.effe.limits.max_async {
            Err(Failure::Busy)
        } else {
            let (call, now) = self.call(request, body.clone(), streams);
            match self.worker.run(&generation, call, now) {
                Ok(call) => self.answered(request, call),
                Err(waiting) => return Attempt::Waits(waiting, since, self.worker.status.begin_request()),
            }
        };
        let response = self.finish(request.head(), response, since.map(Moment::elapsed));
        // What is sent piece by piece is counted as long as it is sent.
        if let Body::Stream(_) = response.body() {
            Attempt::Streams(response, self.worker.status.begin_request())
        } else {
            Attempt::Answered(response)
        }
    }

    /// Answers a request, of which perhaps something is done already.
    pub async fn handle(
        &self,
        request: Request,
        incoming: Incoming,
        now: Attempt,
        guard: RequestGuard,
    ) -> Response<Body> {
        let (response, running) = match now {
            Attempt::Answered(response) => return response,
            Attempt::Streams(response, running) => (response, running),
            Attempt::Waits(waiting, since, running) => {
                guard.watch(Some(Arc::clone(waiting.progress())));
                let response = self.wait(*waiting, &request).await;
                (self.finish(request.head(), response, since.map(Moment::elapsed)), running)
            }
            Attempt::Later => {
                let running = self.worker.status.begin_request();
                let begun = self.is_observed().then(Moment::now);
                let response = self.answer(&request, incoming, &guard).await;
                (self.finish(request.head(), response, begun.map(Moment::elapsed)), running)
            }
        };
        response.map_body(|_, mut body| {
            if let Body::Stream(stream) = &mut body {
                stream.guard = Some(Box::new((running, guard)));
            }
            body
        })
    }

    async fn answer(
        &self,
        request: &Request,
        incoming: Incoming,
        guard: &RequestGuard,
    ) -> Result<Response<Body>, Failure> {
        let generation = self.worker.effe.generations.hold();
        let flags = generation.plugin.flags();
        let mut streams = self.senders.streams(flags);
        let upload =
            Upload::of(incoming, request.head(), self.worker.effe.limits.body, self.client_timeouts.read)?;
        let body = match upload {
            None => Bytes::new(),
            Some(upload) if flags & plugin_flags::STREAM_REQUEST != 0 => {
                let pipe = Arc::new(Pipe::default());
                guard.upload(upload.pump(Arc::clone(&pipe)));
                streams.request = Some(pipe);
                Bytes::new()
            }
            Some(upload) => upload.whole().await?,
        };
        let upload = streams.request.clone();
        let response = if generation.is_polled_here() {
            // This request is counted too.
            let n_others = self.worker.status.n_running().saturating_sub(1);
            if n_others >= self.worker.effe.limits.max_async {
                Err(Failure::Busy)
            } else {
                let (call, now) = self.call(request, body, streams);
                let waiting = AsyncCall::new(&self.worker, generation, call, now);
                guard.watch(Some(Arc::clone(waiting.progress())));
                self.wait(waiting, request).await
            }
        } else {
            match self.run_inline(&generation, request, &body) {
                Some((response, _)) => response,
                None => self.run_on_pool(request, body, streams, guard).await,
            }
        };
        // A lambda that fails because its body fails is not to blame.
        response.map_err(|failure| match upload.and_then(|pipe| pipe.broken()) {
            Some(status::TOO_LARGE) if failure == Failure::Lambda => Failure::TooLarge,
            Some(status::TIMEOUT) if failure == Failure::Lambda => Failure::Slow,
            Some(_) if failure == Failure::Lambda => Failure::Malformed,
            _ => failure,
        })
    }

    /// Bytes of a request body that is held whole.
    fn body_limit(&self) -> usize {
        self.worker.effe.limits.body
    }

    /// Whether anybody wants to know what becomes of requests.
    fn is_observed(&self) -> bool {
        self.worker.status.meter.is_some()
    }

    /// The answer is ready, and whoever wants to know learns of it; `took` is known if anybody does.
    fn finish(
        &self,
        request: &RequestHead,
        response: Result<Response<Body>, Failure>,
        took: Option<Duration>,
    ) -> Response<Body> {
        let response = self.ready_to_send(response);
        if let (Some(meter), Some(took)) = (&self.worker.status.meter, took) {
            meter.answered(&request.method, response.status(), took);
        }
        response
    }

    fn ready_to_send(&self, response: Result<Response<Body>, Failure>) -> Response<Body> {
        let mut response = response.unwrap_or_else(|failure| self.failed(failure));
        if self.worker.effe.is_draining() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    fn failed(&self, failure: Failure) -> Response<Body> {
        let (status, text) = failure.answer();
        let mut response = plain(status, text);
        let head = response.head_mut();
        if failure == Failure::Busy {
            head.headers.insert(header::RETRY_AFTER, HeaderValue::from(self.worker.effe.retry_after()));
        }
        if !failure.keeps_connection() {
            head.set_connection_type(ConnectionType::Close);
        }
        response
    }
}

/// Why a call that is back has no answer.
fn unanswered(call: &Call) -> Failure {
    match call.deadline {
        _ if call.progress.is_given_up() => Failure::Busy,
        // A run that keeps to its deadline gives up at about the time at which nobody would wait for it any more.
        Some(deadline) if deadline.remaining().is_zero() => Failure::Overdue,
        _ => Failure::Lambda,
    }
}

/// What is done about a request at once.
pub enum Attempt {
    /// All of it.
    Answered(Response<Body>),
    /// Its answer is on its way out. It counts as running from now on, not only once its future is polled: over HTTP/2
    /// a hundred requests may be begun before that.
    Streams(Response<Body>, OpenRequest),
    /// Its run has begun, when somebody wants to know, and waits for something. It counts, as one that streams does.
    Waits(Box<AsyncCall>, Option<Moment>, OpenRequest),
    /// Nothing.
    Later,
}
