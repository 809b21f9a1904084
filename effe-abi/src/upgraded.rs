//! A connection that a lambda has taken over: the bytes behind a 101, in both directions.
//!
//! What the loader is asked for is in `calls/upgrade.rs`; the answer that comes before the stream is left to
//! `response.rs`.

use std::{fmt, io};

use crate::{
    calls::upgrade::DuplexRef,
    chunk::Chunk,
    error::failure,
    extensions::GOING_AWAY,
    raw::{Status, status},
};

/// Bytes that are handed to the loader at a time, so that what waits for a slow client is bounded.
const PIECE: usize = 32 * 1024;

/// A connection after [`Response::upgrade`](crate::Response::upgrade): a stream of bytes in both directions.
///
/// It is `Send`, and may go to a thread or task of the lambda's own and outlive its run, which then gives its Context
/// back. It keeps its generation from retiring; it is under no limit of time but the operator's `--upgrade-timeout`.
/// When the last handle is dropped, the connection is closed behind what was written.
///
/// `std::io::Read` and `Write` wait on the calling thread; with the feature `async`, tokio's `AsyncRead` and
/// `AsyncWrite` wait without one. A read returns 0 bytes once the client has closed its end. When the effe stops, a
/// read fails once with [`io::ErrorKind::ConnectionAborted`], behind what has come: say good-bye in whatever way the
/// protocol has, and drop the stream. What is left when the drain's time is over is closed.
pub struct Upgraded {
    link: DuplexRef,
    /// The piece that is being read; `at` is where its unread part begins.
    piece: Chunk,
    at: usize,
}

impl Upgraded {
    pub(crate) fn new(link: DuplexRef) -> Upgraded {
        Upgraded { link, piece: Chunk::from_static(b""), at: 0 }
    }

    /// Another handle of the same stream, so that one thread may write while another reads. Bytes that this one has
    /// received and not read yet stay with it.
    #[must_use]
    pub fn another(&self) -> Upgraded {
        Upgraded::new(self.link.clone())
    }

    /// Closes this end, behind what was written; the client may still send.
    pub fn finish(&self) {
        self.link.shutdown();
    }

    /// Whether the effe stops, or the connection is closed.
    pub fn is_cancelled(&self) -> bool {
        self.link.state() != status::OK
    }

    /// Waits until the effe stops or the connection is closed. Needs the feature `async`.
    #[cfg(feature = "async")]
    pub async fn going_away(&self) {
        std::future::poll_fn(|cx| self.link.poll_away(cx.waker())).await;
    }

    /// Takes note of what a read has brought; whether there are bytes.
    fn take(&mut self, read: Result<Chunk, Status>) -> io::Result<bool> {
        match read {
            Ok(piece) => {
                (self.piece, self.at) = (piece, 0);
                Ok(true)
            }
            Err(status::END) => Ok(false),
            Err(status) => Err(refusal(status)),
        }
    }

    fn copy_to(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.piece[self.at..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.at += n;
        if self.at == self.piece.len() {
            // The loader gets its memory back at once: a connection may idle for long.
            (self.piece, self.at) = (Chunk::from_static(b""), 0);
        }
        n
    }
}

/// A status of a stream, other than OK and END.
fn refusal(status: Status) -> io::Error {
    match status {
        GOING_AWAY => io::Error::new(io::ErrorKind::ConnectionAborted, "going away: the effe stops"),
        status::GONE => io::Error::new(io::ErrorKind::BrokenPipe, "the connection is closed"),
        status::TIMEOUT => {
            io::Error::new(io::ErrorKind::TimedOut, "nothing came or went for --upgrade-timeout")
        }
        status => failure(status),
    }
}

impl io::Read for Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !buffer.is_empty() {
            let read = self.link.read();
            if !self.take(read)? {
                return Ok(0);
            }
        }
        Ok(self.copy_to(buffer))
    }
}

impl io::Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        match self.link.write(piece) {
            status::OK => Ok(piece.len()),
            status => Err(refusal(status)),
        }
    }

    /// Does nothing: what is written is sent at once.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "async")]
mod awaited {
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll, ready},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::{PIECE, Upgraded, refusal};
    use crate::raw::status;

    impl AsyncRead for Upgraded {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.at == self.piece.len() && buffer.remaining() > 0 {
                let read = ready!(self.link.poll_read(cx.waker()));
                if !self.take(read)? {
                    return Poll::Ready(Ok(()));
                }
            }
            let n = self.copy_to(buffer.initialize_unfilled());
            buffer.advance(n);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Upgraded {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let ready = ready!(self.link.poll_ready(cx.waker()));
            if ready != status::OK {
                return Poll::Ready(Err(refusal(ready)));
            }
            Poll::Ready(io::Write::write(self.get_mut(), &bytes[..bytes.len().min(PIECE)]))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.finish();
            Poll::Ready(Ok(()))
        }
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("is_cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}
