//! The body of an answer as the server sends it: held whole, or as it comes out of a run.

use std::{
    future::Future,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::{
    body::{pipe::End, sender::Outlet},
    effe::async_run::Waiting,
    handler::access_log::Visit,
    http::request_guard::RequestGuard,
    scheduler::{in_flight::Asked, worker_status::Running},
};

/// The body of an answer.
pub enum Body {
    /// Here already.
    Whole(Bytes),
    /// Not sent, but this is how long it would be.
    Absent(u64),
    /// Comes piece by piece.
    Stream(Box<Stream>),
}

impl MessageBody for Body {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        match self {
            Body::Whole(bytes) => BodySize::Sized(bytes.len() as u64),
            Body::Absent(length) => BodySize::Sized(*length),
            Body::Stream(stream) => stream.length.map_or(BodySize::Stream, BodySize::Sized),
        }
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let stream = match self.get_mut() {
            Body::Whole(bytes) => {
                let bytes = mem::take(bytes);
                return Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)));
            }
            Body::Absent(_) => return Poll::Ready(None),
            Body::Stream(stream) => stream,
        };
        stream.poll_source(context);
        match ready!(stream.outlet.pipe.poll_next(context)) {
            Ok(piece) => {
                if let Some(visit) = &mut stream.visit {
                    visit.sent(piece.len());
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Err(End::Whole) => {
                // Its last word may be on another thread, and it may have more to do than to answer.
                if let Source::Polled(waiting) = mem::replace(&mut stream.source, Source::Done) {
                    waiting.go_on();
                }
                Poll::Ready(None)
            }
            // Once more, so that the server sends what it has taken so far.
            Err(End::Broken(_)) if !stream.breaks_off => {
                stream.breaks_off = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            // The connection is broken off: the end of a body that is not whole must not look like one.
            Err(End::Broken(_)) => Poll::Ready(Some(Err(io::Error::other("the lambda's answer broke off")))),
        }
    }
}

/// The run that writes a body. Dropping it tells the run that the client has left, or ends it.
pub enum Source {
    /// On the pool.
    Pool(Asked),
    /// Polled with the body.
    Polled(Waiting),
    /// It is over.
    Done,
}

/// A body that a run writes while it is sent.
pub struct Stream {
    outlet: Arc<Outlet>,
    length: Option<u64>,
    /// Whether it ends before it is whole.
    breaks_off: bool,
    source: Source,
    /// Until the body has gone, the request is being answered.
    held: Option<(Running, RequestGuard)>,
    /// Its line in the access log.
    visit: Option<Visit>,
}

impl Stream {
    /// The body that follows a head.
    pub fn new(outlet: Arc<Outlet>, length: Option<u64>, source: Source) -> Stream {
        Stream { outlet, length, breaks_off: false, source, held: None, visit: None }
    }

    /// Lets an async run go on, for as long as what it has written is wanted.
    fn poll_source(&mut self, context: &mut Context<'_>) {
        let Source::Polled(waiting) = &mut self.source else { return };
        match Pin::new(&mut *waiting).poll(context) {
            Poll::Ready(call) => waiting.keep(call),
            Poll::Pending if waiting.progress().poll_left(context).is_ready() => self.outlet.abandon(),
            Poll::Pending => return,
        }
        self.source = Source::Done;
    }

    /// What hears how much was sent, and writes its line once the body has gone.
    pub fn log(&mut self, visit: Visit) {
        self.visit = Some(visit);
    }

    /// What is given back once the body has gone.
    pub fn hold(&mut self, running: Running, guard: RequestGuard) {
        match &self.source {
            Source::Pool(asked) => guard.watch(asked.progress()),
            Source::Polled(waiting) => guard.watch(Some(Arc::clone(waiting.progress()))),
            Source::Done => {}
        }
        self.held = Some((running, guard));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.outlet.pipe.leave();
    }
}
