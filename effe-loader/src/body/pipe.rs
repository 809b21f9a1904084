//! A bounded pipe of bytes between a run and its connection.
//!
//! Each end polls, and is woken through a [`Waker`], be it a task or, by [`block_until`](crate::rt::block_on::block_until), a thread: so a body that a lambda
//! writes may be taken by the server's task, and one that a task brings may be read by a thread or by another task.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use effe_abi::raw::Status;

/// Bytes that may wait in a pipe before its writer has to, and that are read at once.
pub const CAPACITY: usize = 64 * 1024;

/// How a pipe ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All has been written.
    Whole,
    /// What was written is not all, for this reason of the wire's.
    Broken(Status),
}

/// The reader has left: nothing more is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left;

/// One writer, one reader, and what is on its way between them.
#[derive(Default)]
pub struct Pipe(Mutex<State>);

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    n_bytes: usize,
    end: Option<End>,
    left: bool,
    /// Whether the reader has asked for something.
    pending: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    /// Waits for room. A writer that doesn't ask may write all the same.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<Result<(), Left>> {
        let mut state = self.state();
        if state.left {
            return Poll::Ready(Err(Left));
        }
        if state.n_bytes < CAPACITY {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Bytes that wait.
    pub fn n_bytes(&self) -> usize {
        self.state().n_bytes
    }

    /// Waits until the reader asks for the first piece, or leaves.
    pub fn poll_asked(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.pending || state.left {
            return Poll::Ready(());
        }
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Waits until the reader has left.
    pub fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.left {
            return Poll::Ready(());
        }
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Hands on a piece.
    ///
    /// # Errors
    /// The reader has left.
    pub fn push(&self, piece: Bytes) -> Result<(), Left> {
        let mut state = self.state();
        if state.left {
            return Err(Left);
        }
        if !piece.is_empty() && state.end.is_none() {
            state.n_bytes += piece.len();
            state.pieces.push_back(piece);
            wake(state.reader.take(), state);
        }
        Ok(())
    }

    /// Ends the pipe, behind what has been written. The first end counts.
    pub fn end(&self, end: End) {
        let mut state = self.state();
        if state.end.is_none() {
            state.end = Some(end);
            wake(state.reader.take(), state);
        }
    }

    /// Why what is written is not all, if so.
    pub fn broken(&self) -> Option<Status> {
        match self.state().end {
            Some(End::Broken(status)) => Some(status),
            _ => None,
        }
    }

    /// The next piece, or as much of it as is read at once, or the end.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        let mut state = self.state();
        if let Some(mut piece) = state.pieces.pop_front() {
            if piece.len() > CAPACITY {
                let rest = piece.split_off(CAPACITY);
                state.pieces.push_front(rest);
            }
            state.n_bytes -= piece.len();
            if state.n_bytes < CAPACITY {
                wake(state.writer.take(), state);
            }
            return Poll::Ready(Ok(piece));
        }
        if let Some(end) = state.end {
            return Poll::Ready(Err(end));
        }
        state.reader = Some(context.waker().clone());
        if !std::mem::replace(&mut state.pending, true) {
            wake(state.writer.take(), state);
        }
        Poll::Pending
    }

    /// The reader leaves: what is on its way is dropped, and the writer told.
    pub fn leave(&self) {
        let mut state = self.state();
        state.left = true;
        state.n_bytes = 0;
        let pieces = std::mem::take(&mut state.pieces);
        wake(state.writer.take(), state);
        // Outside the lock: dropping a piece runs code of the lambda's.
        drop(pieces);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes whoever waits, outside the lock, which the one that is woken wants.
fn wake(waker: Option<Waker>, state: MutexGuard<'_, State>) {
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use effe_abi::raw::status;

    use super::*;
    use crate::rt::{block_on::block_until, clock::Moment};

    fn soon() -> Option<Moment> {
        Some(Moment::now() + Duration::from_millis(20))
    }

    fn next(pipe: &Pipe) -> Result<Bytes, End> {
        block_until(None, |context| pipe.poll_next(context)).expect("there is no deadline")
    }

    #[test]
    fn what_is_written_is_read_in_order_and_then_the_end() {
        let pipe = Pipe::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..10_000_u32 {
                    assert_eq!(block_until(None, |context| pipe.poll_room(context)), Some(Ok(())));
                    pipe.push(Bytes::copy_from_slice(&n.to_ne_bytes())).unwrap();
                }
                pipe.end(End::Whole);
                pipe.end(End::Broken(status::GONE));
            });
            for n in 0..10_000_u32 {
                assert_eq!(next(&pipe).unwrap()[..], n.to_ne_bytes());
            }
            assert_eq!(next(&pipe), Err(End::Whole), "the first end counts");
        });
    }

    #[test]
    fn a_writer_waits_while_the_pipe_is_full_and_is_told_when_the_reader_leaves() {
        let pipe = Pipe::default();
        pipe.push(Bytes::from(vec![0; CAPACITY])).unwrap();
        assert_eq!(block_until(soon(), |context| pipe.poll_room(context)), None);
        thread::scope(|scope| {
            scope.spawn(|| next(&pipe));
            assert_eq!(block_until(None, |context| pipe.poll_room(context)), Some(Ok(())));
        });
        pipe.push(Bytes::from(vec![0; CAPACITY])).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| pipe.leave());
            assert_eq!(block_until(None, |context| pipe.poll_room(context)), Some(Err(Left)));
        });
        assert_eq!(pipe.push(Bytes::from_static(b"x")), Err(Left));
    }

    #[test]
    fn a_broken_end_comes_after_what_was_written_before_it() {
        let pipe = Pipe::default();
        pipe.push(Bytes::from_static(b"x")).unwrap();
        pipe.end(End::Broken(status::TOO_LARGE));
        pipe.push(Bytes::from_static(b"late")).unwrap();
        assert_eq!(next(&pipe).unwrap(), "x");
        assert_eq!(next(&pipe), Err(End::Broken(status::TOO_LARGE)));
    }
}
