//! The streams of a call as its run sees them: the answer that goes out piece by piece, and the body that comes in so.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_http::{
    StatusCode,
    header::{HeaderName, HeaderValue},
};
use bytes::Bytes;
use effe_abi::raw::{Status, plugin_flags, status};

use crate::{
    body::pipe::{CAPACITY, End, Left, Pipe},
    rt::{block_on::block_until, clock::Moment},
};

/// What of a call goes piece by piece. When it is dropped, whoever is at the other end is told.
#[derive(Default)]
pub struct Streams {
    /// The answer's way out, if the lambda has declared that it streams answers.
    pub sender: Option<Arc<BodySender>>,
    /// The request's body, if the lambda has declared that it reads bodies as streams and there is one.
    pub inlet: Option<Arc<Pipe>>,
}

impl Streams {
    /// No streams.
    pub const NONE: Streams = Streams { sender: None, inlet: None };
}

impl Streams {
    /// The run is over, and whoever is at the other end is told.
    pub fn close(&self) {
        if let Some(sender) = self.sender.as_ref().filter(|sender| sender.has_begun()) {
            sender.abandon();
        }
        if let Some(inlet) = &self.inlet {
            inlet.leave();
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.close();
    }
}

/// The outlets of one thread. An answer that came whole leaves its own for the next one.
pub struct BodySenders {
    patience: Option<Duration>,
    spare: Cell<Option<Arc<BodySender>>>,
}

impl BodySenders {
    /// None yet. A piece of an answer waits for the client for `patience` at most.
    pub fn new(patience: Option<Duration>) -> BodySenders {
        BodySenders { patience, spare: Cell::default() }
    }

    /// The streams of a call, with an outlet if the flags of its plugin declare one.
    pub fn streams(&self, flags: u64) -> Streams {
        let is_declared = flags & plugin_flags::STREAM_RESPONSE != 0;
        let sender = || self.spare.take().unwrap_or_else(|| Arc::new(BodySender::new(self.patience)));
        Streams { sender: is_declared.then(sender), inlet: None }
    }

    /// Takes back an outlet, which is as new if nobody else has it.
    pub fn keep(&self, mut sender: Arc<BodySender>) {
        if let Some(used) = Arc::get_mut(&mut sender) {
            used.renew();
            self.spare.set(Some(sender));
        }
    }
}

/// The head of an answer that is streamed.
pub struct Head {
    /// 200 to 599.
    pub status: StatusCode,
    /// Checked.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How many bytes the lambda says will follow.
    pub length: Option<u64>,
}

/// An answer on its way out.
pub struct BodySender {
    /// Whether the head has come. Most answers come whole, and nobody takes the locks then.
    begun: AtomicBool,
    state: Mutex<State>,
    /// The body.
    pub pipe: Pipe,
    patience: Option<Duration>,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    ended: bool,
    /// Bytes that the lambda owes to its own Content-Length.
    owed: Option<u64>,
    waker: Option<Waker>,
}

impl BodySender {
    fn new(patience: Option<Duration>) -> BodySender {
        let begun = AtomicBool::new(false);
        BodySender { begun, state: Mutex::default(), pipe: Pipe::default(), patience }
    }

    /// Makes it as new.
    fn renew(&mut self) {
        if *self.begun.get_mut() {
            *self = BodySender::new(self.patience);
        } else {
            // All that can have happened: somebody has waited for the head, or has given up on it.
            *self.state.get_mut().unwrap_or_else(PoisonError::into_inner) = State::default();
        }
    }

