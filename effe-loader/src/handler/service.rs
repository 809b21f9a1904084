//! The handler as connections call it, with what comes before and after it: the rules of HTTP, probes, the access log,
//! and catching panics of our own.

use std::{
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use http::StatusCode;

use super::{Attempt, Handler, failure::Failure};
use crate::{
    body::{incoming::Incoming, outgoing::Body},
    effe::health::{Health, Probe},
    handler::access_log::{AccessEntry, AccessLog},
    http::{
        canned::{plain, sorry},
        response::Response,
        service::{Answered, Guarded, IncomingRequest, RequestGuard, Service},
        validate,
    },
};

/// What can be answered at once needs no future of its own.
pub struct HandlerService {
    pub handler: Rc<Handler>,
    /// What probes are told; `None` if the lambda answers them.
    pub probes: Option<Arc<Health>>,
    pub access_log: Option<Rc<AccessLog>>,
}

impl Service for HandlerService {
    fn call(&self, request: IncomingRequest) -> Answered {
        let IncomingRequest { mut request, n_head, incoming, guard } = request;
        if let Err(violation) = validate::check(&request, n_head) {
            return Answered::Now(self.handler.finish(&request, Err(Failure::Head(violation)), None));
        }
        if let Some(health) = &self.probes
            && let Some(probe) = Probe::at(request.path())
        {
            let (handler, health) = (Rc::clone(&self.handler), Arc::clone(health));
            return Answered::Later(Guarded(Box::pin(answer_probe(handler, health, probe, guard))));
        }
        let entry = self.access_log.as_ref().map(|log| log.begin(&mut request));
        let nothing = Bytes::new();
        let body = match &incoming {
            Incoming::None => Some(&nothing),
            Incoming::Whole(body) if body.len() <= self.handler.worker.effe.limits.body => Some(body),
            _ => None,
        };
        let attempt = body.map_or(Attempt::Later, |body| {
            panic::catch_unwind(AssertUnwindSafe(|| self.handler.try_now(&request, body)))
                .unwrap_or_else(|_| Attempt::Answered(sorry()))
        });
        if let Attempt::Answered(response) = attempt {
            return Answered::Now(logged(response, entry));
        }
        let handler = Rc::clone(&self.handler);
        Answered::Later(Guarded(Box::pin(async move {
            logged(handler.handle(request, incoming, attempt, guard).await, entry)
        })))
    }

    #[cfg(feature = "http2")]
    fn takes_offers(&self) -> bool {
        self.handler.takes_offers()
    }
}

/// Answers a probe, which is neither counted nor logged. Why the effe is not ready is not for clients.
async fn answer_probe(
    handler: Rc<Handler>,
    health: Arc<Health>,
    probe: Probe,
    _guard: RequestGuard,
) -> Response {
    let ready = match probe {
        Probe::Liveness => Ok(()),
        Probe::Readiness => health.readiness().await,
    };
    handler.ready_to_send(ready.map(|()| plain(StatusCode::OK, "ok\n")).map_err(|_| Failure::NotReady))
}

/// The answer as it is sent. Its line in the access log, if it gets one, is written once all of its body has been sent.
fn logged(mut response: Response, entry: Option<AccessEntry>) -> Response {
    let Some(mut entry) = entry else { return response };
    let bytes = if let Body::Whole(bytes) = &response.body { bytes.len() } else { 0 };
    entry.answered(&mut response.head, bytes);
    response.map_body(|mut body| {
        if let Body::Stream(stream) = &mut body {
            stream.observer = Some(Box::new(entry));
        }
        body
    })
}
