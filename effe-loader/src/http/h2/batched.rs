//! A connection as h2 reads and writes it, in fewer and larger pieces: h2 reads half a frame at a time, and writes each
//! frame by itself.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::net::connection::Connection;

/// Bytes that are read ahead of h2.
const AHEAD: usize = 64 * 1024;

/// What h2 writes at once if it has a frame of the usual size, behind which there are mostly more of the same body.
const FULL: usize = 16 * 1024;

thread_local! {
    /// A buffer that no connection of this thread has bytes in.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// A connection that is shared between h2, which reads and writes, and whoever polls h2.
#[derive(Clone)]
pub struct Batched(Rc<RefCell<Inner>>);

struct Inner {
    connection: Connection,
    /// What has been read and h2 has not taken yet; without memory while that is nothing.
    ahead: BytesMut,
    /// Whether the system keeps what doesn't fill a segment, until the turn ends.
    is_corked: bool,
}

impl Batched {
    pub fn new(connection: Connection) -> Batched {
        Batched(Rc::new(RefCell::new(Inner { connection, ahead: BytesMut::new(), is_corked: false })))
    }

    /// To be called whenever h2 has been polled: what it has written goes out.
    pub fn end_turn(&self) {
        let mut inner = self.0.borrow_mut();
        if inner.is_corked {
            inner.is_corked = false;
            inner.connection.cork(false);
        }
    }
}

impl Inner {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            self.ahead = SPARE.take();
            self.ahead.reserve(AHEAD);
            let read = poll_read_buf(Pin::new(&mut self.connection), cx, &mut self.ahead);
            if self.ahead.is_empty() {
                SPARE.set(std::mem::take(&mut self.ahead));
            }
            ready!(read)?;
        }
        let n = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..n]);
        if n < self.ahead.len() {
            self.ahead.advance(n);
        } else {
            let mut ahead = std::mem::take(&mut self.ahead);
            ahead.clear();
            SPARE.set(ahead);
        }
        Poll::Ready(Ok(()))
    }

    /// Has the system wait for what follows a full frame, so that the client is woken once for several.
    fn before(&mut self, n_bytes: usize) {
        if n_bytes >= FULL && !self.is_corked {
            self.is_corked = self.connection.cork(true);
        }
    }
}

impl AsyncRead for Batched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Batched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        inner.before(bytes.len());
        Pin::new(&mut inner.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        inner.before(slices.iter().map(|slice| slice.len()).sum());
        Pin::new(&mut inner.connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().connection).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().connection).poll_shutdown(cx)
    }
}
