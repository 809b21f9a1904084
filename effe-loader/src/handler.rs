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
    body::{incoming::Incoming, outgoing::Body, pipe::Pipe, sender::Outlets, upload::Upload},
    effe::{
        Effe,
        async_run::{Thread, Waiting},
        monitor::Watch,
    },
    exchange::{call::Call, response::Answer},
    http::{canned::plain, request::Request, request_guard::RequestGuard},
    net::activity::ClientTimeouts,
    rt::{clock::Moment, tasks, wake_batch::Wakeups},
    scheduler::{background::Errands, in_flight::Desk, worker_status::Running},
};

/// What one thread of the server has to answer requests with.
pub struct Handler {
    thread: Rc<Thread>,
    watch: Arc<Watch>,
    client_timeouts: ClientTimeouts,
    /// Where a run on this thread puts its answer.
    answer: RefCell<Answer>,
    outlets: Outlets,
}

impl Handler {
    /// A handler for the thread that this is called on.
    pub fn new(effe: Arc<Effe>, watch: Arc<Watch>, client_timeouts: ClientTimeouts) -> Handler {
        let desk = Rc::new(Desk::new(effe.limits.timeouts));
        tasks::spawn(Rc::clone(&desk).run({
            let effe = Arc::clone(&effe);
            move || effe.wake_pool()
        }));
        let seat = effe.seat(desk.mailbox());
        let errands = Rc::<Errands>::default();
        tasks::spawn(Rc::clone(&errands).run());
        let wakeups = Arc::<Wakeups>::default();
        tasks::spawn(Arc::clone(&wakeups).run());
        let thread = Rc::new(Thread { effe, seat, desk, errands, wakeups });
        let outlets = Outlets::new(client_timeouts.write);
        Handler { thread, watch, client_timeouts, answer: RefCell::default(), outlets }
    }

    /// Answers a request whose body, if any, is here, if it can be done here and now.
    pub fn handle_now(&self, request: &Request, body: &Bytes) -> Now {
        let generation = self.thread.effe.generations.current();
        if !generation.is_polled_here() {
            let Some((response, took)) = self.run_inline(&generation, request, body) else {
                return Now::Later;
            };
            // There was nothing else to be done: the run's own two looks at the clock will do.
            return Now::Answered(self.finish(request.head(), response, Some(took)));
        }
        let since = self.is_observed().then(Moment::now);
        let streams = self.outlets.streams(generation.plugin.flags());
        let n_others = self.thread.seat.n_running();
        let response = if n_others >= self.thread.effe.limits.max_async {
            Err(Failure::Busy)
        } else {
            let (call, now) = self.call(request, body.clone(), streams);
            match self.thread.run(&generation, call, now) {
                Ok(call) => self.answered(request, call),
                Err(waiting) => return Now::Waits(waiting, since, self.thread.seat.take_up()),
            }
        };
        let response = self.finish(request.head(), response, since.map(Moment::elapsed));
        // What is sent piece by piece is counted as long as it is sent.
        if let Body::Stream(_) = response.body() {
            Now::Streams(response, self.thread.seat.take_up())
        } else {
            Now::Answered(response)
        }
    }

    /// Answers a request, of which perhaps something is done already.
    pub async fn handle(
        &self,
        request: Request,
        incoming: Incoming,
        now: Now,
        guard: RequestGuard,
    ) -> Response<Body> {
        let (response, running) = match now {
            Now::Answered(response) => return response,
            Now::Streams(response, running) => (response, running),
            Now::Waits(waiting, since, running) => {
                guard.watch(Some(Arc::clone(waiting.progress())));
                let response = self.wait(*waiting, &request).await;
                (self.finish(request.head(), response, since.map(Moment::elapsed)), running)
            }
            Now::Later => {
                let running = self.thread.seat.take_up();
                let begun = self.is_observed().then(Moment::now);
                let response = self.answer(&request, incoming, &guard).await;
                (self.finish(request.head(), response, begun.map(Moment::elapsed)), running)
            }
        };
        response.map_body(|_, mut body| {
            if let Body::Stream(stream) = &mut body {
                stream.hold(Box::new((running, guard)));
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
        let generation = self.thread.effe.generations.hold();
        let flags = generation.plugin.flags();
        let mut streams = self.outlets.streams(flags);
        let upload =
            Upload::of(incoming, request.head(), self.thread.effe.limits.body, self.client_timeouts.read)?;
        let body = match upload {
            None => Bytes::new(),
            Some(upload) if flags & plugin_flags::STREAM_REQUEST != 0 => {
                let inlet = Arc::new(Pipe::default());
                guard.upload(upload.pump(Arc::clone(&inlet)));
                streams.inlet = Some(inlet);
                Bytes::new()
            }
            Some(upload) => upload.whole().await?,
        };
        let inlet = streams.inlet.clone();
        let response = if generation.is_polled_here() {
            // This request is counted too.
            let n_others = self.thread.seat.n_running().saturating_sub(1);
            if n_others >= self.thread.effe.limits.max_async {
                Err(Failure::Busy)
            } else {
                let (call, now) = self.call(request, body, streams);
                let waiting = Waiting::new(&self.thread, generation, call, now);
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
        response.map_err(|failure| match inlet.and_then(|inlet| inlet.broken()) {
            Some(status::TOO_LARGE) if failure == Failure::Lambda => Failure::TooLarge,
            Some(status::TIMEOUT) if failure == Failure::Lambda => Failure::Slow,
            Some(_) if failure == Failure::Lambda => Failure::Malformed,
            _ => failure,
        })
    }

    /// Bytes of a request body that is held whole.
    fn body_limit(&self) -> usize {
        self.thread.effe.limits.body
    }

    /// Whether anybody wants to know what becomes of requests.
    fn is_observed(&self) -> bool {
        self.thread.seat.meter.is_some()
    }

    /// The answer is ready, and whoever wants to know learns of it; `took` is known if anybody does.
    fn finish(
        &self,
        request: &RequestHead,
        response: Result<Response<Body>, Failure>,
        took: Option<Duration>,
    ) -> Response<Body> {
        let response = self.ready_to_send(response);
        if let (Some(meter), Some(took)) = (&self.thread.seat.meter, took) {
            meter.answered(&request.method, response.status(), took);
        }
        response
    }

    fn ready_to_send(&self, response: Result<Response<Body>, Failure>) -> Response<Body> {
        let mut response = response.unwrap_or_else(|failure| self.failed(failure));
        if self.thread.effe.is_draining() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    fn failed(&self, failure: Failure) -> Response<Body> {
        let (status, text) = failure.answer();
        let mut response = plain(status, text);
        let head = response.head_mut();
        if failure == Failure::Busy {
            head.headers.insert(header::RETRY_AFTER, HeaderValue::from(self.thread.effe.retry_after()));
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
pub enum Now {
    /// All of it.
    Answered(Response<Body>),
    /// Its answer is on its way out. It counts as running from now on, not only once its future is polled: over HTTP/2
    /// a hundred requests may be begun before that.
    Streams(Response<Body>, Running),
    /// Its run has begun, when somebody wants to know, and waits for something. It counts, as one that streams does.
    Waits(Box<Waiting>, Option<Moment>, Running),
    /// Nothing.
    Later,
}
