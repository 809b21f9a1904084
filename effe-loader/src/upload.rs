//! A request's body on its way in: read whole, or handed on as it arrives; never past its limit, nor at the pace of
//! a client that means harm.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use actix_http::{Payload, Request, RequestHead, Version, error::PayloadError, header};
use bytes::{Bytes, BytesMut};
use effe_abi::raw::status;
use futures_core::Stream;

use crate::{
    pace::Pace,
    pipe::{End, Pipe},
};

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is larger than the operator's limit.
    TooLarge,
    /// It broke off or was not what its head says.
    Malformed,
    /// It takes too long to come.
    Slow,
}

/// A body that is being read.
pub struct Upload {
    payload: Payload,
    announced: Option<usize>,
    /// Whether the client keeps it back until it is asked for it.
    expected: bool,
    /// Bytes to come, where the server takes all that comes for the body.
    rest: Option<usize>,
    limit: usize,
    n_bytes: usize,
    pace: Pace,
}

impl Upload {
    /// The body of a request; `None` if it has none.
    ///
    /// # Errors
    /// It says itself that it is too large.
    pub fn of(
        request: &mut Request,
        limit: usize,
        patience: Option<Duration>,
    ) -> Result<Option<Upload>, Refused> {
        if let Payload::None = request.payload() {
            return Ok(None);
        }
        let announced = request.head().headers.get(header::CONTENT_LENGTH);
        let announced =
            announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(Refused::TooLarge);
        }
        let expected = is_kept_back(request.head());
        let payload = request.take_payload();
        let rest = has_no_end(request.head()).then_some(announced.unwrap_or(0));
        if rest == Some(0) {
            return Ok(None);
        }
        Ok(Some(Upload { payload, announced, expected, rest, limit, n_bytes: 0, pace: Pace::new(patience) }))
    }

    /// All of it, without a copy if it comes in one piece.
    ///
    /// # Errors
    /// It is refused.
    pub async fn whole(mut self) -> Result<Bytes, Refused> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut body = BytesMut::with_capacity(self.announced.unwrap_or(first.len() + second.len()));
        body.extend_from_slice(&first);
        let mut piece = Some(second);
        while let Some(bytes) = piece {
            body.extend_from_slice(&bytes);
            piece = self.next().await?;
        }
        Ok(body.freeze())
    }

    /// Hands it on piece by piece, as fast as `inlet` takes it, until its reader leaves.
    pub async fn pump(mut self, inlet: Arc<Pipe>) {
        if self.expected {
            poll_fn(|context| inlet.poll_asked(context)).await;
        }
        while poll_fn(|context| inlet.poll_room(context)).await.is_ok() {
            let next = self.next();
            let mut next = std::pin::pin!(next);
            let next = poll_fn(|context| match inlet.poll_left(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => next.as_mut().poll(context).map(Some),
            });
            let end = match next.await {
                None => return,
                Some(Ok(Some(piece))) => {
                    if inlet.push(piece).is_err() {
                        return;
                    }
                    continue;
                }
                Some(Ok(None)) => End::Whole,
                Some(Err(Refused::TooLarge)) => End::Broken(status::TOO_LARGE),
                Some(Err(Refused::Malformed)) => End::Broken(status::GONE),
                Some(Err(Refused::Slow)) => End::Broken(status::TIMEOUT),
            };
            return inlet.end(end);
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        if self.rest == Some(0) {
            return Ok(None);
        }
        let next = poll_fn(|context| Pin::new(&mut self.payload).poll_next(context));
        let piece = self.pace.wait(self.n_bytes as u64, next).await.ok_or(Refused::Slow)?;
        let Some(piece) = piece else { return Ok(None) };
        let mut piece = piece.map_err(|err| match err {
            PayloadError::Overflow => Refused::TooLarge,
            _ => Refused::Malformed,
        })?;
        if let Some(rest) = &mut self.rest {
            piece.truncate(*rest);
            *rest -= piece.len();
        }
        self.n_bytes = self.n_bytes.saturating_add(piece.len());
        if self.n_bytes > self.limit { Err(Refused::TooLarge) } else { Ok(Some(piece)) }
    }
}

/// Whether the client keeps the body back until it is asked for it. The parser says so of HTTP/1.1.
fn is_kept_back(head: &RequestHead) -> bool {
    let expect = || head.headers.get(header::EXPECT).map(|value| value.as_bytes());
    head.expect()
        || (head.version == Version::HTTP_2
            && expect().is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")))
}

/// Whether the server below takes all that comes for the body, since the client would like to speak another protocol.
/// It isn't asked to: the body is what its head says, and there the connection ends.
fn has_no_end(head: &RequestHead) -> bool {
    let upgrade = head.headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    head.version <= Version::HTTP_11
        && !head.headers.contains_key(header::TRANSFER_ENCODING)
        && upgrade.is_some_and(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}
