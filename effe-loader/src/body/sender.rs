//! The streams of a call as its run sees them: a response whose body goes out piece by piece, and a request's body that
//! comes in so. A spare sender is kept for the next call, which saves 1.4 % of the instructions of a request to an axum
//! Router.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use effe_abi::raw::{Status, plugin_flags, status};
use http::StatusCode;

use crate::{
    body::{
        duplex::Offer,
        held::HeldBytes,
        pipe::{CAPACITY, Closed, End, Pipe, wake},
        trailers::{MAX_TRAILERS, Trailers},
    },
    message::{fields::Fields, response::ResponseHead},
    rt::{block_on::block_until, clock::Moment},
};

/// The bodies of a call that go piece by piece. They are closed on drop.
pub struct Streams {
    /// `None` if the lambda has not declared that it streams responses.
    pub response: Option<Arc<BodySender>>,
    /// The body; `None` if the lambda has not declared that it reads bodies as streams, or if there is none.
    pub request: Option<Arc<Pipe>>,
    /// What the client offers to switch the connection to; `None` if the lambda has not declared that it upgrades.
    pub upgrade: Option<Box<Offer>>,
}

impl Streams {
    pub const NONE: Streams = Streams { response: None, request: None, upgrade: None };

    /// The run is over: what it has not written is missing, and what it has not read is not wanted.
    pub fn close(&self) {
        if let Some(sender) = self.response.as_ref().filter(|sender| sender.has_begun()) {
            sender.abandon();
        }
        if let Some(request) = &self.request {
            request.close();
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.close();
    }
}

/// The senders of one thread. Most responses come whole, and their sender serves the next one.
pub struct BodySenders {
    timeout: Option<Duration>,
    held: Arc<HeldBytes>,
    spare: Cell<Option<Arc<BodySender>>>,
}

impl BodySenders {
    /// A piece of a response waits for the client for `timeout` at most, and has room in `held` meanwhile.
    pub fn new(timeout: Option<Duration>, held: &Arc<HeldBytes>) -> BodySenders {
        BodySenders { timeout, held: Arc::clone(held), spare: Cell::default() }
    }

    /// The streams of a call, as the flags of its plugin declare them.
    pub fn streams(&self, flags: u64) -> Streams {
        let is_declared = flags & plugin_flags::STREAM_RESPONSE != 0;
        let sender =
            || self.spare.take().unwrap_or_else(|| Arc::new(BodySender::new(self.timeout, &self.held)));
        Streams { response: is_declared.then(sender), request: None, upgrade: None }
    }

    /// Takes back a sender that was not needed, unless somebody else has it.
    pub fn keep(&self, mut sender: Arc<BodySender>) {
        if let Some(unneeded) = Arc::get_mut(&mut sender)
            && *unneeded.begun.get_mut() == NOTHING
        {
            // Somebody may have waited for the head, or have given up on it.
            *unneeded.state.get_mut().unwrap_or_else(PoisonError::into_inner) = State::default();
            self.spare.set(Some(sender));
        }
    }
}

/// How far a response has come: nothing of it, interim responses alone, or its head.
const NOTHING: u8 = 0;
const INTERIM: u8 = 1;
const BEGUN: u8 = 2;

/// What has come of a response before its body, and nobody has taken.
pub struct Beginning {
    pub interims: Vec<ResponseHead>,
    pub head: Option<Head>,
}

/// The head of a response that is streamed.
pub struct Head {
    /// 200 to 599.
    pub status: StatusCode,
    pub fields: Arc<Fields>,
    /// The Content-Length that the lambda gave.
    pub length: Option<u64>,
}

/// A response that is written while it is sent.
pub struct BodySender {
    /// How far it has come. Most responses come whole, and then nobody takes the locks.
    begun: AtomicU8,
    state: Mutex<State>,
    pub pipe: Pipe,
    /// How long a piece waits for the client.
    timeout: Option<Duration>,
    held: Arc<HeldBytes>,
}

#[derive(Default)]
struct State {
    /// Those that go before the head.
    interims: Vec<ResponseHead>,
    head: Option<Head>,
    /// Those that go behind the body.
    trailers: Trailers,
    ended: bool,
    /// Bytes that the lambda owes to its own Content-Length.
    owed: Option<u64>,
    waker: Option<Waker>,
}

impl BodySender {
    fn new(timeout: Option<Duration>, held: &Arc<HeldBytes>) -> BodySender {
        let (begun, held) = (AtomicU8::new(NOTHING), Arc::clone(held));
        BodySender { begun, state: Mutex::default(), pipe: Pipe::of_answer(), timeout, held }
    }