    /// The head goes out; the body follows.
    pub fn begin(&self, head: Head) {
        let mut state = self.state();
        state.owed = head.length;
        state.head = Some(head);
        self.begun.store(true, Ordering::Release);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The head, if nobody has taken it yet.
    pub fn take_head(&self) -> Option<Head> {
        if self.has_begun() { self.state().head.take() } else { None }
    }

    /// Whether the head has gone.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits for the head. The task that waits is woken once.
    pub fn poll_head(&self, context: &mut Context<'_>) -> Poll<Head> {
        let mut state = self.state();
        match state.head.take() {
            Some(head) => Poll::Ready(head),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Hands on the next piece of the body, the last if no more follows. Waits on this thread while the client is
    /// slow, and with a large piece until most of it has gone: so of what a slow client is sent one piece is held, or
    /// two, and not two or three.
    pub fn write(&self, piece: Bytes, more: bool) -> Status {
        let is_large = piece.len() > CAPACITY;
        let written = self.write_when(piece, more, || self.wait_for_room());
        if written == status::OK && is_large && more { self.wait_for_room() } else { written }
    }

    /// Waits on this thread for as long as the client reads something now and then.
    fn wait_for_room(&self) -> Status {
        let mut n_left = self.pipe.n_bytes();
        loop {
            let deadline = self.patience.map(|patience| Moment::now() + patience);
            match block_until(deadline, |context| self.pipe.poll_room(context)) {
                Some(Ok(())) => return status::OK,
                Some(Err(Left)) => return status::GONE,
                None if self.pipe.n_bytes() < n_left => n_left = self.pipe.n_bytes(),
                None => {
                    self.abandon();
                    return status::TIMEOUT;
                }
            }
        }
    }

    /// Hands on the next piece of a run that asks for room before: this one waits for nobody.
    pub fn write_now(&self, piece: Bytes, more: bool) -> Status {
        self.write_when(piece, more, || status::OK)
    }

    fn write_when(&self, piece: Bytes, more: bool, has_room: impl FnOnce() -> Status) -> Status {
        let mut state = self.state();
        if !self.has_begun() || state.ended {
            return status::INVALID;
        }
        if let Some(owed) = state.owed {
            let Some(left) = owed.checked_sub(piece.len() as u64) else {
                state.ended = true;
                drop(state);
                self.pipe.end(End::Broken(status::INVALID));
                return status::INVALID;
            };
            state.owed = Some(left);
        }
        drop(state);
        let room = has_room();
        if room != status::OK {
            return room;
        }
        if self.pipe.push(piece).is_err() {
            return status::GONE;
        }
        if more || self.finish() { status::OK } else { status::INVALID }
    }

    /// The answer is complete; false if bytes are missing that its Content-Length promised, in which case the client
    /// sees that it is not.
    pub fn finish(&self) -> bool {
        if !self.has_begun() {
            return true;
        }
        let mut state = self.state();
        if state.ended {
            return true;
        }
        state.ended = true;
        let is_whole = state.owed.is_none_or(|owed| owed == 0);
        drop(state);
        self.pipe.end(if is_whole { End::Whole } else { End::Broken(status::INVALID) });
        is_whole
    }

    /// Whether the lambda has kept the Content-Length that it gave its answer, as far as can be told.
    pub fn keeps_its_length(&self) -> bool {
        !self.has_begun() || self.pipe.broken() != Some(status::INVALID)
    }

    /// Nothing more will come: an answer that is not complete is broken off.
    pub fn abandon(&self) {
        self.state().ended = true;
        self.pipe.end(End::Broken(status::ERROR));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits for the head of an answer. When it is dropped, nobody does, and the run that writes it is told.
pub struct Awaited(Option<Arc<BodySender>>);

impl Awaited {
    /// Waits for the head of what `outlet` brings, if there is one.
    pub fn new(sender: Option<Arc<BodySender>>) -> Awaited {
        Awaited(sender)
    }

    /// The outlet, if there is one.
    pub fn sender(&self) -> Option<&BodySender> {
        self.0.as_deref()
    }

    /// The head has come, and somebody else takes the rest.
    pub fn take(&mut self) -> Option<Arc<BodySender>> {
        self.0.take()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(sender) = &self.0 {
            sender.pipe.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn begun(length: Option<u64>) -> BodySender {
        let sender = BodySender::new(Some(Duration::from_millis(20)));
        assert_eq!(sender.write(Bytes::new(), true), status::INVALID, "the head comes first");
        sender.begin(Head { status: StatusCode::OK, headers: Vec::new(), length });
        sender
    }

    fn rest(sender: &BodySender) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            match block_until(None, |context| sender.pipe.poll_next(context)).unwrap() {
                Ok(piece) => all.extend_from_slice(&piece),
                Err(end) => return (all, end),
            }
        }
    }

    #[test]
    fn a_content_length_is_kept_or_the_answer_is_broken_off() {
        let exact = begun(Some(3));
        assert_eq!(exact.write("abc".into(), false), status::OK);
        assert_eq!(rest(&exact), (b"abc".to_vec(), End::Whole));
        let short = begun(Some(3));
        assert_eq!(short.write("ab".into(), true), status::OK);
        assert!(!short.finish());
        assert_eq!(rest(&short), (b"ab".to_vec(), End::Broken(status::INVALID)));
        let long = begun(Some(3));
        assert_eq!(long.write("ab".into(), true), status::OK);
        assert_eq!(long.write("cd".into(), false), status::INVALID);
        assert_eq!(rest(&long), (b"ab".to_vec(), End::Broken(status::INVALID)));
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up_in_time() {
        let sender = begun(None);
        assert_eq!(sender.write(vec![0; CAPACITY].into(), true), status::OK);
        assert_eq!(sender.write("x".into(), true), status::TIMEOUT);
        sender.pipe.leave();
        assert_eq!(sender.write("x".into(), true), status::INVALID, "it was given up");
    }

    #[test]
    fn a_large_piece_is_waited_for_until_most_of_it_has_gone() {
        let sender = BodySender::new(None);
        sender.begin(Head { status: StatusCode::OK, headers: Vec::new(), length: None });
        let next = || block_until(None, |context| sender.pipe.poll_next(context)).unwrap().unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| sender.write(vec![7; 3 * CAPACITY + 1].into(), true));
            for _ in 0..3 {
                assert!(!writer.is_finished());
                assert_eq!(next().len(), CAPACITY);
            }
            assert_eq!(writer.join().unwrap(), status::OK);
            assert_eq!(next().len(), 1);
            // Nothing is to follow the last one, so nobody waits.
            assert_eq!(sender.write(vec![7; 3 * CAPACITY].into(), false), status::OK);
        });
    }

    #[test]
    fn a_writer_is_told_when_nobody_waits_for_the_head_any_more() {
        let sender = Arc::new(begun(None));
        assert_eq!(sender.write(vec![0; CAPACITY].into(), true), status::OK);
        drop(Awaited::new(Some(Arc::clone(&sender))));
        assert_eq!(sender.write("x".into(), true), status::GONE);
        let taken = Arc::new(begun(None));
        assert!(Awaited::new(Some(Arc::clone(&taken))).take().is_some());
        assert_eq!(taken.write("x".into(), true), status::OK);
    }

    #[test]
    fn a_call_that_goes_away_breaks_its_answer_off_and_leaves_its_body() {
        let senders = BodySenders::new(None);
        let mut streams = senders.streams(plugin_flags::STREAM_RESPONSE);
        let (sender, inlet) = (streams.sender.clone().unwrap(), Arc::new(Pipe::default()));
        streams.inlet = Some(Arc::clone(&inlet));
        sender.begin(Head { status: StatusCode::OK, headers: Vec::new(), length: None });
        drop(streams);
        assert_eq!(rest(&sender).1, End::Broken(status::ERROR));
        assert_eq!(inlet.push(Bytes::new()), Err(Left));
        assert!(senders.streams(plugin_flags::STREAM_REQUEST).sender.is_none());
    }

    #[test]
    fn an_outlet_that_is_used_again_is_as_new() {
        let senders = BodySenders::new(None);
        let sender = || senders.streams(plugin_flags::STREAM_RESPONSE).sender.clone().unwrap();
        let (first, length) = (sender(), Some(3));
        first.begin(Head { status: StatusCode::OK, headers: Vec::new(), length });
        first.write("ab".into(), true);
        first.abandon();
        let other = Arc::clone(&first);
        senders.keep(first);
        let second = sender();
        assert!(!Arc::ptr_eq(&second, &other), "somebody has the first one");
        senders.keep(other);
        let again = senders.streams(plugin_flags::STREAM_RESPONSE).sender.take().unwrap();
        assert!(!again.has_begun() && again.take_head().is_none() && again.keeps_its_length());
        again.begin(Head { status: StatusCode::OK, headers: Vec::new(), length });
        assert_eq!(again.write("xyz".into(), false), status::OK);
        assert_eq!(rest(&again), (b"xyz".to_vec(), End::Whole));
    }
}
