//! What answers the requests of a connection, whichever protocol it speaks: a `Service`, which the handler of the effe and
//! the admin listener implement. The protocols call it as `dyn`, so that their code is in the program once.

use std::{
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::Response;

use crate::{
    body::{incoming::Incoming, outgoing::Body},
    http::{canned::sorry, head::Request, request_guard::RequestGuard},
};

pub trait Service {
    /// Begins to answer a request; at once, if that needs no waiting.
    fn call(&self, request: IncomingRequest) -> Answered;
}

/// A request as a protocol hands it on.
pub struct IncomingRequest {
    pub request: Request,
    /// The bytes that it took on the connection; `None` over HTTP/2, which compresses heads.
    pub n_head: Option<usize>,
    pub incoming: Incoming,
    /// To be kept until the request is answered.
    pub guard: RequestGuard,
}

/// What a service makes of a request.
pub enum Answered {
    Now(Response<Body>),
    Later(Guarded),
}

/// A future of an answer, which becomes a 500 if our own code panics. A panic of a lambda is caught in its plugin.
pub struct Guarded(pub Pin<Box<dyn Future<Output = Response<Body>>>>);

impl Future for Guarded {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(sorry()))
    }
}

#[cfg(test)]
mod tests {
    use actix_http::ConnectionType;

    use super::*;

    #[test]
    fn a_panic_of_ours_is_a_500() {
        let mut guarded = Guarded(Box::pin(async { panic!("ours") }));
        let polled = Pin::new(&mut guarded).poll(&mut Context::from_waker(std::task::Waker::noop()));
        let Poll::Ready(response) = polled else { panic!("there is an answer") };
        assert_eq!(response.status(), 500);
        assert_eq!(response.head().connection_type(), ConnectionType::Close);
    }
}
