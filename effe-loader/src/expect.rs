//! `Expect: 100-continue`: a client is asked for its body when somebody waits for it, and not before. Whoever is
//! refused, or answered without it, sends none.
//!
//! The server below puts such a request to a service of its own, says `100 Continue` once that is done with it, and
//! only then calls the one that answers. So the answer begins in the first of them and goes on in the second.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_http::{
    HttpMessage, Payload, Request, Response, Version,
    body::{BoxBody, MessageBody},
    error::PayloadError,
};
use actix_service::Service;
use actix_utils::future::Either;
use bytes::Bytes;
use futures_core::Stream;

/// The version of a request that stands for one whose answer has begun: the parser takes none of this version.
const STAND_IN: Version = Version::HTTP_09;

/// The service that answers, of which this is the second half.
pub struct Answers<S>(pub S);

impl<S> Service<Request> for Answers<S>
where
    S: Service<Request, Future: 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Pin<Box<S::Future>>>;

    actix_service::always_ready!();

    fn call(&self, request: Request) -> Self::Future {
        if request.head().version == STAND_IN
            && let Some(Begun(answer)) = request.extensions_mut().remove::<Begun<S::Future>>()
        {
            return Either::right(answer);
        }
        Either::left(self.0.call(request))
    }
}

/// The service that is called first.
pub struct Expects<S>(pub S);

impl<S, B> Service<Request> for Expects<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible, Future: 'static>,
    B: MessageBody + 'static,
{
    type Response = Request;
    type Error = Answered<B>;
    type Future = Expecting<S::Future>;

    actix_service::always_ready!();

    fn call(&self, mut request: Request) -> Self::Future {
        let body = Rc::<Wanted>::default();
        let payload: Payload = match request.take_payload() {
            Payload::None => Payload::None,
            payload => Payload::Stream { payload: Box::pin(Expected { payload, wanted: Rc::clone(&body) }) },
        };
        let (request, _) = request.replace_payload(payload);
        Expecting { answer: Some(Box::pin(self.0.call(request))), body }
    }
}

/// The client gets this without having sent its body.
pub struct Answered<B>(Response<B>);

impl<B: MessageBody + 'static> From<Answered<B>> for Response<BoxBody> {
    fn from(answered: Answered<B>) -> Self {
        answered.0.map_into_boxed_body()
    }
}

/// An answer that goes on in the service that is called next.
struct Begun<F>(Pin<Box<F>>);

/// An answer on its way, until it is there or waits for the body.
pub struct Expecting<F> {
    answer: Option<Pin<Box<F>>>,
    body: Rc<Wanted>,
}

impl<F, B> Future for Expecting<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + 'static,
{
    type Output = Result<Request, Answered<B>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answer.as_mut().expect("nobody polls what has ended");
        if let Poll::Ready(Ok(response)) = answer.as_mut().poll(context) {
            return Poll::Ready(Err(Answered(response)));
        }
        if !self.body.is_wanted.get() {
            *self.body.waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut request = Request::new();
        request.head_mut().version = STAND_IN;
        request.extensions_mut().insert(self.answer.take().map(Begun).expect("it was here just now"));
        Poll::Ready(Ok(request))
    }
}

/// Whether somebody waits for a body.
#[derive(Default)]
struct Wanted {
    is_wanted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A body that its client keeps back.
struct Expected {
    payload: Payload,
    wanted: Rc<Wanted>,
}

impl Stream for Expected {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = Pin::new(&mut self.payload).poll_next(context);
        if piece.is_pending() && !self.wanted.is_wanted.replace(true) {
            // It may be another task that reads.
            if let Some(waker) = self.wanted.waker.take() {
                waker.wake();
            }
        }
        piece
    }
}
