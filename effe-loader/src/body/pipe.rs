//! A bounded pipe of bytes between a run and its connection. Each end polls and is woken through a [`Waker`], and so
//! may be a task or, by [`block_until`](crate::rt::block_on::block_until), a thread.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use effe_abi::raw::{Status, status};

use crate::body::trailers::Trailers;

/// Bytes that a pipe holds before its writer has to wait, and that are read at once at most.
pub const CAPACITY: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All has been written.
    Whole,
    /// It ended early, with this status of the wire.
    Broken(Status),
}

/// The reader has closed the pipe: nothing more is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// One writer, one reader, and the pieces between them.
#[derive(Default)]
pub struct Pipe {
    state: Mutex<State>,
    /// What comes behind the whole body, once its end is here.
    trailers: OnceLock<Trailers>,
    /// Whether the body itself went another way, as a whole.
    has_trailers_alone: bool,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    n_bytes: usize,
    end: Option<End>,
    closed: bool,
    /// Whether the reader has asked for a piece when there was none.
    asked: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    /// The pipe of a body that went another way: only its trailers are here.
    pub fn of_trailers(trailers: Trailers) -> Pipe {
        let state = State { end: Some(End::Whole), ..State::default() };
        Pipe { state: Mutex::new(state), trailers: trailers.into(), has_trailers_alone: true }
    }

    /// Whether the body comes through this pipe.
    pub fn has_body(&self) -> bool {
        !self.has_trailers_alone
    }

    /// Waits for room. A writer that doesn't ask may write all the same.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.poll_writer(cx, |state| match state.closed {
            true => Some(Err(Closed)),
            false => (state.n_bytes < CAPACITY).then_some(Ok(())),
        })
    }

    /// Waits until the reader asks for the first piece, or closes the pipe.
    pub fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_writer(cx, |state| (state.asked || state.closed).then_some(()))
    }

    /// Waits until the reader has closed the pipe.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_writer(cx, |state| state.closed.then_some(()))
    }

    fn poll_writer<T>(&self, cx: &mut Context<'_>, value: impl FnOnce(&State) -> Option<T>) -> Poll<T> {
        let mut state = self.state();
        if let Some(value) = value(&state) {
            return Poll::Ready(value);
        }
        wait(&mut state.writer, cx);
        Poll::Pending
    }

    /// Bytes that wait.
    pub fn n_bytes(&self) -> usize {
        self.state().n_bytes
    }

    pub fn push(&self, piece: Bytes) -> Result<(), Closed> {
        let mut state = self.state();
        if state.closed {
            return Err(Closed);
        }
        if !piece.is_empty() && state.end.is_none() {
            state.n_bytes += piece.len();
            state.pieces.push_back(piece);
            wake(state.reader.take(), state);
        }
        Ok(())
    }

    /// Ends the pipe, whole and with trailers. The first end counts.
    pub fn end_with(&self, trailers: Trailers) {
        // Before the end, so that who sees the end sees them.
        if !trailers.is_empty() {
            let _ = self.trailers.set(trailers);
        }
        self.end(End::Whole);
    }

    /// What comes behind the whole body, once its end is here.
    pub fn trailers(&self) -> Option<&Trailers> {
        self.trailers.get()
    }

    /// Ends the pipe, behind what has been written. The first end counts.
    pub fn end(&self, end: End) {
        let mut state = self.state();
        if state.end.is_none() {
            state.end = Some(end);
            wake(state.reader.take(), state);
        }
    }

    /// The writer goes away. A reader that still wants more is told that the client has gone, behind what was written.
    pub fn leave(&self) {
        let mut state = self.state();
        if state.end.is_none() && !state.closed {
            state.end = Some(End::Broken(status::GONE));
            wake(state.reader.take(), state);
        }
    }

    /// Why the pipe ended early, if it did.
    pub fn broken(&self) -> Option<Status> {
        match self.state().end {
            Some(End::Broken(status)) => Some(status),
            _ => None,
        }
    }

    /// The next piece, or its first [`CAPACITY`] bytes, or the end.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
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
        wait(&mut state.reader, cx);
        if !std::mem::replace(&mut state.asked, true) {
            wake(state.writer.take(), state);
        }
        Poll::Pending
    }

    /// Lets the reader look again, though nothing has been written.
    pub fn wake_reader(&self) {
        let mut state = self.state();
        wake(state.reader.take(), state);
    }

    /// The reader wants no more: what is in the pipe is dropped, and the writer is woken.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.n_bytes = 0;
        let pieces = std::mem::take(&mut state.pieces);
        wake(state.writer.take(), state);
        // Outside the lock: dropping a piece runs code of the lambda's.
        drop(pieces);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that a task waits. Mostly it is the one from before.
fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Wakes a task outside the lock, which it will take.
pub fn wake<T>(waker: Option<Waker>, state: MutexGuard<'_, T>) {
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::rt::{block_on::block_until, clock::Moment};

    fn next(pipe: &Pipe) -> Result<Bytes, End> {
        block_until(None, |cx| pipe.poll_next(cx)).expect("there is no deadline")
    }

    #[test]
    fn what_is_written_is_read_in_order_and_then_the_end() {
        let pipe = Pipe::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..10_000_u32 {
                    assert_eq!(block_until(None, |cx| pipe.poll_room(cx)), Some(Ok(())));
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
    fn a_writer_waits_while_the_pipe_is_full_and_is_told_when_the_reader_closes_it() {
        let pipe = Pipe::default();
        pipe.push(Bytes::from(vec![0; CAPACITY])).unwrap();
        let soon = Moment::now() + Duration::from_millis(20);
        assert_eq!(block_until(Some(soon), |cx| pipe.poll_room(cx)), None);
        thread::scope(|scope| {
            scope.spawn(|| next(&pipe));
            assert_eq!(block_until(None, |cx| pipe.poll_room(cx)), Some(Ok(())));
        });
        pipe.push(Bytes::from(vec![0; CAPACITY])).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| pipe.close());
            assert_eq!(block_until(None, |cx| pipe.poll_room(cx)), Some(Err(Closed)));
        });
        assert_eq!(pipe.push(Bytes::from_static(b"x")), Err(Closed));
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

    #[test]
    fn a_writer_that_goes_away_is_missed_only_by_a_reader_that_wants_more() {
        let (wanted, ended, unwanted) = (Pipe::default(), Pipe::default(), Pipe::default());
        wanted.push(Bytes::from_static(b"x")).unwrap();
        ended.end(End::Whole);
        unwanted.close();
        [&wanted, &ended, &unwanted].into_iter().for_each(Pipe::leave);
        assert_eq!((next(&wanted).unwrap(), next(&wanted)), ("x".into(), Err(End::Broken(status::GONE))));
        assert_eq!(next(&ended), Err(End::Whole));
        assert_eq!(unwanted.broken(), None, "what a run fails for is not its client's leaving");
    }
}
