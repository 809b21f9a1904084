//! The answer of an async lambda: a [`Response`] whose pieces are sent by `.await`.
//!
//! This file owns the waiting for a slow client. All else about an answer is left to `response.rs`.

use std::{
    future::poll_fn,
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{self, Poll, ready},
};

use tokio::io::AsyncWrite;

use crate::{
    calls::AsyncHostRef,
    chunk::Chunk,
    error::Result,
    response::{Response, STREAM_BUFFER},
};

/// A [`Response`] whose pieces are sent by `.await`. Needs the feature `async`. Status, headers and a held body are set
/// as there. [`send`](AsyncResponse::send), [`flush`](AsyncResponse::flush) and [`end`](AsyncResponse::end) wait while
/// the client is slow. `std::io::Write` only fills the buffer, up to the limit for a held answer; tokio's `AsyncWrite`
/// sends the buffer whenever 64 KiB are waiting.
///
/// Pieces are sent before the end only if the lambda declares
/// [`Options::stream_response`](crate::Options::stream_response).
pub struct AsyncResponse<'a> {
    response: Response<'a>,
    /// `None`: the caller has a thread for this run, on which a write may wait.
    host: Option<AsyncHostRef>,
}

impl<'a> AsyncResponse<'a> {
    pub(crate) fn new(response: Response<'a>, host: Option<AsyncHostRef>) -> AsyncResponse<'a> {
        AsyncResponse { response, host }
    }

    /// Sends bytes now, after what is waiting, if the answer is a stream; otherwise adds them to the body.
    ///
    /// # Errors
    /// The client has gone, the deadline has passed, or the answer is too large to be held.
    pub async fn send(&mut self, bytes: impl Into<Chunk>) -> io::Result<()> {
        let chunk = bytes.into();
        if !self.response.is_stream() {
            return self.response.send(chunk);
        }
        if self.response.has_waiting() {
            self.flush().await?;
        }
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.response.write_chunk(chunk)
    }

    /// Sends what is waiting, if the answer is a stream: the head, if it was not sent yet, and what was written.
    ///
    /// # Errors
    /// As [`send`](AsyncResponse::send).
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_push(cx)).await
    }

    /// Ends the answer and sends it, so that the client has all of it while Run goes on; see
    /// [`Response::end`](Response::end). The rest of Run is dropped at an `.await` if it takes longer than the
    /// operator's `--run-timeout`.
    ///
    /// # Errors
    /// As [`send`](AsyncResponse::send). Or the loader is too old to send a held answer early: then nothing is ended.
    pub async fn end(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.response.finish_body()
    }

    /// Waits until the end of an answer that is being sent can be handed to the host. The response remembers an error.
    pub(crate) async fn until_ready(&mut self) {
        let _ = poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Ends the answer after Run has returned, and returns what the loader is to log.
    pub(crate) fn finish(self, outcome: Result) -> Result {
        self.response.finish(outcome)
    }

    /// Ready when the next piece can be handed to the host without waiting.
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        let Some(host) = self.host.filter(|_| self.response.is_sending()) else { return Poll::Ready(Ok(())) };
        let status = ready!(host.poll_ready(self.response.exchange(), cx.waker()));
        Poll::Ready(self.response.taken(status))
    }

    fn poll_push(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        if !self.response.is_stream() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_ready(cx))?;
        Poll::Ready(self.response.push())
    }
}

impl<'a> Deref for AsyncResponse<'a> {
    type Target = Response<'a>;

    fn deref(&self) -> &Response<'a> {
        &self.response
    }
}

impl<'a> DerefMut for AsyncResponse<'a> {
    fn deref_mut(&mut self) -> &mut Response<'a> {
        &mut self.response
    }
}

impl AsyncWrite for AsyncResponse<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.response.held() >= STREAM_BUFFER {
            ready!(self.poll_push(cx))?;
        }
        Poll::Ready(io::Write::write(&mut self.response, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        self.poll_push(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
