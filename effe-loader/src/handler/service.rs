//! The handler as connections call it, with what comes before and after it: the rules of HTTP, probes, the access log,
//! and the fence around our own panics.

use std::{
    convert::Infallible,
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    sync::Arc,
};

use actix_http::{Response, StatusCode};
use bytes::Bytes;

use super::{Attempt, Handler, failure::Failure};
use crate::{
    body::{incoming::Incoming, outgoing::Body},
    effe::health::{Health, Probe},
    handler::access_log::{AccessEntry, AccessLog},
    http::{
        canned::{plain, sorry},
        service::{Answered, Guarded, IncomingRequest, Service},
        validate,
    },
};

/// The handler as connections call it: what can be answered at once needs no future of its own.
pub struct HandlerService {
    pub handler: Rc<Handler>,
    /// What probes are told, if they are not the lambda's to answer.
    pub probes: Option<Arc<Health>>,
    /// Who hears of every request, if anybody does.
    pub access_log: Option<Rc<AccessLog>>,
}

impl Service for HandlerService {
    fn call(&self, request: IncomingRequest) -> Answered {
        let IncomingRequest { mut request, n_head, incoming, guard } = request;
        if let Err(violation) = validate::check(request.head(), n_head) {
            return Answered::Now(self.handler.finish(request.head(), Err(violation.into()), None));
        }
        if let Some(health) = &self.probes
            && let Some(probe) = Probe::at(request.path())
        {
            let (handler, health) = (Rc::clone(&self.handler), Arc::clone(health));
            return Answered::Later(Guarded::new(Box::pin(async move {
                let response = answer_probe(handler, health, probe).await;
                drop(guard);
                response
            })));
        }
        let entry = self.access_log.as_ref().map(|log| log.begin(&mut request));
        let nothing = Bytes::new();
        let body = match &incoming {
            Incoming::None => Some(&nothing),
            Incoming::Whole(body) if body.len() <= self.handler.body_limit() => Some(body),
            _ => None,
        };
        let mut now = Attempt::Later;
        if let Some(body) = body {
            let done = panic::catch_unwind(AssertUnwindSafe(|| now = self.handler.try_now(&request, body)));
            if done.is_err() {
                now = Attempt::Answered(sorry());
            }
            if let Attempt::Answered(response) = now {
                return Answered::Now(logged(response, entry));
            }
        }
        let handler = Rc::clone(&self.handler);
        Answered::Later(Guarded::new(Box::pin(async move {
            Ok(logged(handler.handle(request, incoming, now, guard).await, entry))
        })))
    }
}

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

/// An answer whose line in the access log, if it gets one, is written once its body has gone.
fn logged(mut response: Response<Body>, entry: Option<AccessEntry>) -> Response<Body> {
    let Some(mut entry) = entry else { return response };
    let bytes = if let Body::Whole(bytes) = response.body() { bytes.len() } else { 0 };
    entry.answered(response.head_mut(), bytes);
    response.map_body(|_, mut body| {
        if let Body::Stream(stream) = &mut body {
            stream.observer = Some(Box::new(entry));
        }
        body
    })
}
