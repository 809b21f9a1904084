//! Bytes that are to be sent to a client: short pieces are copied together, a long one is sent from where it is.

use std::{
    fmt::Write,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::body::BodySize;
use bytes::{Buf, Bytes, BytesMut};
use http::Version;
use tokio::io::AsyncWrite;

use super::buf_pool;
use crate::body::trailers::Trailers;

/// A piece up to this size is copied, which is cheaper than handing the system another slice.
const SHORT: usize = 4 * 1024;
/// Bytes that are copied together before they are sent.
const CAPACITY: usize = 32 * 1024;

/// What is to be sent: `text`, then `tail`, then `end`.
#[derive(Default)]
pub struct WriteBuf {
    text: BytesMut,
    /// How much of `text` has been sent.
    n_sent: usize,
    tail: Bytes,
    end: &'static [u8],
    frame: Frame,
    /// Whether TLS may still hold bytes that were written.
    is_dirty: bool,
}

/// How a client knows where a body in pieces ends.
#[derive(Clone, Copy, Default)]
enum Frame {
    /// By its length; so many bytes are missing.
    Length(u64),
    /// By chunks, each with its own length.
    Chunks,
    /// By the end of the connection.
    #[default]
    Close,
}

impl WriteBuf {
    /// Whether another piece may be added.
    pub fn has_room(&self) -> bool {
        // `end` comes behind `tail`, and what is added next must come behind both.
        self.end.is_empty() && self.tail.is_empty() && self.text.len() < CAPACITY
    }

    pub fn is_empty(&self) -> bool {
        self.n_sent >= self.text.len() && self.tail.is_empty() && self.end.is_empty() && !self.is_dirty
    }

    /// The buffer that heads are written to.
    #[inline]
    pub fn text(&mut self) -> &mut BytesMut {
        if self.text.capacity() == 0 {
            self.text = buf_pool::take();
        }
        &mut self.text
    }

    pub fn whole(&mut self, bytes: Bytes) {
        if bytes.len() <= SHORT {
            self.text().extend_from_slice(&bytes);
        } else {
            self.tail = bytes;
        }
    }

    /// Says how the body ends; its pieces follow.
    pub fn frame(&mut self, size: BodySize, version: Version) {
        self.frame = match size {
            BodySize::Sized(length) => Frame::Length(length),
            BodySize::Stream if version >= Version::HTTP_11 => Frame::Chunks,
            _ => Frame::Close,
        };
    }

    /// Adds a piece of the body; to be called when there is room. `None` if the body is longer than its head says.
    pub fn piece(&mut self, bytes: Bytes) -> Option<()> {
        if bytes.is_empty() {
            return Some(());
        }
        match &mut self.frame {
            Frame::Length(left) => *left = left.checked_sub(bytes.len() as u64)?,
            // It can't fail: the buffer grows.
            Frame::Chunks => write!(self.text(), "{:x}\r\n", bytes.len()).ok()?,
            Frame::Close => {}
        }
        self.whole(bytes);
        match self.frame {
            Frame::Chunks if self.tail.is_empty() => self.text.extend_from_slice(b"\r\n"),
            Frame::Chunks => self.end = b"\r\n",
            Frame::Length(_) | Frame::Close => {}
        }
        Some(())
    }

    /// Ends the body; `None` if it is shorter than its head says. Where trailers have no place, they are left out. To
    /// be called when there is room.
    pub fn end(&mut self, trailers: Option<&Trailers>) -> Option<()> {
        match (self.frame, trailers) {
            (Frame::Chunks, Some(trailers)) if self.tail.is_empty() => {
                let text = self.text();
                text.extend_from_slice(b"0\r\n");
                trailers.iter().for_each(|(name, value)| put_field(text, name, value));
                text.extend_from_slice(b"\r\n");
                return Some(());
            }
            _ => {}
        }
        match self.frame {
            Frame::Length(1..) => return None,
            Frame::Length(0) | Frame::Close => {}
            Frame::Chunks if self.tail.is_empty() => self.text().extend_from_slice(b"0\r\n\r\n"),
            Frame::Chunks => self.end = b"\r\n0\r\n\r\n",
        }
        Some(())
    }

    /// Whether a body that breaks off here would look whole to the client.
    pub fn ends_by_close(&self) -> bool {
        matches!(self.frame, Frame::Close)
    }

    pub fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.n_sent < self.text.len() || !self.tail.is_empty() || !self.end.is_empty() {
            let text = &self.text[self.n_sent..];
            let n = if self.tail.is_empty() && self.end.is_empty() {
                ready!(Pin::new(&mut *to).poll_write(cx, text))?
            } else {
                let slices = [IoSlice::new(text), IoSlice::new(&self.tail), IoSlice::new(self.end)];
                // Without vectored writes the first slice alone is written, and an empty one looks like an error.
                let slices = if text.is_empty() { &slices[1..] } else { &slices[..] };
                ready!(Pin::new(&mut *to).poll_write_vectored(cx, slices))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_dirty = true;
            self.sent(n);
        }
        if self.text.capacity() > 0 {
            self.n_sent = 0;
            buf_pool::give(mem::take(&mut self.text));
        }
        if mem::take(&mut self.is_dirty) {
            let flushed = Pin::new(to).poll_flush(cx);
            self.is_dirty = flushed.is_pending();
            return flushed;
        }
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, mut n: usize) {
        let of_text = n.min(self.text.len() - self.n_sent);
        self.n_sent += of_text;
        n -= of_text;
        let of_tail = n.min(self.tail.len());
        self.tail.advance(of_tail);
        if self.tail.is_empty() {
            // The owner of the bytes gets them back as early as possible.
            self.tail = Bytes::new();
        }
        self.end = &self.end[n - of_tail..];
    }
}

/// Writes a line of a head or of trailers.
#[inline]
pub fn put_field(text: &mut BytesMut, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes at a time.
    struct Sink(usize, Vec<u8>);

    /// Takes so many bytes in all, and no more before it is given room.
    struct Full(usize, Vec<u8>);

    impl AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let Full(room, taken) = self.get_mut();
            let n = bytes.len().min(*room);
            if n == 0 {
                return Poll::Pending;
            }
            *room -= n;
            taken.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let n = all.len().min(self.0);
            self.1.extend_from_slice(&all[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn sent(size: BodySize, pieces: &[usize], at_a_time: usize) -> (Vec<u8>, Option<()>) {
        let (mut output, mut sink) = (WriteBuf::default(), Sink(at_a_time, Vec::new()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        output.text().extend_from_slice(b"head|");
        output.frame(size, Version::HTTP_11);
        for length in pieces {
            if output.piece(vec![b'x'; *length].into()).is_none() {
                return (sink.1, None);
            }
            while !output.has_room() {
                assert!(output.poll_flush(&mut sink, &mut cx).is_ready());
            }
        }
        let end = output.end(None);
        assert!(output.poll_flush(&mut sink, &mut cx).is_ready());
        (sink.1, end)
    }

    #[test]
    fn bytes_come_out_as_they_were_put_in_however_few_at_a_time() {
        for at_a_time in [1, 7, 5000, usize::MAX] {
            for pieces in [&[3_usize][..], &[SHORT + 1], &[3, SHORT + 1, 0, 5], &[20_000, 20_000]] {
                let total: usize = pieces.iter().sum();
                let (found, end) = sent(BodySize::Sized(total as u64), pieces, at_a_time);
                assert_eq!((found.len(), end), (5 + total, Some(())));
                let mut expected = b"head|".to_vec();
                for length in pieces.iter().filter(|length| **length > 0) {
                    expected.extend(format!("{length:x}\r\n").bytes());
                    expected.extend(vec![b'x'; *length]);
                    expected.extend(b"\r\n");
                }
                expected.extend(b"0\r\n\r\n");
                assert_eq!(sent(BodySize::Stream, pieces, at_a_time), (expected, Some(())));
            }
        }
    }

    #[test]
    fn nothing_overtakes_the_end_of_a_chunk_whose_client_has_no_room_for_it() {
        let chunk = [format!("{:x}\r\n", SHORT + 1).as_bytes(), &[b'x'; SHORT + 1][..], b"\r\n"].concat();
        for room in [chunk.len() - 2, chunk.len() - 1] {
            let (mut output, mut socket) = (WriteBuf::default(), Full(room, Vec::new()));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            output.frame(BodySize::Stream, Version::HTTP_11);
            output.piece(vec![b'x'; SHORT + 1].into()).unwrap();
            assert!(output.poll_flush(&mut socket, &mut cx).is_pending());
            socket.0 = usize::MAX;
            while !output.has_room() {
                assert!(output.poll_flush(&mut socket, &mut cx).is_ready());
            }
            output.end(None).unwrap();
            assert!(output.poll_flush(&mut socket, &mut cx).is_ready());
            assert_eq!(socket.1, [&chunk[..], b"0\r\n\r\n"].concat());
        }
    }

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        assert_eq!(sent(BodySize::Sized(4), &[3], 9).1, None);
        assert_eq!(sent(BodySize::Sized(4), &[3, 2], 9).1, None);
    }
}
