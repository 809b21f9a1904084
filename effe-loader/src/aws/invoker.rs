//! One invocation: its event becomes a request, which the handler of this thread answers as if it had come over a
//! connection.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use actix_http::body::MessageBody;
use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version};
use tokio::time;

use super::{
    event::{Shape, Unfolded, fold, unfold},
    failure::FunctionError,
};
use crate::{
    body::{incoming::Incoming, outgoing::Body, upload::Refused},
    effe::{Effe, monitor::Monitor},
    handler::{
        Handler,
        access_log::{AccessLog, Wanted},
        failure::Failure,
        service::HandlerService,
    },
    http::{
        response::Response,
        service::{Answered, IncomingRequest, RequestGuard, Service},
    },
    message::{
        fields::{Fields, checked},
        invocation::{Invocation, Invoked},
        request::Request,
        response::ResponseHead,
    },
    net::activity::{ClientTimeouts, ConnActivity},
};

const REQUEST_ID: &str = "x-request-id";
const TRACE_ID: &str = "x-amzn-trace-id";
/// How long after its deadline an invocation is given up, unless the handler has done so: that says more in the log.
const GRACE: Duration = Duration::from_millis(20);

/// What one thread has to answer invocations with.
pub struct Invoker {
    service: HandlerService,
    effe: Arc<Effe>,
}

impl Invoker {
    /// To be called on the thread that the invocations are on.
    pub fn new(effe: Arc<Effe>, monitor: Arc<Monitor>, timeouts: ClientTimeouts, wanted: &Wanted) -> Invoker {
        let access_log = AccessLog::new(wanted, &effe.journal).map(Rc::new);
        let handler = Rc::new(Handler::new(Arc::clone(&effe), monitor, timeouts));
        Invoker { service: HandlerService { handler, probes: None, access_log }, effe }
    }

    /// Whether something runs, be it what a run does after its answer.
    pub fn is_busy(&self) -> bool {
        self.effe.n_running() > 0
    }

    /// Runs the lambda, and waits for the head of its answer, which is in the shape of the event, until the
    /// invocation's deadline at most. Dropping the future is what a client does that leaves.
    ///
    /// # Errors
    /// The event makes no request; the lambda has failed; or there is no answer that the sender of the event would
    /// understand.
    pub async fn invoke(&self, invocation: &Arc<Invocation>) -> Result<(Shape, Response), FunctionError> {
        let unfolded =
            unfold(&invocation.event).map_err(|text| FunctionError::new("Effe.InvalidEvent", text))?;
        let shape = unfolded.shape;
        let (request, body) = request(invocation, unfolded);
        let guard = RequestGuard::begin(&Rc::<ConnActivity>::default(), &request, None);
        let incoming = if body.is_empty() { Incoming::None } else { Incoming::Whole(body) };
        let answered = self.service.call(IncomingRequest { request, n_head: None, incoming, guard });
        let response = match answered {
            Answered::Now(response) => response,
            Answered::Later(answer) => match invocation.deadline {
                Some(deadline) => {
                    let answer = time::timeout(deadline.remaining() + GRACE, answer).await;
                    answer.map_err(|_| FunctionError::timed_out())?
                }
                None => answer.await,
            },
        };
        let failure = noted(&response);
        match failure.and_then(|failure| function_error(failure, shape, invocation)) {
            Some(err) => Err(err),
            None => Ok((shape, response)),
        }
    }
}

/// The request of an event. Its id is the invocation's, in the log too.
fn request(invocation: &Arc<Invocation>, unfolded: Unfolded) -> (Request, Bytes) {
    let Unfolded { method, target, mut fields, body, peer, is_tls, .. } = unfolded;
    for (name, value) in
        [(REQUEST_ID, Some(&invocation.request_id)), (TRACE_ID, invocation.trace_id.as_ref())]
    {
        if let Some(value) = value.filter(|value| checked(name.as_bytes(), value.as_bytes()).is_some()) {
            fields.insert(name, value.as_bytes());
        }
    }
    let request = Request::new(|head| {
        (head.method, head.version, head.fields) = (method, Version::HTTP_11, fields);
        head.set_target(|text| {
            text.push_str(target.as_str());
            target.path().len()
        });
        (head.peer, head.is_tls) = (peer.map(|ip| SocketAddr::new(ip, 0)), is_tls);
        head.invoked = Invoked::by(Arc::clone(invocation));
    });
    (request, body)
}

/// The failure that the handler has answered with.
pub fn noted(response: &Response) -> Option<Failure> {
    response.note.as_ref()?.downcast_ref().copied()
}

/// What a failure is for the caller of the function; `None` where the answer tells it, because its event is HTTP and
/// the lambda has no fault.
fn function_error(failure: Failure, shape: Shape, invocation: &Invocation) -> Option<FunctionError> {
    let is_http = shape != Shape::Other;
    let error = match failure {
        Failure::Lambda => match invocation.fault() {
            Some(fault) if fault.step == "start" => {
                FunctionError::new("Effe.StartFailed", "the lambda's start failed")
            }
            Some(fault) if fault.is_panic => FunctionError::new("Effe.LambdaPanicked", "the lambda panicked"),
            _ => FunctionError::new("Effe.LambdaFailed", "the lambda failed"),
        },
        Failure::Overdue => FunctionError::timed_out(),
        _ if is_http => return None,
        Failure::Busy | Failure::NoRoom | Failure::NotReady | Failure::Body(Refused::NoRoom) => {
            FunctionError::new("Effe.Busy", failure.answer().1.trim_end())
        }
        Failure::Head(_) | Failure::Body(_) => {
            FunctionError::new("Effe.InvalidEvent", failure.answer().1.trim_end())
        }
    };
    Some(error)
}

/// A response that has come as a whole.
pub struct Whole {
    pub status: StatusCode,
    pub fields: Arc<Fields>,
    pub body: Bytes,
}

impl Whole {
    /// Waits for all of a response's body, until the invocation's deadline at most.
    pub async fn of(response: Response, invocation: &Invocation) -> Result<Whole, FunctionError> {
        let Response { head: ResponseHead { status, fields, .. }, body, .. } = response;
        let body = match body {
            Body::Whole(bytes) => bytes,
            // There is no connection that a lambda could take over.
            Body::Absent(_) | Body::Upgrade(_) => Bytes::new(),
            body @ Body::Stream(_) => match invocation.deadline {
                Some(deadline) => time::timeout(deadline.remaining() + GRACE, collected(body))
                    .await
                    .unwrap_or_else(|_| Err(FunctionError::timed_out()))?,
                None => collected(body).await?,
            },
        };
        Ok(Whole { status, fields, body })
    }

    /// The result of the invocation. What isn't HTTP has failed if its status says so.
    pub fn result(&self, shape: Shape) -> Result<Vec<u8>, FunctionError> {
        if shape == Shape::Other && self.status.as_u16() >= 400 {
            return Err(FunctionError::of_answer(self.status.as_u16(), &self.body));
        }
        Ok(fold(shape, self.status, &self.fields, &self.body))
    }
}

async fn collected(mut body: Body) -> Result<Bytes, FunctionError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
        whole.extend_from_slice(&piece.map_err(|_| FunctionError::broken_off())?);
    }
    Ok(whole.freeze())
}
