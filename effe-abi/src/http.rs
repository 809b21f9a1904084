//! Requests and answers as types of the `http` crate.
//!
//! This file owns the conversion, and when the head of an answer is sent. What may be in a header's value is left to
//! `headers.rs`.
//!
//! A request's strings are copied into blocks that several requests share, and the header map of an answer is used
//! again for the next request: with 3 headers that saves 1.1 % of a request's instructions. The names of its headers
//! are kept for the next request that has them, which saves 60 instructions for each that the `http` crate knows, and an
//! allocation for any other.

use std::{
    cell::RefCell,
    future::poll_fn,
    io, mem,
    pin::{Pin, pin},
    task::{self, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header::InvalidHeaderName};
use http_body::{Frame, SizeHint};

use crate::{
    async_response::AsyncResponse,
    body::Body,
    error::{Boxed, Error, Result},
    headers::{Values, are_values, in_a_row, of_http},
    raw,
    request::{PAGE, Request},
    runtime,
};

/// A body of up to this many bytes is copied, which costs less than passing on its owner.
const COPY_LIMIT: usize = 4 * 1024;

/// Size of a block in bytes. The targets and header values of about ten requests fit in. Whoever keeps one of them
/// keeps the block.
const BLOCK: usize = 8 * 1024;

/// How many names of headers each thread keeps.
const N_NAMES: usize = 128;
/// At how many places a name may be.
const N_PLACES: usize = 4;
/// The longest name that is kept. Names are what clients send.
const MAX_NAME: usize = 64;

thread_local! {
    static HEADS: RefCell<Heads> = RefCell::default();
}

/// What the requests of a thread share.
#[derive(Default)]
struct Heads {
    /// The free rest of the block.
    block: BytesMut,
    names: Names,
}

/// Names that requests have had, each at the place that its text says, or shortly behind it. Where all of these are
/// taken, a name takes the place of another one, so what clients send can't fill the memory.
#[derive(Default)]
struct Names(Vec<Option<HeaderName>>);

impl Names {
    #[inline]
    fn name(&mut self, text: &str) -> Result<HeaderName, InvalidHeaderName> {
        for place in Self::places(text) {
            match self.0.get(place) {
                Some(Some(name)) if name.as_str() == text => return Ok(name.clone()),
                Some(Some(_)) => {}
                _ => break,
            }
        }
        self.keep(text)
    }

    #[cold]
    fn keep(&mut self, text: &str) -> Result<HeaderName, InvalidHeaderName> {
        let name = HeaderName::from_bytes(text.as_bytes())?;
        self.0.resize(N_NAMES, None);
        let mut places = Self::places(text);
        let first = places.next().unwrap_or(0);
        let free = places.find(|&place| self.0[place].is_none()).filter(|_| self.0[first].is_some());
        if text.len() <= MAX_NAME {
            self.0[free.unwrap_or(first)] = Some(name.clone());
        }
        Ok(name)
    }

    /// Where a name may be. With these factors, 66 names that are often seen don't get in each other's way.
    #[inline]
    fn places(text: &str) -> impl Iterator<Item = usize> {
        let bytes = text.as_bytes();
        let byte = |at: usize| bytes.get(at).map_or(0, |&byte| usize::from(byte));
        let len = bytes.len();
        let first = byte(0) + 59 * byte(len / 2) + 9 * byte(len.wrapping_sub(1)) + 65 * len;
        (first..first + N_PLACES).map(|place| place % N_NAMES)
    }
}

impl Request {
    /// The request as the `http` crate's type. Its strings are copies, in a block that other requests may share. The
    /// body is read when it is polled. Needs the feature `http`.
    ///
    /// # Errors
    /// The method, the target or a header is one that the `http` crate refuses.
    #[track_caller]
    pub fn to_http(&self) -> Result<http::Request<Body>> {
        let mut request = http::Request::new(self.body());
        self.fill(&mut request, &mut HeaderMap::new())?;
        Ok(request)
    }

    /// Copies the head into a new request. `spare` is an empty map, whose memory is taken if there is enough.
    #[track_caller]
    pub(crate) fn fill<B>(&self, request: &mut http::Request<B>, spare: &mut HeaderMap) -> Result {
        // A new request has this method already.
        if self.method() != "GET" {
            *request.method_mut() = Method::from_bytes(self.method().as_bytes())?;
        }
        *request.version_mut() = match self.version() {
            10 => Version::HTTP_10,
            20 => Version::HTTP_2,
            30 => Version::HTTP_3,
            _ => Version::HTTP_11,
        };
        HEADS.with_borrow_mut(|Heads { block, names }| {
            // And this target.
            if self.target() != "/" {
                *request.uri_mut() = Uri::from_maybe_shared(copy(block, [self.target().as_bytes()]))?;
            }
            // `self.headers()` would be slower here: it returns its page of headers by value.
            let mut page = [raw::Header::EMPTY; PAGE];
            let (total, mut n_done) = (self.exchange().headers(0, &mut page), 0);
            if total <= spare.capacity() {
                mem::swap(request.headers_mut(), spare);
            } else {
                *request.headers_mut() = HeaderMap::with_capacity(total);
            }
            while n_done < total {
                let here = &page[..PAGE.min(total - n_done)];
                let values = copy(block, here.iter().map(|header| header.value.as_slice()));
                let Some(mut values) = Values::new(values) else { return Err(unfit(here)) };
                for header in here {
                    let name = names.name(header.name.as_str())?;
                    request.headers_mut().append(name, values.next(header.value.len()));
                }
                n_done += here.len();
                if n_done < total {
                    self.exchange().headers(n_done, &mut page);
                }
            }
            Ok(())
        })
    }
}

/// The error for the first of these headers whose value the `http` crate refuses.
#[cold]
#[track_caller]
fn unfit(headers: &[raw::Header<'_>]) -> Error {
    let unfit = headers.iter().find(|header| !are_values(&header.value));
    let name = unfit.map_or("", |header| header.name.as_str());
    format!("the value of the request's header {name:?} can't be passed on").into()
}

/// Copies the pieces, one behind the other, into the block. The block's memory is used again when all copies in it have
/// been dropped.
fn copy<'a>(block: &mut BytesMut, pieces: impl IntoIterator<Item = &'a [u8]> + Clone) -> Bytes {
    let len = pieces.clone().into_iter().map(<[u8]>::len).sum();
    if block.capacity() < len {
        block.reserve(len.max(BLOCK));
    }
    pieces.into_iter().for_each(|piece| block.extend_from_slice(piece));
    block.split().freeze()
}

impl AsyncResponse<'_> {
    /// Answers with a response of the `http` crate. A body of more than one piece is sent piece by piece if the lambda
    /// declares [`Options::stream_response`](crate::Options::stream_response), and held whole otherwise. Trailers are
    /// sent as by [`Response::trailer`](crate::Response::trailer). Needs the feature `http`.
    ///
    /// # Errors
    /// The body broke off, the client has gone, the deadline has passed, or the answer is too large to be held.
    pub async fn send_http<B>(&mut self, response: http::Response<B>) -> Result
    where
        B: http_body::Body<Error: Into<Boxed>>,
    {
        let (head, body) = response.into_parts();
        self.status(head.status.as_u16());
        self.add_http(head.headers);
        let mut body = pin!(body);
        let mut ahead = None;
        loop {
            let frame = match ahead.take() {
                Some(frame) => frame,
                None => self.next(body.as_mut()).await,
            };
            let Some(frame) = frame.transpose()? else { return Ok(()) };
            let mut data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.add_http_trailers(&trailers);
                    }
                    continue;
                }
            };
            let mut is_all = body.is_end_stream();
            if !self.is_sending() && !is_all {
                // The end may be here already, and trailers with it.
                ahead = look_ahead(body.as_mut()).await;
                is_all = match &ahead {
                    None | Some(Some(Err(_))) => false,
                    Some(Some(Ok(frame))) => frame.is_trailers(),
                    Some(None) => true,
                };
            }
            // If this is all of the body, it is sent when Run has returned, in one piece and with its length.
            if !self.is_sending() && is_all {
                if let Some(Some(Ok(trailers))) =
                    ahead.map(|frame| frame.map(|frame| frame.map(Frame::into_trailers)))
                    && let Ok(trailers) = trailers
                {
                    self.add_http_trailers(&trailers);
                }
                if data.remaining() > COPY_LIMIT {
                    self.body(data.copy_to_bytes(data.remaining()));
                    return Ok(());
                }
                while data.has_remaining() {
                    io::Write::write_all(&mut **self, data.chunk())?;
                    data.advance(data.chunk().len());
                }
                return Ok(());
            }
            while data.has_remaining() {
                let piece = data.chunk().len();
                self.send(data.copy_to_bytes(piece)).await?;
            }
        }
    }

    /// Adds trailers of the `http` crate's.
    #[track_caller]
    fn add_http_trailers(&mut self, trailers: &HeaderMap) {
        in_a_row(trailers.len(), trailers.iter().map(of_http), |trailers| self.add_trailers(trailers));
    }

    /// The next frame of a body.
    ///
    /// While there is no piece yet, the head is sent alone. On a thread of the runtime, that is put off by one poll: in
    /// the meantime another task may bring the piece, and both are sent together.
    async fn next<B>(&mut self, mut body: Pin<&mut B>) -> Option<Result<Frame<B::Data>>>
    where
        B: http_body::Body<Error: Into<Boxed>>,
    {
        let mut has_waited = false;
        poll_fn(|cx| {
            let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                let has_waited = mem::replace(&mut has_waited, true);
                if self.may_begin() && !has_waited && runtime::is_own_thread() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let begun = if self.may_begin() { self.push() } else { Ok(()) };
                return begun.map_or_else(|err| Poll::Ready(Some(Err(err.into()))), |()| Poll::Pending);
            };
            Poll::Ready(frame.map(|frame| frame.map_err(Error::new)))
        })
        .await
    }
}

