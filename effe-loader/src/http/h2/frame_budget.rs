//! How many frames that carry nothing a client may send: they cost no memory and no window, only time, and h2 doesn't
//! bound them. This reads the heads of the frames as their bytes pass.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{batched::Batched, preface::PREFACE};
use crate::{net::connections::ConnHandle, rt::clock::Moment};

/// Frames without a piece of a request in each second: about 1 % of a CPU.
const PER_SECOND: u64 = 10_000;
/// Bytes of answers for which a client may send one more, since a client that reads opens windows.
const BYTES_PER_FRAME: u64 = 1024;
/// What a frame with a piece of a request is followed by at most: a client of gRPC opens two windows, and measures the
/// way by a ping, for each short answer.
const PER_PIECE: u64 = 4;

/// Bytes of a frame's head (RFC 9113, section 4.1).
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// What one client has left.
#[derive(Default)]
pub struct FrameBudget {
    /// The second that the counts are for.
    second: Cell<Moment>,
    n_frames: Cell<u64>,
    n_pieces: Cell<u64>,
    n_sent: Cell<u64>,
    is_exceeded: Cell<bool>,
}

impl FrameBudget {
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Only where there are frames to be paid for is the time asked for.
    fn count(&self, Found { n_idle, n_pieces }: Found, now: impl FnOnce() -> Moment) {
        if n_idle == 0 {
            self.n_pieces.set(self.n_pieces.get() + n_pieces);
            return;
        }
        let now = now();
        if self.second.replace(now) != now {
            self.n_frames.set(0);
            self.n_pieces.set(0);
            self.n_sent.set(0);
        }
        self.n_frames.set(self.n_frames.get() + n_idle);
        self.n_pieces.set(self.n_pieces.get() + n_pieces);
        let earned = self.n_pieces.get() * PER_PIECE + self.n_sent.get() / BYTES_PER_FRAME;
        if self.n_frames.get() > PER_SECOND + earned {
            self.is_exceeded.set(true);
        }
    }
}

/// Frames that have begun: those that carry nothing of a request, and those with a piece of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    n_idle: u64,
    n_pieces: u64,
}

/// Finds the frames in bytes that come in pieces.
struct Frames {
    /// Bytes until the next frame begins.
    n_skipped: usize,
    head: [u8; FRAME_HEAD],
    n_head: usize,
}

impl Frames {
    /// Before the preface.
    fn new() -> Frames {
        Frames { n_skipped: PREFACE.len(), head: [0; FRAME_HEAD], n_head: 0 }
    }

    /// The frames that begin in `bytes`.
    fn find(&mut self, mut bytes: &[u8]) -> Found {
        let mut found = Found::default();
        loop {
            let n = self.n_skipped.min(bytes.len());
            self.n_skipped -= n;
            bytes = &bytes[n..];
            let n = (FRAME_HEAD - self.n_head).min(bytes.len());
            self.head[self.n_head..self.n_head + n].copy_from_slice(&bytes[..n]);
            self.n_head += n;
            bytes = &bytes[n..];
            if self.n_head < FRAME_HEAD {
                return found;
            }
            let [high, middle, low, kind, ..] = self.head;
            match kind {
                DATA | HEADERS => found.n_pieces += 1,
                CONTINUATION => {}
                _ => found.n_idle += 1,
            }
            self.n_skipped = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.n_head = 0;
        }
    }
}

/// A connection whose frames are counted.
pub struct Counted {
    connection: Batched,
    handle: ConnHandle,
    frames: Frames,
    budget: Rc<FrameBudget>,
}

impl Counted {
    pub fn new(connection: Batched, handle: ConnHandle, budget: &Rc<FrameBudget>) -> Counted {
        Counted { connection, handle, frames: Frames::new(), budget: Rc::clone(budget) }
    }

    fn sent(&self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &sent {
            self.budget.n_sent.set(self.budget.n_sent.get() + *n as u64);
        }
        sent
    }
}

impl AsyncRead for Counted {
    /// Past the budget nothing more is read: the task is woken to end the connection.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.budget.is_exceeded() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.connection).poll_read(cx, buf);
        if let bytes @ [_, ..] = &buf.filled()[before..] {
            this.budget.count(this.frames.find(bytes), || this.handle.now());
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(cx, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(cx, slices);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [.., middle, low] = (length as u32).to_be_bytes();
        [vec![0, middle, low, kind, 0, 0, 0, 0, 0], vec![kind; length]].concat()
    }

    #[test]
    fn frames_are_found_however_their_bytes_come() {
        let kinds = [(4, 0), (1, 20), (6, 8), (0, 300), (8, 4), (9, 1), (0xff, 70), (2, 5), (3, 4)];
        let bytes: Vec<u8> = PREFACE
            .iter()
            .copied()
            .chain(kinds.iter().flat_map(|(kind, length)| frame(*kind, *length)))
            .collect();
        for at_a_time in [1, 2, 9, 10, 33, bytes.len()] {
            let mut frames = Frames::new();
            let found = bytes.chunks(at_a_time).map(|piece| frames.find(piece)).fold(
                Found::default(),
                |sum, found| Found {
                    n_idle: sum.n_idle + found.n_idle,
                    n_pieces: sum.n_pieces + found.n_pieces,
                },
            );
            assert_eq!(found, Found { n_idle: 6, n_pieces: 2 }, "{at_a_time} bytes at a time");
        }
    }

    #[test]
    fn what_is_sent_earns_more_and_each_second_begins_anew() {
        let budget = FrameBudget::default();
        let (now, later) = (Moment::now(), Moment::now() + std::time::Duration::from_secs(1));
        let idle = |n_idle| Found { n_idle, n_pieces: 0 };
        budget.count(idle(PER_SECOND), || now);
        assert!(!budget.is_exceeded());
        budget.n_sent.set(BYTES_PER_FRAME);
        budget.count(idle(1), || now);
        assert!(!budget.is_exceeded());
        budget.count(idle(PER_SECOND), || later);
        assert!(!budget.is_exceeded());
        budget.count(idle(1), || later);
        assert!(budget.is_exceeded());
    }

    #[test]
    fn calls_earn_what_a_client_sends_with_each() {
        let (budget, now) = (FrameBudget::default(), Moment::now());
        for _ in 0..100_000 {
            // A head, a message, two windows, a ping and what it answers to one.
            budget.count(Found { n_idle: 4, n_pieces: 2 }, || now);
        }
        assert!(!budget.is_exceeded());
        budget.count(Found { n_idle: 500_000, n_pieces: 0 }, || now);
        assert!(budget.is_exceeded());
    }
}