    /// Hands on the head; the body follows.
    pub fn begin(&self, head: Head) {
        let mut state = self.state();
        state.owed = head.length;
        state.head = Some(head);
        self.begun.store(BEGUN, Ordering::Release);
        wake(state.waker.take(), state);
    }

    /// Hands on interim responses; the head follows.
    pub fn inform(&self, mut interims: Vec<ResponseHead>) {
        let mut state = self.state();
        state.interims.append(&mut interims);
        self.begun.store(INTERIM, Ordering::Release);
        wake(state.waker.take(), state);
    }

    /// Takes the trailers that go behind the body, if that has not ended.
    pub fn add_trailers(&self, trailers: Trailers) -> Status {
        let mut state = self.state();
        if state.ended {
            return status::INVALID;
        }
        if state.trailers.n_bytes() + trailers.n_bytes() > MAX_TRAILERS {
            return status::TOO_LARGE;
        }
        state.trailers.append(trailers);
        status::OK
    }

    /// What is there and nobody has taken; `None` if nothing ever was.
    pub fn take_beginning(&self) -> Option<Beginning> {
        if self.begun.load(Ordering::Acquire) == NOTHING {
            return None;
        }
        let mut state = self.state();
        Some(Beginning { interims: std::mem::take(&mut state.interims), head: state.head.take() })
    }

    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire) == BEGUN
    }

    /// Waits for the head, and lets `inform` have what comes before it. The task that waits is woken once.
    pub fn poll_head(&self, cx: &mut Context<'_>, inform: impl FnOnce(Vec<ResponseHead>)) -> Poll<Head> {
        let mut state = self.state();
        if !state.interims.is_empty() {
            inform(std::mem::take(&mut state.interims));
        }
        if let Some(head) = state.head.take() {
            return Poll::Ready(head);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hands on the next piece of the body, the last if no more follows. Waits on this thread while the client is
    /// slow; after a large piece it waits until most of that has gone, so that one large piece is held and not two.
    pub fn write(&self, piece: Bytes, more: bool) -> Status {
        let is_large = piece.len() > CAPACITY;
        let written = self.write_when(piece, more, || self.wait_for_room());
        if written == status::OK && is_large && more { self.wait_for_room() } else { written }
    }

    /// Waits on this thread as long as the client reads something within each timeout.
    fn wait_for_room(&self) -> Status {
        let mut n_left = self.pipe.n_bytes();
        loop {
            let deadline = self.timeout.map(|timeout| Moment::now() + timeout);
            match block_until(deadline, |cx| self.pipe.poll_room(cx)) {
                Some(Ok(())) => return status::OK,
                Some(Err(Closed)) => return status::GONE,
                None if self.pipe.n_bytes() < n_left => n_left = self.pipe.n_bytes(),
                None => {
                    self.abandon();
                    return status::TIMEOUT;
                }
            }
        }
    }

    /// Hands on the next piece of a run that has asked for room, and doesn't wait.
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
        let Some(piece) = self.held.hold(piece) else {
            self.abandon();
            return status::TOO_LARGE;
        };
        if self.pipe.push(piece).is_err() {
            return status::GONE;
        }
        if more || self.finish() { status::OK } else { status::INVALID }
    }

    /// The response is complete; false if bytes of its Content-Length are missing, in which case it is broken off.
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
        let trailers = std::mem::take(&mut state.trailers);
        drop(state);
        if is_whole {
            self.pipe.end_with(trailers);
        } else {
            self.pipe.end(End::Broken(status::INVALID));
        }
        is_whole
    }

    /// False if the lambda is known to have broken the Content-Length that it gave.
    pub fn keeps_its_length(&self) -> bool {
        !self.has_begun() || self.pipe.broken() != Some(status::INVALID)
    }

    /// Nothing more will come: a response that is not complete is broken off.
    pub fn abandon(&self) {
        self.state().ended = true;
        self.pipe.end(End::Broken(status::ERROR));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response whose head is waited for. If it is dropped while it is still here, nobody wants the response, and the
/// pipe is closed.
pub struct Awaited(pub Option<Arc<BodySender>>);

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(sender) = &self.0 {
            sender.pipe.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn begun(length: Option<u64>) -> BodySender {
        let sender = BodySender::new(Some(Duration::from_millis(20)), &HeldBytes::unlimited());
        assert_eq!(sender.write(Bytes::new(), true), status::INVALID, "the head comes first");
        sender.begin(Head { status: StatusCode::OK, fields: Arc::default(), length });
        sender
    }

    fn rest(sender: &BodySender) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            match block_until(None, |cx| sender.pipe.poll_next(cx)).unwrap() {
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
        for _ in 0..2 {
            assert_eq!(sender.write(vec![0; CAPACITY].into(), true), status::OK);
        }
        assert_eq!(sender.write("x".into(), true), status::TIMEOUT);
        sender.pipe.close();
        assert_eq!(sender.write("x".into(), true), status::INVALID, "it was given up");
    }

    #[test]
    fn a_large_piece_is_waited_for_until_most_of_it_has_gone() {
        let sender = BodySender::new(None, &HeldBytes::unlimited());
        sender.begin(Head { status: StatusCode::OK, fields: Arc::default(), length: None });
        let next = || block_until(None, |cx| sender.pipe.poll_next(cx)).unwrap().unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| sender.write(vec![7; 3 * CAPACITY + 1].into(), true));
            for _ in 0..3 {
                assert!(!writer.is_finished());
                assert_eq!(next().len(), CAPACITY);
            }
            // Who asks for the next piece has sent the one before.
            assert_eq!(next().len(), 1);
            assert_eq!(writer.join().unwrap(), status::OK);
            // Nothing is to follow the last one, so nobody waits.
            assert_eq!(sender.write(vec![7; 3 * CAPACITY].into(), false), status::OK);
        });
    }

    #[test]
    fn a_writer_is_told_when_nobody_waits_for_the_head_any_more() {
        let sender = Arc::new(begun(None));
        assert_eq!(sender.write(vec![0; CAPACITY].into(), true), status::OK);
        drop(Awaited(Some(Arc::clone(&sender))));
        assert_eq!(sender.write("x".into(), true), status::GONE);
        let taken = Arc::new(begun(None));
        assert!(Awaited(Some(Arc::clone(&taken))).0.take().is_some());
        assert_eq!(taken.write("x".into(), true), status::OK);
    }

    #[test]
    fn a_call_that_goes_away_breaks_its_response_off_and_closes_its_body() {
        let senders = BodySenders::new(None, &HeldBytes::unlimited());
        let mut streams = senders.streams(plugin_flags::STREAM_RESPONSE);
        let (sender, request) = (streams.response.clone().unwrap(), Arc::new(Pipe::default()));
        streams.request = Some(Arc::clone(&request));
        sender.begin(Head { status: StatusCode::OK, fields: Arc::default(), length: None });
        drop(streams);
        assert_eq!(rest(&sender).1, End::Broken(status::ERROR));
        assert_eq!(request.push(Bytes::new()), Err(Closed));
        assert!(senders.streams(plugin_flags::STREAM_REQUEST).response.is_none());
    }

    #[test]
    fn a_sender_that_is_used_again_is_as_new() {
        let senders = BodySenders::new(None, &HeldBytes::unlimited());
        let sender = || senders.streams(plugin_flags::STREAM_RESPONSE).response.clone().unwrap();
        let (first, length) = (sender(), Some(3));
        first.begin(Head { status: StatusCode::OK, fields: Arc::default(), length });
        first.write("ab".into(), true);
        first.abandon();
        let other = Arc::clone(&first);
        senders.keep(first);
        let second = sender();
        assert!(!Arc::ptr_eq(&second, &other), "somebody has the first one");
        senders.keep(other);
        assert!(second.poll_head(&mut Context::from_waker(Waker::noop()), drop).is_pending());
        let second_at = Arc::as_ptr(&second);
        senders.keep(second);
        let again = senders.streams(plugin_flags::STREAM_RESPONSE).response.take().unwrap();
        assert_eq!(Arc::as_ptr(&again), second_at);
        assert!(!again.has_begun() && again.take_beginning().is_none() && again.keeps_its_length());
        again.begin(Head { status: StatusCode::OK, fields: Arc::default(), length });
        assert_eq!(again.write("xyz".into(), false), status::OK);
        assert_eq!(rest(&again), (b"xyz".to_vec(), End::Whole));
    }
}
