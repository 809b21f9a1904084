//! A request's body on its way in: read whole, or handed on as it arrives; never more than its limit, nor slower than
//! the minimal rate.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use actix_http::error::PayloadError;
use bytes::Bytes;
use effe_abi::raw::status;

use crate::{
    body::{
        coalesce::Coalesce,
        held::{HeldBytes, Room},
        incoming::{Incoming, Pieces},
        min_rate::MinRate,
        pipe::{CAPACITY, End, Pipe},
        trailers::Trailers,
    },
    message::request::RequestHead,
};

/// Bytes. A piece up to this size is copied rather than handed on by itself. A full frame of HTTP/2 is larger.
const SHORT: usize = 8 * 1024;

/// Bytes that a body is given at first if it is announced to be as long; and how many times as much as it has then.
const TRUSTED: usize = 256 * 1024;
const GROWTH: usize = 3;

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    TooLarge,
    /// It broke off or was not what its head says.
    Malformed,
    Slow,
    /// The process holds as many bytes as it may.
    NoRoom,
}

pub struct Upload {
    first: Option<Bytes>,
    rest: Option<Pieces>,
    announced: Option<usize>,
    /// Whether the client sends nothing before it is asked to.
    expected: bool,
    limit: usize,
    n_bytes: usize,
    min_rate: MinRate,
    /// Of a body that isn't read whole.
    coalesce: Coalesce<PayloadError>,
}

