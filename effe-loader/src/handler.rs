//! One request: its body is read, the lambda is run, the answer goes out. Every failure becomes a status here.

pub mod access_log;
pub mod failure;
mod half_closed;
mod polled;
mod pooled;
mod response;
pub mod service;
mod upgrade;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use effe_abi::{
    extensions::UPGRADES,
    raw::{plugin_flags, status},
};

use self::{failure::Failure, response::respond};
use crate::{
    body::{
        incoming::Incoming,
        outgoing::Body,
        pipe::Pipe,
        sender::BodySenders,
        upload::{Refused, Upload},
    },
    effe::{
        Effe,
        async_run::{AsyncCall, Worker},
        generation::Generation,
        monitor::Monitor,
    },
    exchange::{call::Call, response::ResponseBuilder},
    http::{canned::plain, response::Response, service::RequestGuard},
    message::request::{Request, RequestHead},
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
    /// To be called on the thread of the handler.
    pub fn new(effe: Arc<Effe>, monitor: Arc<Monitor>, client_timeouts: ClientTimeouts) -> Handler {
        let in_flight = Rc::new(InFlight::new(effe.limits.timeouts, &effe.held));
        tasks::spawn(Rc::clone(&in_flight).run({
            let effe = Arc::clone(&effe);
            move || effe.wake_pool()
        }));
        let status = effe.status(in_flight.completions());
        let background = Rc::<BackgroundTasks>::default();
        tasks::spawn(Rc::clone(&background).run());
        let wake_batch = WakeBatch::new();
        tasks::spawn(Arc::clone(&wake_batch).run());
        let worker = Rc::new(Worker { effe, status, in_flight, background, wake_batch });
        let senders = BodySenders::new(client_timeouts.write, &worker.effe.held);
        let response = RefCell::new(ResponseBuilder::new(&worker.effe.held));
        Handler { worker, monitor, client_timeouts, response, senders }
    }

    /// Whether the lambda declares that it takes connections over.
    #[cfg(feature = "http2")]
    pub fn takes_offers(&self) -> bool {
        self.worker.effe.generations.current().plugin.flags() & UPGRADES != 0
    }

    /// Answers a request whose body, if any, is here, if it can be done here and now.
    pub fn try_now(&self, request: &Request, body: &Bytes) -> Attempt {
        if self.worker.effe.held.is_full() {
            return Attempt::Answered(self.finish(request, Err(Failure::NoRoom), Some(Duration::ZERO)));
        }
        let generation = self.worker.effe.generations.current();
        if !generation.is_polled_here() {
            let Some((response, took)) = self.run_inline(&generation, request, body) else {
                return Attempt::Later;
            };
            // Nothing else took time: the run has read the clock already.
            return Attempt::Answered(self.finish(request, response, Some(took)));
        }
        let since = self.is_observed().then(Moment::now);
        let flags = generation.plugin.flags();
        if flags & UPGRADES != 0 && upgrade::is_offered(request) {
            return Attempt::Later;
        }
        let streams = self.senders.streams(flags);
        let n_others = self.worker.status.n_running();
        let response = if n_others >= self.worker.effe.limits.max_async {
            Err(Failure::Busy)
        } else {
            let (call, now) = self.call(request, body.clone(), streams);
            match self.worker.run(&generation, call, now) {
                Ok(call) => self.answered(request, call),
                Err(call) => return Attempt::Waits(call, since, self.worker.status.begin_request()),
            }
        };
        let response = self.finish(request, response, since.map(Moment::elapsed));
        if let Body::Stream(stream) = &response.body
            && stream.held().is_none()
        {
            Attempt::Streams(response, self.worker.status.begin_request())
        } else {
            Attempt::Answered(response)
        }
    }

    /// A run on this thread, while its connection waits: the answer, and how long the run took; `None` if the run can't
    /// be here.
    fn run_inline(
        &self,
        generation: &Generation,
        request: &Request,
        body: &[u8],
    ) -> Option<(Result<Response, Failure>, Duration)> {
        if !generation.placement.is_inline() {
            return None;
        }
        self.monitor.look();
        let mut response = self.response.borrow_mut();
        response.clear();
        let (effe, status) = (&self.worker.effe, &self.worker.status);
        let took = effe.run_inline(generation, request, body, &mut response, status)?;
        Some((respond(&mut response, request).unwrap_or(Err(Failure::Lambda)), took))
    }

    /// Does what the attempt has left to do.
    pub async fn handle(
        &self,
        request: Request,
        incoming: Incoming,
        attempt: Attempt,
        guard: RequestGuard,
    ) -> Response {
        let (response, running) = match attempt {
            Attempt::Answered(response) => return response,
            Attempt::Streams(response, running) => (response, running),
            Attempt::Waits(call, since, running) => {
                guard.watch(Some(Arc::clone(&call.progress)));
                let response = self.wait(*call, &request, &guard).await;
                (self.finish(&request, response, since.map(Moment::elapsed)), running)
            }
            Attempt::Later => {
                let running = self.worker.status.begin_request();
                let begun = self.is_observed().then(Moment::now);
                let response = self.answer(&request, incoming, &guard).await;
                (self.finish(&request, response, begun.map(Moment::elapsed)), running)
            }
        };
        response.map_body(|mut body| {
            match &mut body {
                Body::Stream(stream) => stream.guard = Some(Box::new((running, guard))),
                // It is a connection, and no request any more.
                Body::Upgrade(upgrade) => upgrade.guard = Some(Box::new(guard)),
                Body::Whole(_) | Body::Absent(_) => {}
            }
            body
        })
    }

    async fn answer(
        &self,
        request: &Request,
        incoming: Incoming,
        guard: &RequestGuard,
    ) -> Result<Response, Failure> {
        if self.worker.effe.held.is_full() {
            return Err(Failure::NoRoom);
        }
        let generation = self.worker.effe.generations.hold();
        let flags = generation.plugin.flags();
        let mut streams = self.senders.streams(flags);
        if flags & UPGRADES != 0 && !self.worker.effe.is_draining() {
            streams.upgrade = upgrade::offer(request, &generation);
        }
        let upload = Upload::of(incoming, request, self.worker.effe.limits.body, self.client_timeouts.read)
            .map_err(Failure::Body)?;
        let body = match upload {
            None => Bytes::new(),
            // What comes behind the head belongs to another protocol only behind the body, which is read before that
            // can be chosen.
            Some(upload) if flags & plugin_flags::STREAM_REQUEST != 0 && streams.upgrade.is_none() => {
                let pipe = Arc::new(Pipe::default());
                guard.upload(upload.pump(Arc::clone(&pipe)));
                streams.request = Some(pipe);
                Bytes::new()
            }
            Some(mut upload) => {
                let body = upload.whole(&self.worker.effe.held).await.map_err(Failure::Body)?;
                let trailers = upload.trailers();
                if !trailers.is_empty() {
                    streams.request = Some(Arc::new(Pipe::of_trailers(trailers)));
                }
                body
            }
        };
        let upload = streams.request.clone();
        // Other requests may have been answered on this thread meanwhile.
        guard.serve();
        let response = if generation.is_polled_here() {
            // This request is counted too.
            let n_others = self.worker.status.n_running().saturating_sub(1);
            if n_others >= self.worker.effe.limits.max_async {
                Err(Failure::Busy)
            } else {
                let (call, now) = self.call(request, body, streams);
                let call = AsyncCall::new(&self.worker, generation, call, now);
                guard.watch(Some(Arc::clone(&call.progress)));
                self.wait(call, request, guard).await
            }
        } else {
            // A run here sees no streams.
            let here =
                if streams.request.is_none() { self.run_inline(&generation, request, &body) } else { None };
            match here {
                Some((response, _)) => response,
                None => self.run_on_pool(generation, request, body, streams, guard).await,
            }
        };
        // If the body failed, that is why the lambda did.
        response.map_err(|failure| match upload.and_then(|upload| upload.broken()) {
            Some(broken) if failure == Failure::Lambda => Failure::Body(match broken {
                status::TOO_LARGE => Refused::TooLarge,
                status::TIMEOUT => Refused::Slow,
                _ => Refused::Malformed,
            }),
            _ => failure,
        })
    }

    /// Whether requests are counted and timed.
    fn is_observed(&self) -> bool {
        self.worker.status.meter.is_some()
    }

    /// The answer as it is sent, after it has been counted, if requests are; only then `took` is known.
    #[inline]
    fn finish(
        &self,
        request: &RequestHead,
        response: Result<Response, Failure>,
        took: Option<Duration>,
    ) -> Response {
        let response = self.ready_to_send(response);
        if let (Some(meter), Some(took)) = (&self.worker.status.meter, took) {
            meter.answered(&request.method, response.head.status, took);
        }
        response
    }

    fn ready_to_send(&self, response: Result<Response, Failure>) -> Response {
        let mut response = response.unwrap_or_else(|failure| self.failed(failure));
        if self.worker.effe.is_draining() {
            response.head.is_last = true;
        }
        response
    }

    fn failed(&self, failure: Failure) -> Response {
        let (status, text) = failure.answer();
        let mut response = plain(status, text);
        if cfg!(feature = "aws") {
            // An invocation has failed where a client gets a status.
            response.note = Some(Box::new(failure));
        }
        let has_no_room = matches!(failure, Failure::NoRoom | Failure::Body(Refused::NoRoom));
        if has_no_room {
            self.worker.effe.report_no_room();
        }
        if has_no_room || failure == Failure::Busy {
            response.set("retry-after", &self.worker.effe.retry_after().to_string());
        }
        response.head.is_last = !failure.keeps_connection();
        response
    }
}

/// Why a call whose run has ended has no answer.
fn unanswered(call: &Call) -> Failure {
    match call.deadline {
        _ if call.progress.is_given_up() => Failure::Busy,
        // A lambda that keeps to its deadline gives up when the deadline passes, just before the loader would give up.
        Some(deadline) if deadline.remaining().is_zero() => Failure::Overdue,
        _ => Failure::Lambda,
    }
}

/// What came of the attempt to answer a request at once.
pub enum Attempt {
    Answered(Response),
    /// The head of the answer is here, its body is still being written. The request counts as running from now on, not
    /// only once its future is polled: over HTTP/2 a hundred requests may be begun before that.
    Streams(Response, OpenRequest),
    /// The run has begun and is not over. The request counts as running, as one that streams does. The moment is when
    /// it began, if requests are timed.
    Waits(Box<AsyncCall>, Option<Moment>, OpenRequest),
    /// Nothing has been done.
    Later,
}