/// The next frame of a body if it is here; `Some(None)` is the end.
async fn look_ahead<B>(mut body: Pin<&mut B>) -> Option<Option<Result<Frame<B::Data>>>>
where
    B: http_body::Body<Error: Into<Boxed>>,
{
    poll_fn(|cx| {
        Poll::Ready(match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Some(frame.map(|frame| frame.map_err(Error::new))),
            Poll::Pending => None,
        })
    })
    .await
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(piece) = ready!(self.poll_chunk(cx)) {
            return Poll::Ready(Some(piece.map(Frame::data)));
        }
        let Some(link) = self.take_end() else { return Poll::Ready(None) };
        let mut trailers = HeaderMap::new();
        link.trailers(|name, value| {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                trailers.append(name, value);
            }
        });
        Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == (0, true)
    }

    fn size_hint(&self) -> SizeHint {
        let (here, is_all) = self.left();
        let mut hint = SizeHint::new();
        if is_all {
            hint.set_exact(here as u64);
        } else {
            hint.set_lower(here as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_name_is_the_one_that_was_asked_for() {
        let mut names = Names::default();
        let long = "x".repeat(MAX_NAME + 1);
        let many: Vec<String> = (0..300).map(|n| format!("x-{n}")).collect();
        for _ in 0..3 {
            let known = ["host", "content-type", "accept", "grpc-timeout", "a", &long];
            for text in known.into_iter().chain(many.iter().map(String::as_str)) {
                assert_eq!(names.name(text).unwrap(), text);
                // From memory.
                assert_eq!(names.name(text).unwrap(), text);
            }
            for bad in ["", "a b", "a:", "\n"] {
                assert!(names.name(bad).is_err(), "{bad:?}");
            }
            assert_eq!(names.name("Host").unwrap(), http::header::HOST);
        }
        assert_eq!(names.0.len(), N_NAMES);
        assert!(names.0.iter().flatten().all(|name| name.as_str().len() <= MAX_NAME));
    }
}