impl Upload {
    /// The body of a request; `None` if it has none. It is refused if its Content-Length is too large.
    pub fn of(
        incoming: Incoming,
        head: &RequestHead,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<Option<Upload>, Refused> {
        let (first, rest, expected) = match incoming {
            Incoming::None => return Ok(None),
            Incoming::Whole(bytes) => (Some(bytes), None, false),
            Incoming::Pieces(pieces) => (None, Some(pieces), false),
            Incoming::KeptBack(pieces) => (None, Some(pieces), true),
        };
        let announced = head.length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if announced.is_some_and(|length| length > limit) {
            return Err(Refused::TooLarge);
        }
        let min_rate = MinRate::new(timeout);
        let coalesce = Coalesce::new(SHORT, CAPACITY);
        Ok(Some(Upload { first, rest, announced, expected, limit, n_bytes: 0, min_rate, coalesce }))
    }

    /// All of a request's body, empty if it has none, which nobody counts among what is held.
    pub async fn read(
        incoming: Incoming,
        head: &RequestHead,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<Bytes, Refused> {
        match Upload::of(incoming, head, limit, timeout)? {
            Some(mut upload) => upload.whole(&HeldBytes::unlimited()).await,
            None => Ok(Bytes::new()),
        }
    }

    /// All of it, without a copy if it comes in one piece. It has room in `held` until it is dropped. What comes later
    /// than the first piece is read straight to where it stays, if that is possible.
    pub async fn whole(&mut self, held: &Arc<HeldBytes>) -> Result<Bytes, Refused> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let (mut body, mut room) = (Vec::new(), held.room());
        if self.announced.is_some_and(|length| length > first.len()) {
            self.append(&mut body, &mut room, &first)?;
        } else {
            let Some(second) = self.next().await? else { return held.hold(first).ok_or(Refused::NoRoom) };
            self.append(&mut body, &mut room, &first)?;
            self.append(&mut body, &mut room, &second)?;
        }
        loop {
            if self.announced.is_some_and(|length| length > body.len()) {
                self.make_room(&mut body, &mut room, 1)?;
                if self.read_into(&mut body).await? {
                    continue;
                }
            }
            let Some(piece) = self.next().await? else { return Ok(room.holding(body)) };
            self.append(&mut body, &mut room, &piece)?;
        }
    }

    /// Reads into the room that `body` has; false if what is next is to be taken as a piece.
    async fn read_into(&mut self, body: &mut Vec<u8>) -> Result<bool, Refused> {
        let Some(rest) = &mut self.rest else { return Ok(false) };
        let read = poll_fn(|cx| rest.as_mut().poll_read(body, cx));
        let n = match self.min_rate.wait(self.n_bytes as u64, read).await.ok_or(Refused::Slow)? {
            None => return Ok(false),
            Some(Ok(n)) => n,
            Some(Err(_)) => return Err(Refused::Malformed),
        };
        // It is no more than was announced, and so within the limit.
        self.n_bytes += n;
        Ok(true)
    }

    /// The trailers behind a body that was read to its end.
    pub fn trailers(&mut self) -> Trailers {
        self.rest.as_mut().map_or(Trailers::NONE, |rest| rest.as_mut().trailers())
    }

    /// Adds a piece to a body that is read whole.
    fn append(&self, body: &mut Vec<u8>, held: &mut Room, piece: &[u8]) -> Result<(), Refused> {
        self.make_room(body, held, piece.len())?;
        body.extend_from_slice(piece);
        Ok(())
    }

    /// Makes room for so many bytes in a body that is read whole. What the client announces is a promise: the buffer
    /// grows with what has come. A body that there is no memory for is too large.
    fn make_room(&self, body: &mut Vec<u8>, held: &mut Room, n_bytes: usize) -> Result<(), Refused> {
        if body.capacity() - body.len() < n_bytes {
            let missing = self.announced.map_or(usize::MAX, |length| length.saturating_sub(body.len()));
            let room = (GROWTH * body.capacity()).max(TRUSTED).min(missing).max(n_bytes);
            if !held.fits(body.capacity().saturating_add(room)) {
                return Err(Refused::TooLarge);
            }
            held.grow(room).ok_or(Refused::NoRoom)?;
            body.try_reserve_exact(room).map_err(|_| Refused::TooLarge)?;
        }
        Ok(())
    }

    /// Hands it on piece by piece, as fast as `pipe` takes it, until that is closed. If the future is dropped before
    /// its end, polled or not, the reader is told that the client has gone.
    pub fn pump(self, pipe: Arc<Pipe>) -> impl Future<Output = ()> {
        let inlet = Inlet(pipe);
        async move { self.pump_into(&inlet.0).await }
    }

    async fn pump_into(mut self, pipe: &Pipe) {
        let mut together = Vec::new();
        // Where the protocol has windows, one of them is what waits for the reader, in the pipe and before it.
        let window = self.rest.as_mut().and_then(|rest| rest.as_mut().keep_window());
        let capacity = window.unwrap_or(CAPACITY);
        if self.expected {
            poll_fn(|cx| pipe.poll_asked(cx)).await;
        }
        while poll_fn(|cx| pipe.poll_room_of(capacity, cx)).await.is_ok() {
            if let Some(rest) = self.rest.as_mut().filter(|_| window.is_some()) {
                rest.as_mut().give_window(pipe.take_n_taken());
            }
            let next = {
                let mut next = std::pin::pin!(self.next_together(&mut together));
                poll_fn(|cx| match pipe.poll_closed(cx) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => next.as_mut().poll(cx).map(Some),
                })
                .await
            };
            let end = match next {
                None => return,
                Some(Ok(Some(()))) => {
                    if pipe.push_all(together.drain(..)).is_err() {
                        return;
                    }
                    continue;
                }
                Some(Ok(None)) => {
                    pipe.end_with(self.trailers());
                    if window.is_some() {
                        // What is left counts until it has been read: else it would be without a bound.
                        let _ = poll_fn(|cx| pipe.poll_room_of(1, cx)).await;
                    }
                    return;
                }
                Some(Err(Refused::TooLarge)) => End::Broken(status::TOO_LARGE),
                Some(Err(Refused::Malformed)) => End::Broken(status::GONE),
                Some(Err(Refused::Slow | Refused::NoRoom)) => End::Broken(status::TIMEOUT),
            };
            return pipe.end(end);
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        let piece = match (self.first.take(), &mut self.rest) {
            (Some(first), _) => first,
            (None, None) => return Ok(None),
            (None, Some(rest)) => {
                let next = poll_fn(|cx| rest.as_mut().poll_next(cx));
                match self.min_rate.wait(self.n_bytes as u64, next).await.ok_or(Refused::Slow)? {
                    None => return Ok(None),
                    Some(piece) => piece.map_err(refused)?,
                }
            }
        };
        self.count(piece.len())?;
        Ok(Some(piece))
    }

    /// The pieces that are here, at least one.
    async fn next_together(&mut self, together: &mut Vec<Bytes>) -> Result<Option<()>, Refused> {
        match (self.first.take(), &mut self.rest) {
            (Some(first), _) => together.push(first),
            (None, None) => return Ok(None),
            (None, Some(rest)) => {
                let coalesce = &mut self.coalesce;
                let next = poll_fn(|cx| coalesce.poll(together, || rest.as_mut().poll_next(cx)));
                match self.min_rate.wait(self.n_bytes as u64, next).await.ok_or(Refused::Slow)? {
                    None => return Ok(None),
                    Some(next) => next.map_err(refused)?,
                }
            }
        }
        self.count(together.iter().map(Bytes::len).sum())?;
        Ok(Some(()))
    }

    /// Counts what has come, which may be too much.
    fn count(&mut self, n_bytes: usize) -> Result<(), Refused> {
        self.n_bytes = self.n_bytes.saturating_add(n_bytes);
        if self.n_bytes > self.limit { Err(Refused::TooLarge) } else { Ok(()) }
    }
}

fn refused(err: PayloadError) -> Refused {
    if matches!(err, PayloadError::Overflow) { Refused::TooLarge } else { Refused::Malformed }
}

/// The end of a pipe that an upload writes to.
struct Inlet(Arc<Pipe>);

impl Drop for Inlet {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Waker},
    };

    use futures_core::Stream;

    use super::*;
    use crate::{body::incoming::Source, message::request::Request};

    /// A body of which nothing ever comes.
    struct Never;

    impl Stream for Never {
        type Item = Result<Bytes, PayloadError>;

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Pending
        }
    }

    impl Source for Never {
        fn trailers(self: Pin<&mut Self>) -> Trailers {
            Trailers::NONE
        }
    }

    #[test]
    fn a_reader_is_told_when_the_upload_is_dropped_however_far_it_came() {
        for n_polls in 0..2 {
            let pipe = Arc::new(Pipe::default());
            let never = Incoming::Pieces(Box::pin(Never));
            let upload = Upload::of(never, &Request::default(), 10, None).unwrap().unwrap();
            let mut pump = Box::pin(upload.pump(Arc::clone(&pipe)));
            let mut cx = Context::from_waker(Waker::noop());
            (0..n_polls).for_each(|_| assert!(pump.as_mut().poll(&mut cx).is_pending()));
            assert!(pipe.poll_next(&mut cx).is_pending());
            drop(pump);
            assert_eq!(pipe.poll_next(&mut cx), Poll::Ready(Err(End::Broken(status::GONE))));
        }
    }
}
