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

/// The same of an answer's, with the piece that its reader is sending: twice as many are handed on at once where the
/// client takes them.
const OF_ANSWER: usize = 2 * CAPACITY;

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
pub struct Pipe {
    state: Mutex<State>,
    capacity: usize,
    /// Whether the last piece counts until the reader asks for the next one.
    counts_last: bool,
    /// What comes behind the whole body, once its end is here.
    trailers: OnceLock<Trailers>,
    /// Whether the body itself went another way, as a whole.
    has_trailers_alone: bool,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Of what is in the pipe, and of the reader's last piece if that counts.
    n_bytes: usize,
    n_last: usize,
    /// What the reader has taken since somebody asked.
    n_taken: usize,
    /// A writer that waits for room is woken once no more bytes than these are left.
    low: usize,
    end: Option<End>,
    closed: bool,
    /// Whether the reader has asked for a piece when there was none.
    asked: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Default for Pipe {
    fn default() -> Pipe {
        Pipe::new(State::default(), CAPACITY)
    }
}

impl Pipe {
    fn new(state: State, capacity: usize) -> Pipe {
        let (trailers, state) = (OnceLock::new(), Mutex::new(state));
        Pipe { state, capacity, counts_last: false, trailers, has_trailers_alone: false }
    }

    /// The pipe of an answer, whose reader sends a piece before it asks for the next one.
    pub fn of_answer() -> Pipe {
        Pipe { counts_last: true, ..Pipe::new(State::default(), OF_ANSWER) }
    }

    /// The pipe of a body that went another way: only its trailers are here.
    pub fn of_trailers(trailers: Trailers) -> Pipe {
        let state = State { end: Some(End::Whole), ..State::default() };
        Pipe { trailers: trailers.into(), has_trailers_alone: true, ..Pipe::new(state, CAPACITY) }
    }

    /// Whether the body comes through this pipe.
    pub fn has_body(&self) -> bool {
        !self.has_trailers_alone
    }

    /// Waits for room. A writer that doesn't ask may write all the same. One that has waited finds half of the pipe
    /// empty: else a fast writer would be woken for each piece that is read.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.poll_room_of(self.capacity, cx)
    }

    /// The same for a writer that fills the pipe up to `capacity`.
    pub fn poll_room_of(&self, capacity: usize, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.poll_writer(cx, |state| match state.closed {
            true => Some(Err(Closed)),
            false if state.n_bytes < capacity => Some(Ok(())),
            false => {
                state.low = capacity / 2;
                None
            }
        })
    }

    /// How many bytes the reader has taken since the last call.
    pub fn take_n_taken(&self) -> usize {
        std::mem::take(&mut self.state().n_taken)
    }

    /// Waits until the reader asks for the first piece, or closes the pipe.
    pub fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_writer(cx, |state| (state.asked || state.closed).then_some(()))
    }

    /// Waits until the reader has closed the pipe.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_writer(cx, |state| state.closed.then_some(()))
    }

    fn poll_writer<T>(&self, cx: &mut Context<'_>, value: impl FnOnce(&mut State) -> Option<T>) -> Poll<T> {
        let mut state = self.state();
        if let Some(value) = value(&mut state) {
            return Poll::Ready(value);
        }
        wait(&mut state.writer, cx);
        Poll::Pending
    }

    /// Bytes that wait, with the last piece if that counts.
    pub fn n_bytes(&self) -> usize {
        self.state().n_bytes
    }

    /// Whether there is something that the reader has not taken yet.
    pub fn has_pieces(&self) -> bool {
        !self.state().pieces.is_empty()
    }

    pub fn push(&self, piece: Bytes) -> Result<(), Closed> {
        self.push_all([piece])
    }

    /// Pieces in their order. The reader is woken once.
    pub fn push_all(&self, pieces: impl IntoIterator<Item = Bytes>) -> Result<(), Closed> {
        let mut state = self.state();
        if state.closed {
            return Err(Closed);
        }
        if state.end.is_none() {
            let n_before = state.n_bytes;
            for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                state.n_bytes += piece.len();
                state.pieces.push_back(piece);
            }
            if state.n_bytes > n_before {
                wake(state.reader.take(), state);
            }
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
        let had_last = state.n_last > 0;
        state.n_bytes -= std::mem::take(&mut state.n_last);
        if let Some(mut piece) = state.pieces.pop_front() {
            if piece.len() > CAPACITY {
                let rest = piece.split_off(CAPACITY);
                state.pieces.push_front(rest);
            }
            state.n_taken += piece.len();
            match self.counts_last {
                true => state.n_last = piece.len(),
                false => state.n_bytes -= piece.len(),
            }
            if state.n_bytes <= state.low {
                wake(state.writer.take(), state);
            }
            return Poll::Ready(Ok(piece));
        }
        if let Some(end) = state.end {
            return Poll::Ready(Err(end));
        }
        wait(&mut state.reader, cx);
        if !std::mem::replace(&mut state.asked, true) || had_last {
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
        (state.n_bytes, state.n_last) = (0, 0);
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
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::Duration,
    };

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
    fn a_piece_of_an_answer_counts_until_the_next_one_is_asked_for() {
        let pipe = Pipe::of_answer();
        let mut cx = Context::from_waker(Waker::noop());
        let has_room = || pipe.poll_room(&mut Context::from_waker(Waker::noop())).is_ready();
        let piece = || Bytes::from(vec![0; CAPACITY]);
        pipe.push_all([piece(), Bytes::new(), piece()]).unwrap();
        assert_eq!(pipe.poll_next(&mut cx), Poll::Ready(Ok(piece())));
        assert!(!has_room() && pipe.n_bytes() == 2 * CAPACITY, "it is being sent");
        assert_eq!(pipe.poll_next(&mut cx), Poll::Ready(Ok(piece())));
        assert!(has_room() && pipe.n_bytes() == CAPACITY && !pipe.has_pieces());
        assert!(pipe.poll_next(&mut cx).is_pending());
        assert_eq!((pipe.n_bytes(), pipe.take_n_taken(), pipe.take_n_taken()), (0, 2 * CAPACITY, 0));
    }

    #[test]
    fn a_writer_that_waits_for_room_is_woken_when_half_of_the_pipe_is_empty() {
        #[derive(Default)]
        struct Woken(AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (pipe, woken) = (Pipe::default(), Arc::<Woken>::default());
        let writer = Waker::from(Arc::clone(&woken));
        let quarter = || Bytes::from(vec![0; CAPACITY / 4]);
        pipe.push_all([quarter(), quarter(), quarter(), quarter()]).unwrap();
        assert!(pipe.poll_room(&mut Context::from_waker(&writer)).is_pending());
        for n_woken in [0, 1, 1] {
            next(&pipe).unwrap();
            assert_eq!(woken.0.load(Ordering::Relaxed), n_woken);
        }
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
