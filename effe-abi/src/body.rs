//! The body of a request as an async lambda reads it: piece by piece, in the run or in a task of its own, for as long
//! as the run lasts.
//!
//! Where the pieces come from is left to `body/source.rs`. A body that is read by calls that wait is left to
//! `request.rs`.

pub(crate) mod source;

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{self, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use self::source::Link;
use crate::request::{Request, TAKEN};

/// The body of a request. It is a [`Stream`] of bytes, an `AsyncRead` and, with the feature `http`, an
/// `http_body::Body`. Needs the feature `async`.
///
/// It may be sent to a task and may outlive its run; reading it then ends in an error.
pub struct Body {
    /// What has arrived and is not read yet.
    here: Bytes,
    rest: Rest,
}

enum Rest {
    Nothing,
    Stream(Arc<Link>),
    /// All has been read but the trailers.
    Ended(Arc<Link>),
    /// Another body reads the stream; reading this one is an error.
    Taken,
}

impl Request {
    /// The body. If the lambda declares [`Options::stream_request`](crate::Options::stream_request), its pieces come as
    /// they arrive; without, all of it is here already. Only one body can read the stream: reading a second one fails.
    /// Needs the feature `async`.
    pub fn body(&self) -> Body {
        let exchange = self.exchange();
        let rest = if !exchange.more_body() {
            Rest::Nothing
        } else if self.take_stream() {
            let source = self.source();
            let link = Link {
                exchange: Mutex::new(Some(exchange)),
                async_host: source.host,
                #[cfg(feature = "http")]
                host: crate::report::current(),
            };
            Rest::Stream(Arc::clone(source.link.get_or_init(|| Arc::new(link))))
        } else {
            Rest::Taken
        };
        let here = if matches!(rest, Rest::Taken) { &[] } else { exchange.body() };
        // A copy of nothing costs more than nothing.
        let here = if here.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(here) };
        Body { here, rest }
    }
}

impl Body {
    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Option<io::Result<Bytes>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// All that is left of it.
    ///
    /// # Errors
    /// The client left before the end, or the body is larger than the operator's limit.
    pub async fn bytes(mut self) -> io::Result<Bytes> {
        let Some(first) = self.chunk().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await.transpose()? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(piece) = self.chunk().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all.freeze())
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if !self.here.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.here))));
            }
            let piece = match &self.rest {
                Rest::Nothing | Rest::Ended(_) => None,
                Rest::Taken => Some(Err(io::Error::other(TAKEN))),
                Rest::Stream(link) => ready!(link.poll_read(cx.waker())),
            };
            match piece {
                Some(Ok(piece)) => self.here = piece,
                end => {
                    self.rest = match std::mem::replace(&mut self.rest, Rest::Nothing) {
                        Rest::Stream(link) if end.is_none() => Rest::Ended(link),
                        Rest::Ended(link) => Rest::Ended(link),
                        _ => Rest::Nothing,
                    };
                    return Poll::Ready(end);
                }
            }
        }
    }

    /// How many bytes are here, and whether they are all that is left.
    #[cfg(feature = "http")]
    pub(crate) fn left(&self) -> (usize, bool) {
        (self.here.len(), matches!(self.rest, Rest::Nothing | Rest::Ended(_)))
    }

    /// What of the request comes behind the body, once all of that has been read.
    #[cfg(feature = "http")]
    pub(crate) fn take_end(&mut self) -> Option<Arc<Link>> {
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Ended(link) => Some(link),
            rest => {
                self.rest = rest;
                None
            }
        }
    }
}

impl Stream for Body {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(cx)
    }
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.here.is_empty() {
            match ready!(self.poll_chunk(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(piece) => self.here = piece?,
            }
        }
        let n = self.here.len().min(buffer.remaining());
        buffer.put_slice(&self.here[..n]);
        self.here.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if let Rest::Stream(_) = self.rest { " and more" } else { "" };
        write!(f, "Body({} bytes{more})", self.here.len())
    }
}
