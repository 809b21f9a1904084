//! The body of an answer as the server sends it: held whole, or as it comes out of a run.

use std::{
    any::Any,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::body::{pipe::End, sender::BodySender};

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
        if stream.producer.as_mut().is_some_and(|producer| producer.poll(context).is_ready()) {
            stream.producer = None;
        }
        match ready!(stream.sender.pipe.poll_next(context)) {
            Ok(piece) => {
                if let Some(observer) = &mut stream.observer {
                    observer.sent(piece.len());
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Err(End::Whole) => {
                if let Some(producer) = stream.producer.take() {
                    producer.finish();
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

/// Whoever writes a body while it is sent. When it is dropped, nobody wants the rest.
pub trait Producer {
    /// Lets the producer go on, for as long as what it has written is wanted; ready once it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The body is complete and has been taken. The producer may have more to do.
    fn finish(self: Box<Self>);
}

/// Whoever wants to know how much of a body was sent. It is dropped once the body has gone.
pub trait Observer {
    /// So many more bytes were sent.
    fn sent(&mut self, n_bytes: usize);
}

/// A body that is written while it is sent.
pub struct Stream {
    sender: Arc<BodySender>,
    length: Option<u64>,
    /// Whether it ends before it is whole.
    breaks_off: bool,
    /// `None` once it is over.
    producer: Option<Box<dyn Producer>>,
    observer: Option<Box<dyn Observer>>,
    /// What is given back once the body has gone.
    guard: Option<Box<dyn Any>>,
}

impl Stream {
    /// The body that follows a head.
    pub fn new(sender: Arc<BodySender>, length: Option<u64>, producer: Option<Box<dyn Producer>>) -> Stream {
        Stream { sender, length, breaks_off: false, producer, observer: None, guard: None }
    }

    /// Tells `observer` how much is sent.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Drops `guard` once the body has gone.
    pub fn hold(&mut self, guard: Box<dyn Any>) {
        self.guard = Some(guard);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.sender.pipe.leave();
    }
}
