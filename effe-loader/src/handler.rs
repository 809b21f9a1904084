//! One request: its body is read, the lambda is run, the answer goes out. Every failure becomes a status here.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use actix_http::{
    ConnectionType, Method, Payload, Request, RequestHead, Response, StatusCode,
    header::{self, HeaderValue},
};
use actix_service::Service;
use actix_utils::future::{Either, Ready, ready};
use actix_web::rt;
use bytes::Bytes;
use effe_abi::raw::{plugin_flags, status};

use crate::{
    access_log::{AccessLog, Visit},
    answer::Answer,
    body::{Body, Stream},
    call::{Asked, Desk, Outcome, Timeouts},
    clock::Moment,
    connection::{Answering, Patience},
    effe::Effe,
    exchange::Head,
    health::{Health, Probe},
    outlet::{self, Outlet, Streams},
    pipe::Pipe,
    seat::Seat,
    upload::{Refused, Upload},
    watch::Watch,
};

/// What a client is told when there is no answer of the lambda's: a status and a fixed sentence. Never an error's
/// own text, which is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The lambda failed, and the log says how.
    Lambda,
    /// As many requests as may be are running and waiting.
    Busy,
    /// The run takes longer than the operator allows.
    Overdue,
    /// The body is larger than the operator's limit.
    TooLarge,
    /// The body takes too long to come.
    Slow,
    /// The effe wants no requests now.
    NotReady,
    /// The body broke off or was not what its head says.
    Malformed,
}

impl Failure {
    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Failure::Lambda => (StatusCode::INTERNAL_SERVER_ERROR, "the lambda failed\n"),
            Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again\n"),
            Failure::Overdue => (StatusCode::GATEWAY_TIMEOUT, "the lambda took too long\n"),
            Failure::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large\n"),
            Failure::Slow => (StatusCode::REQUEST_TIMEOUT, "the request body takes too long\n"),
            Failure::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            Failure::Malformed => (StatusCode::BAD_REQUEST, "the request body is malformed\n"),
        }
    }
}

/// What one thread of the server has to answer requests with.
pub struct Handler {
    effe: Arc<Effe>,
    seat: Arc<Seat>,
    desk: Rc<Desk>,
    watch: Arc<Watch>,
    patience: Patience,
    body_limit: usize,
    /// Where a run on this thread puts its answer.
    answer: RefCell<Answer>,
}

impl Handler {
    /// A handler for the thread that this is called on.
    pub fn new(
        effe: Arc<Effe>,
        watch: Arc<Watch>,
        timeouts: Timeouts,
        patience: Patience,
        body_limit: usize,
    ) -> Handler {
        let desk = Rc::new(Desk::new(timeouts));
        rt::spawn(Rc::clone(&desk).run({
            let effe = Arc::clone(&effe);
            move || effe.wake_pool()
        }));
        let seat = effe.seat(desk.mailbox());
        Handler { effe, seat, desk, watch, patience, body_limit, answer: RefCell::default() }
    }

    /// Answers a request that has no body, if it can be done here and now.
    pub fn handle_now(&self, request: &Request) -> Option<Response<Body>> {
        let (response, took) = self.run_inline(request, &[])?;
        // There was nothing else to be done: the run's own two looks at the clock will do.
        Some(self.finish(request.head(), response, Some(took)))
    }

    /// Answers a request.
    pub async fn handle(&self, mut request: Request, answering: Answering) -> Response<Body> {
        let running = self.seat.take_up();
        let begun = self.is_observed().then(Moment::now);
        let response = self.answer(&mut request).await;
        self.finish(request.head(), response, begun.map(Moment::elapsed)).map_body(|_, mut body| {
            if let Body::Stream(stream) = &mut body {
                stream.hold(running, answering);
            }
            body
        })
    }

