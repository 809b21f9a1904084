//! The body of a response as the server sends it: held whole, or as a run writes it.

use std::{
    any::Any,
    future::Future,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::{
    body::{duplex::Upgraded, pipe::End, sender::BodySender, trailers::Trailers},
    message::response::ResponseHead,
    rt::inner_waker::InnerWaker,
};

pub enum Body {
    Whole(Bytes),
    /// Not sent, but this is how long it would be, if that is known.
    Absent(Option<u64>),
    Stream(Box<Stream>),
    /// What follows the head is another protocol, which a lambda speaks.
    Upgrade(Box<Upgrade>),
}

/// The end of a connection that a lambda takes over.
pub struct Upgrade {
    pub end: Upgraded,
    /// What is left of the run, if it is polled: by the connection's task, so that bytes that come wake no other task.
    /// Dropped, it goes on elsewhere.
    pub run: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Dropped with it.
    pub guard: Option<Box<dyn Any>>,
}

impl Upgrade {
    /// Lets the run go on, if it was woken and is polled here.
    pub fn go_on(&mut self, inner: &InnerWaker) {
        if inner.take()
            && let Some(run) = &mut self.run
            && run.as_mut().poll(&mut Context::from_waker(inner.waker())).is_ready()
        {
            self.run = None;
        }
    }
}

impl MessageBody for Body {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        match self {
            Body::Whole(bytes) => BodySize::Sized(bytes.len() as u64),
            Body::Absent(length) => length.map_or(BodySize::None, BodySize::Sized),
            Body::Stream(stream) => stream.size,
            Body::Upgrade(_) => BodySize::None,
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let stream = match self.get_mut() {
            Body::Whole(bytes) => {
                let bytes = mem::take(bytes);
                return Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)));
            }
            Body::Absent(_) | Body::Upgrade(_) => return Poll::Ready(None),
            Body::Stream(stream) => stream,
        };
        let sender = match &mut stream.source {
            Source::Sender(sender) => sender,
            Source::Held(..) => {
                let bytes = stream.take_bytes();
                return Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)));
            }
        };
        if stream.producer.as_mut().is_some_and(|producer| producer.poll(cx).is_ready()) {
            stream.producer = None;
        }
        match ready!(sender.pipe.poll_next(cx)) {
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
            // The server polls again, and before that sends what it has taken so far.
            Err(End::Broken(_)) if !stream.breaks_off => {
                stream.breaks_off = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // The connection is broken off, so that the client can't take the body for a whole one.
            Err(End::Broken(_)) => Poll::Ready(Some(Err(io::Error::other("the lambda's answer broke off")))),
        }
    }
}

impl Body {
    /// What comes behind the body, once all of it was taken.
    pub fn trailers(&self) -> Option<&Trailers> {
        match self {
            Body::Stream(stream) => match &stream.source {
                Source::Sender(sender) => sender.pipe.trailers(),
                Source::Held(_, trailers) => Some(trailers).filter(|trailers| !trailers.is_empty()),
            },
            _ => None,
        }
    }
}

/// Writes a body while it is sent. When it is dropped, nobody wants the rest.
pub trait Producer {
    /// Lets the producer go on; ready once it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The body is complete and has been taken. The producer may have more to do.
    fn finish(self: Box<Self>);
}

/// Is told how much of a body was sent. It is dropped once the body has gone.
pub trait Observer {
    fn sent(&mut self, n_bytes: usize);
}

pub struct Stream {
    source: Source,
    size: BodySize,
    /// Interim responses that go out before the head.
    pub interims: Vec<ResponseHead>,
    /// Whether it has ended before it was whole.
    breaks_off: bool,
    /// `None` once it is over.
    producer: Option<Box<dyn Producer>>,
    pub observer: Option<Box<dyn Observer>>,
    /// Dropped once the body has gone.
    pub guard: Option<Box<dyn Any>>,
}

enum Source {
    Sender(Arc<BodySender>),
    /// All of it, and what comes behind it.
    Held(Bytes, Trailers),
}

impl Stream {
    pub fn new(sender: Arc<BodySender>, length: Option<u64>, producer: Option<Box<dyn Producer>>) -> Stream {
        let size = length.map_or(BodySize::Stream, BodySize::Sized);
        let mut stream = Stream::of(Source::Sender(sender), size);
        stream.producer = producer;
        stream
    }

    /// A body that is complete, of a response that has more than a head and a body.
    pub fn complete(body: Bytes, size: BodySize, trailers: Trailers) -> Stream {
        Stream::of(Source::Held(body, trailers), size)
    }

    /// The body, if it is complete.
    pub fn held(&self) -> Option<&Bytes> {
        if let Source::Held(bytes, _) = &self.source { Some(bytes) } else { None }
    }

    /// Takes a body that is complete, and what comes behind it.
    #[cfg(feature = "http2")]
    pub fn take_held(&mut self) -> (Bytes, Trailers) {
        let bytes = self.take_bytes();
        match &mut self.source {
            Source::Held(_, trailers) => (bytes, mem::replace(trailers, Trailers::NONE)),
            Source::Sender(_) => (bytes, Trailers::NONE),
        }
    }

    fn take_bytes(&mut self) -> Bytes {
        let Source::Held(bytes, _) = &mut self.source else { return Bytes::new() };
        let bytes = mem::take(bytes);
        if let Some(observer) = &mut self.observer {
            observer.sent(bytes.len());
        }
        bytes
    }

    fn of(source: Source, size: BodySize) -> Stream {
        let interims = Vec::new();
        Stream { source, size, interims, breaks_off: false, producer: None, observer: None, guard: None }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Source::Sender(sender) = &self.source {
            sender.pipe.close();
        }
    }
}
