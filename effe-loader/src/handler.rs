//! One request: its body is read, the lambda is run, the answer goes out. Every failure becomes a status here.

use std::{cell::RefCell, convert::Infallible, future::Future, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use actix_http::{
    ConnectionType, Payload, Request, RequestHead, Response, StatusCode,
    error::PayloadError,
    header::{self, HeaderValue},
};
use actix_service::Service;
use actix_utils::future::{Either, Ready, ready};
use actix_web::rt;
use bytes::{Bytes, BytesMut};

use crate::{
    answer::Answer,
    call::{Desk, Outcome, Timeouts},
    clock::Moment,
    connection::Traffic,
    effe::Effe,
    exchange::Head,
    health::{Health, Probe},
    seat::Seat,
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
    body_limit: usize,
    /// Where a run on this thread puts its answer.
    answer: RefCell<Answer>,
}

impl Handler {
    /// A handler for the thread that this is called on.
    pub fn new(effe: Arc<Effe>, watch: Arc<Watch>, timeouts: Timeouts, body_limit: usize) -> Handler {
        let desk = Rc::new(Desk::new(timeouts));
        rt::spawn(Rc::clone(&desk).run({
            let effe = Arc::clone(&effe);
            move || effe.wake_pool()
        }));
        let seat = effe.seat(desk.mailbox());
        Handler { effe, seat, desk, watch, body_limit, answer: RefCell::default() }
    }

    /// Answers a request that has no body, if it can be done here and now.
    pub fn handle_now(&self, request: &Request) -> Option<Response<Bytes>> {
        let (response, took) = self.run_inline(request, &[])?;
        // There was nothing else to be done: the run's own two looks at the clock will do.
        Some(self.finish(request.head(), response, Some(took)))
    }

    /// Answers a request.
    pub async fn handle(&self, mut request: Request) -> Response<Bytes> {
        let _running = self.seat.take_up();
        let begun = self.is_observed().then(Moment::now);
        let response = self.answer(&mut request).await;
        self.finish(request.head(), response, begun.map(Moment::elapsed))
    }

    async fn answer(&self, request: &mut Request) -> Result<Response<Bytes>, Failure> {
        let body = read_body(request, self.body_limit).await?;
        match self.run_inline(request, &body) {
            Some((response, _)) => response,
            None => self.run_on_pool(request, body).await,
        }
    }

    /// The answer, and how long the run took; `None` if it can't be here.
    fn run_inline(
        &self,
        request: &Request,
        body: &[u8],
    ) -> Option<(Result<Response<Bytes>, Failure>, Duration)> {
        let generation = self.effe.generations.current();
        if !generation.execution.is_inline() {
            return None;
        }
        self.watch.look();
        let mut answer = self.answer.borrow_mut();
        answer.clear();
        let took = self.effe.run_inline(&generation, request.head(), body, &mut answer, &self.seat)?;
        Some((respond(&mut answer).ok_or(Failure::Lambda), took))
    }

    async fn run_on_pool(&self, request: &Request, body: Bytes) -> Result<Response<Bytes>, Failure> {
        self.watch.look();
        let mut call = self.desk.call();
        call.head.take(request.head());
        call.body = body;
        match self.desk.ask(call, |call| self.effe.run_on_pool(call)).await {
            Outcome::Back(mut call) => {
                let response = respond(&mut call.answer);
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
        response: Result<Response<Bytes>, Failure>,
        took: Option<Duration>,
    ) -> Response<Bytes> {
        let response = self.ready_to_send(response);
        if let (Some(meter), Some(took)) = (&self.seat.meter, took) {
            meter.answered(&request.method, response.status(), took);
        }
        response
    }

    fn ready_to_send(&self, response: Result<Response<Bytes>, Failure>) -> Response<Bytes> {
        let mut response = response.unwrap_or_else(|failure| self.failed(failure));
        if self.effe.is_draining() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    fn failed(&self, failure: Failure) -> Response<Bytes> {
        let (status, text) = failure.answer();
        let mut response = plain(status, text);
        let head = response.head_mut();
        if failure == Failure::Busy {
            head.headers.insert(header::RETRY_AFTER, HeaderValue::from(self.effe.retry_after()));
        }
        if matches!(failure, Failure::TooLarge | Failure::Malformed) {
            // What is left of the body is not read, so the connection can't be used again.
            head.set_connection_type(ConnectionType::Close);
        }
        response
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::with_body(status, Bytes::from_static(text.as_bytes()));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.head_mut().headers.insert(header::CONTENT_TYPE, plain);
    response
}

/// The handler as the server calls it: what can be answered at once needs no future of its own.
pub struct HandlerService {
    pub handler: Rc<Handler>,
    /// What probes are told, if they are not the lambda's to answer.
    pub probes: Option<Arc<Health>>,
}

impl Service<Request> for HandlerService {
    type Response = Response<Bytes>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Bytes>, Infallible>>, Handling>;

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
        if let Payload::None = request.payload()
            && let Some(response) = self.handler.handle_now(&request)
        {
            return Either::left(ready(Ok(response)));
        }
        let handler = Rc::clone(&self.handler);
        Either::right(Box::pin(async move {
            let response = handler.handle(request).await;
            drop(answering);
            Ok(response)
        }))
    }
}

/// A request that its connection knows to be under way.
struct Answering(Option<Rc<Traffic>>);

impl Answering {
    fn begin(request: &Request) -> Answering {
        let traffic = request.conn_data::<Rc<Traffic>>().cloned();
        if let Some(traffic) = &traffic {
            traffic.begin();
        }
        Answering(traffic)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(traffic) = &self.0 {
            traffic.end();
        }
    }
}

/// A request that takes its time.
type Handling = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Infallible>>>>;

/// Answers a probe: no request, so it is neither counted nor logged. Why the effe is not ready is not for clients.
async fn answer_probe(
    handler: Rc<Handler>,
    health: Arc<Health>,
    probe: Probe,
) -> Result<Response<Bytes>, Infallible> {
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
fn respond(answer: &mut Answer) -> Option<Response<Bytes>> {
    let (status, headers, body) = answer.take()?;
    let mut response = Response::with_body(status, body);
    let head = response.head_mut();
    for (name, value) in headers {
        head.headers.append(name.clone(), value.clone());
    }
    Some(response)
}

/// The whole body, without a copy if it comes in one piece.
async fn read_body(request: &mut Request, limit: usize) -> Result<Bytes, Failure> {
    if let Payload::None = request.payload() {
        return Ok(Bytes::new());
    }
    let announced = request.head().headers.get(header::CONTENT_LENGTH);
    let announced =
        announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Failure::TooLarge);
    }
    let mut payload = request.take_payload();
    let Some(first) = next(&mut payload).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(Failure::TooLarge);
    }
    let Some(second) = next(&mut payload).await? else { return Ok(first) };
    let mut body = BytesMut::with_capacity(announced.unwrap_or(first.len() + second.len()));
    body.extend_from_slice(&first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        if body.len() + bytes.len() > limit {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&bytes);
        piece = next(&mut payload).await?;
    }
    Ok(body.freeze())
}

async fn next(payload: &mut Payload) -> Result<Option<Bytes>, Failure> {
    use futures_core::Stream;
    let piece = std::future::poll_fn(|context| Pin::new(&mut *payload).poll_next(context)).await;
    piece.transpose().map_err(|err| match err {
        PayloadError::Overflow => Failure::TooLarge,
        _ => Failure::Malformed,
    })
}