    async fn answer(&self, request: &mut Request) -> Result<Response<Body>, Failure> {
        let flags = self.effe.generations.current().plugin.flags();
        let mut streams = Streams::declared(flags, self.patience.write);
        let upload = Upload::of(request, self.body_limit, self.patience.read)?;
        let body = match upload {
            None => Bytes::new(),
            Some(upload) if flags & plugin_flags::STREAM_REQUEST != 0 => {
                let inlet = Arc::new(Pipe::default());
                rt::spawn(upload.pump(Arc::clone(&inlet)));
                streams.inlet = Some(inlet);
                Bytes::new()
            }
            Some(upload) => upload.whole().await?,
        };
        let inlet = streams.inlet.clone();
        let response = match self.run_inline(request, &body) {
            Some((response, _)) => response,
            None => self.run_on_pool(request, body, streams).await,
        };
        // A lambda that fails because its body fails is not to blame.
        response.map_err(|failure| match inlet.and_then(|inlet| inlet.broken()) {
            Some(status::TOO_LARGE) if failure == Failure::Lambda => Failure::TooLarge,
            Some(status::TIMEOUT) if failure == Failure::Lambda => Failure::Slow,
            Some(_) if failure == Failure::Lambda => Failure::Malformed,
            _ => failure,
        })
    }

    /// The answer, and how long the run took; `None` if it can't be here.
    fn run_inline(
        &self,
        request: &Request,
        body: &[u8],
    ) -> Option<(Result<Response<Body>, Failure>, Duration)> {
        let generation = self.effe.generations.current();
        if !generation.execution.is_inline() {
            return None;
        }
        self.watch.look();
        let mut answer = self.answer.borrow_mut();
        answer.clear();
        let took = self.effe.run_inline(&generation, request.head(), body, &mut answer, &self.seat)?;
        Some((respond(&mut answer, request).ok_or(Failure::Lambda), took))
    }

    async fn run_on_pool(
        &self,
        request: &Request,
        body: Bytes,
        streams: Streams,
    ) -> Result<Response<Body>, Failure> {
        self.watch.look();
        let mut call = self.desk.call();
        call.head.take(request.head());
        call.body = body;
        let outlet = streams.outlet.clone();
        call.streams = streams;
        let mut asked = self.desk.ask(call, |call| self.effe.run_on_pool(call));
        let outcome = match outlet {
            None => asked.await,
            Some(outlet) => {
                let head = poll_fn(|context| match outlet.poll_head(context) {
                    Poll::Ready(head) => Poll::Ready(Ok(head)),
                    Poll::Pending => Pin::new(&mut asked).poll(context).map(Err),
                });
                match head.await {
                    Ok(head) => return Ok(stream(request, head, outlet, asked)),
                    Err(outcome) => outcome,
                }
            }
        };
        match outcome {
            Outcome::Back(mut call) => {
                let response = respond(&mut call.answer, request);
                let failure = if call.progress.is_given_up() { Failure::Busy } else { Failure::Lambda };
                self.desk.keep(call);
                response.ok_or(failure)
            }
            Outcome::GivenUp => Err(Failure::Busy),
            Outcome::Overdue(progress) => {
                self.effe.lose_thread(&Head::Live(request.head()), &progress.id);
                Err(Failure::Overdue)
            }
        }
    }

    /// Whether anybody wants to know what becomes of requests.
    fn is_observed(&self) -> bool {
        self.seat.meter.is_some()
    }

    /// The answer is ready, and whoever wants to know learns of it; `took` is known if anybody does.
    fn finish(
        &self,
        request: &RequestHead,
        response: Result<Response<Body>, Failure>,
        took: Option<Duration>,
    ) -> Response<Body> {
        let response = self.ready_to_send(response);
        if let (Some(meter), Some(took)) = (&self.seat.meter, took) {
            meter.answered(&request.method, response.status(), took);
        }
        response
    }

