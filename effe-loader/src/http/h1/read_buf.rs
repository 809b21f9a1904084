//! Bytes that have come from a client and that nobody has taken yet.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, BytesMut};
use tokio_util::io::poll_read_buf;

use super::buf_pool;
use crate::net::{connection::Connection, connections::CloseReason};

/// Room that there is at least when something is read.
const MIN_ROOM: usize = 1024;
/// Bytes that are read at a time, at first and when there is much to read.
const FIRST_READ: usize = 4 * 1024;
pub const LARGE_READ: usize = 128 * 1024;

/// What has come. While nothing is here it has no memory: thousands of connections may idle.
pub struct ReadBuf {
    pub bytes: BytesMut,
    /// Bytes that are read at a time.
    n_wanted: usize,
    /// Whether the client has closed its end.
    pub is_at_end: bool,
}

/// What came of reading.
pub enum Fill {
    /// There are more bytes than before.
    Bytes,
    /// The client has closed its end.
    End,
    /// Nothing has come, and the connection must close.
    Overdue(CloseReason),
    /// The connection is broken.
    Failed,
}

impl ReadBuf {
    pub fn new() -> ReadBuf {
        ReadBuf { bytes: BytesMut::new(), n_wanted: FIRST_READ, is_at_end: false }
    }

    pub fn poll_fill(&mut self, from: &mut Connection, cx: &mut Context<'_>) -> Poll<Fill> {
        if self.is_at_end {
            return Poll::Ready(Fill::End);
        }
        if self.bytes.capacity() == 0 {
            self.bytes = buf_pool::take();
        }
        if self.bytes.capacity() - self.bytes.len() < MIN_ROOM.max(self.n_wanted / 4) {
            self.bytes.reserve(self.n_wanted);
        }
        match poll_read_buf(Pin::new(&mut *from), cx, &mut self.bytes) {
            Poll::Pending => {
                if self.bytes.is_empty() {
                    buf_pool::give(mem::take(&mut self.bytes));
                }
                from.handle()
                    .close_reason()
                    .map_or(Poll::Pending, |reason| Poll::Ready(Fill::Overdue(reason)))
            }
            Poll::Ready(Ok(0)) => {
                self.is_at_end = true;
                Poll::Ready(Fill::End)
            }
            Poll::Ready(Ok(_)) => {
                if self.bytes.len() == self.bytes.capacity() {
                    self.n_wanted = (self.n_wanted * 2).min(LARGE_READ);
                }
                Poll::Ready(Fill::Bytes)
            }
            Poll::Ready(Err(_)) => Poll::Ready(Fill::Failed),
        }
    }

    /// Reads past this buffer, which is empty, into the room that `to` has: so many bytes at most.
    pub fn poll_read(
        &mut self,
        from: &mut Connection,
        to: &mut Vec<u8>,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Fill> {
        if self.is_at_end {
            return Poll::Ready(Fill::End);
        }
        let read = match to.capacity() - to.len() {
            room if room <= most => from.poll_read_into(to, cx),
            _ => poll_read_buf(Pin::new(&mut *from), cx, &mut to.limit(most)),
        };
        match read {
            Poll::Pending => from
                .handle()
                .close_reason()
                .map_or(Poll::Pending, |reason| Poll::Ready(Fill::Overdue(reason))),
            Poll::Ready(Ok(0)) => {
                self.is_at_end = true;
                Poll::Ready(Fill::End)
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Fill::Bytes),
            Poll::Ready(Err(_)) => Poll::Ready(Fill::Failed),
        }
    }

    /// Reads small pieces again, after a large body.
    pub fn reset_read_size(&mut self) {
        self.n_wanted = FIRST_READ;
    }
}