    fn ready_to_send(&self, response: Result<Response<Body>, Failure>) -> Response<Body> {
        let mut response = response.unwrap_or_else(|failure| self.failed(failure));
        if self.effe.is_draining() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    fn failed(&self, failure: Failure) -> Response<Body> {
        let (status, text) = failure.answer();
        let mut response = plain(status, text);
        let head = response.head_mut();
        if failure == Failure::Busy {
            head.headers.insert(header::RETRY_AFTER, HeaderValue::from(self.effe.retry_after()));
        }
        if matches!(failure, Failure::TooLarge | Failure::Malformed | Failure::Slow) {
            // What is left of the body is not read, so the connection can't be used again.
            head.set_connection_type(ConnectionType::Close);
        }
        response
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::with_body(status, Body::Whole(Bytes::from_static(text.as_bytes())));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.head_mut().headers.insert(header::CONTENT_TYPE, plain);
    response
}

/// The handler as the server calls it: what can be answered at once needs no future of its own.
pub struct HandlerService {
    pub handler: Rc<Handler>,
    /// What probes are told, if they are not the lambda's to answer.
    pub probes: Option<Arc<Health>>,
    /// Who hears of every request, if anybody does.
    pub access_log: Option<Rc<AccessLog>>,
}

impl Service<Request> for HandlerService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, Handling>;

    actix_service::always_ready!();

    fn call(&self, mut request: Request) -> Self::Future {
        let answering = Answering::begin(&request);
        if let Some(health) = &self.probes
            && let Some(probe) = Probe::at(request.path())
        {
            let (handler, health) = (Rc::clone(&self.handler), Arc::clone(health));
            return Either::right(Box::pin(async move {
                let response = answer_probe(handler, health, probe).await;
                drop(answering);
                response
            }));
        }
        let visit = self.access_log.as_ref().map(|log| log.begin(&mut request));
        if let Payload::None = request.payload()
            && let Some(response) = self.handler.handle_now(&request)
        {
            return Either::left(ready(Ok(logged(response, visit))));
        }
        let handler = Rc::clone(&self.handler);
        Either::right(Box::pin(async move {
            let response = handler.handle(request, answering).await;
            Ok(logged(response, visit))
        }))
    }
}

/// An answer whose line in the access log, if it gets one, is written once its body has gone.
fn logged(mut response: Response<Body>, visit: Option<Visit>) -> Response<Body> {
    let Some(mut visit) = visit else { return response };
    let bytes = if let Body::Whole(bytes) = response.body() { bytes.len() } else { 0 };
    visit.answered(response.head_mut(), bytes);
    response.map_body(|_, mut body| {
        if let Body::Stream(stream) = &mut body {
            stream.log(visit);
        }
        body
    })
}

/// A request that takes its time.
type Handling = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

/// Answers a probe: no request, so it is neither counted nor logged. Why the effe is not ready is not for clients.
async fn answer_probe(
    handler: Rc<Handler>,
    health: Arc<Health>,
    probe: Probe,
) -> Result<Response<Body>, Infallible> {
    let ready = match probe {
        Probe::Liveness => Ok(()),
        Probe::Readiness => health.readiness().await,
    };
    Ok(handler.ready_to_send(match ready {
        Ok(()) => Ok(plain(StatusCode::OK, "ok\n")),
        Err(_) => Err(Failure::NotReady),
    }))
}

/// The lambda's answer, if it gave one.
fn respond(answer: &mut Answer, request: &Request) -> Option<Response<Body>> {
    let length = answer.length();
    let (status, headers, body) = answer.take()?;
    let body = match length {
        // The lambda may know how long the answer to a GET would be, and needn't make it for a HEAD.
        Some(length) if body.is_empty() && request.method() == Method::HEAD => Body::Absent(length),
        _ => Body::Whole(body),
    };
    let mut response = Response::with_body(status, body);
    let head = response.head_mut();
    for (name, value) in headers {
        head.headers.append(name.clone(), value.clone());
    }
    Some(response)
}

/// An answer whose body is still being written.
fn stream(request: &Request, head: outlet::Head, outlet: Arc<Outlet>, asked: Asked) -> Response<Body> {
    let outlet::Head { status, headers, length } = head;
    let has_body = request.method() != Method::HEAD
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let body = if has_body {
        asked.take_your_time();
        Body::Stream(Box::new(Stream::new(outlet, length, asked)))
    } else {
        // Nobody wants the rest.
        outlet.pipe.leave();
        length.map_or(Body::Whole(Bytes::new()), Body::Absent)
    };
    let mut response = Response::with_body(status, body);
    for (name, value) in headers {
        response.head_mut().headers.append(name, value);
    }
    response
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        match refused {
            Refused::TooLarge => Failure::TooLarge,
            Refused::Malformed => Failure::Malformed,
            Refused::Slow => Failure::Slow,
        }
    }
}
