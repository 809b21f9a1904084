//! A connection that a lambda has taken over: two pipes, of which the connection has one end and the lambda the other.
//! Who carries the bytes between pipes and connection is left to the protocol.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use effe_abi::{
    extensions::GOING_AWAY,
    raw::{Status, status},
};

use crate::body::pipe::{Closed, End, Pipe};

/// Counts the streams that it must outlast: a generation.
pub trait Holder: Send + Sync {
    fn opened(&self);
    fn closed(&self);
}

/// What a request's run may do with its connection.
pub struct Offer {
    /// As the client lists them, separated by commas.
    pub protocols: String,
    pub holder: Arc<dyn Holder>,
}

impl Offer {
    pub fn has(&self, protocol: &[u8]) -> bool {
        let mut offered = self.protocols.split(',').map(str::trim);
        offered.any(|one| one.as_bytes().eq_ignore_ascii_case(protocol))
    }
}

const OPEN: u8 = 0;
/// The effe stops.
const AWAY: u8 = 1;
/// The connection has ended.
const ENDED: u8 = 2;

/// Both ends have a reference. The generation is held until both are gone.
pub struct Duplex {
    /// From the client to the lambda.
    pub incoming: Pipe,
    /// From the lambda to the client.
    pub outgoing: Pipe,
    state: AtomicU8,
    /// Whether a read has said that the effe stops.
    told: AtomicBool,
    /// Who waits for another state.
    waiting: Mutex<Vec<Waker>>,
    /// Handles that the lambda has.
    n_handles: AtomicUsize,
    holder: Arc<dyn Holder>,
}

impl Duplex {
    /// With one handle for the lambda, and the connection's end.
    pub fn open(holder: Arc<dyn Holder>) -> (Arc<Duplex>, Upgraded) {
        holder.opened();
        let duplex = Arc::new(Duplex {
            incoming: Pipe::default(),
            outgoing: Pipe::default(),
            state: AtomicU8::new(OPEN),
            told: AtomicBool::new(false),
            waiting: Mutex::default(),
            n_handles: AtomicUsize::new(1),
            holder,
        });
        (Arc::clone(&duplex), Upgraded(duplex))
    }

    /// The next bytes for the lambda, or the status that says why there are none.
    pub fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        match self.incoming.poll_next(cx) {
            Poll::Ready(Ok(piece)) => Poll::Ready(Ok(piece)),
            Poll::Ready(Err(End::Whole)) if !self.is_to_be_told() => Poll::Ready(Err(status::END)),
            Poll::Ready(Err(End::Broken(status))) => Poll::Ready(Err(status)),
            // The pipe has the waker, and `go_away` wakes it after it has changed the state.
            Poll::Pending if !self.is_to_be_told() => Poll::Pending,
            _ => Poll::Ready(Err(GOING_AWAY)),
        }
    }

    /// Whether the lambda is to hear now, for the first time, that the effe stops.
    fn is_to_be_told(&self) -> bool {
        self.state.load(Ordering::Acquire) == AWAY && !self.told.swap(true, Ordering::AcqRel)
    }

    /// OK once a write need not wait, or the status that says why there is none.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Status> {
        self.outgoing.poll_room(cx).map(|room| match room {
            Ok(()) => status::OK,
            Err(Closed) => self.incoming.broken().unwrap_or(status::GONE),
        })
    }

    pub fn write(&self, piece: Bytes) -> Status {
        match self.outgoing.push(piece) {
            Ok(()) => status::OK,
            Err(Closed) => status::GONE,
        }
    }

    /// The lambda writes nothing more.
    pub fn shutdown(&self) {
        self.outgoing.end(End::Whole);
    }

    pub fn state(&self) -> Status {
        match self.state.load(Ordering::Acquire) {
            OPEN => status::OK,
            AWAY => GOING_AWAY,
            _ => status::GONE,
        }
    }

    /// The state, once it is not OK.
    pub fn poll_away(&self, cx: &mut Context<'_>) -> Poll<Status> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.state() {
            status::OK => {
                if !waiting.iter().any(|other| other.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    /// Another handle for the lambda.
    pub fn add_handle(&self) {
        self.n_handles.fetch_add(1, Ordering::Relaxed);
    }

    /// The lambda gives a handle back. With the last one, it neither reads nor writes any more.
    pub fn drop_handle(&self) {
        if self.n_handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.outgoing.end(End::Whole);
            self.incoming.close();
        }
    }

    fn change(&self, state: u8) {
        if self.state.fetch_max(state, Ordering::AcqRel) < state {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.holder.closed();
    }
}

/// The connection's end. When it is dropped, the connection has ended.
pub struct Upgraded(pub Arc<Duplex>);

impl Upgraded {
    /// Tells the lambda that the effe stops.
    pub fn go_away(&self) {
        self.0.change(AWAY);
        self.0.incoming.wake_reader();
    }

    /// The connection has ended, with this status for reads behind what has come.
    pub fn end(&self, why: Status) {
        self.0.change(ENDED);
        self.0.incoming.end(End::Broken(why));
        self.0.outgoing.close();
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.end(status::GONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Holder for Count {
        fn opened(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn closed(&self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn open() -> (Arc<Count>, Arc<Duplex>, Upgraded) {
        let count = Arc::<Count>::default();
        let (duplex, upgraded) = Duplex::open(count.clone());
        (count, duplex, upgraded)
    }

    fn read(duplex: &Duplex) -> Poll<Result<Bytes, Status>> {
        duplex.poll_read(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_read_says_once_that_the_effe_stops_and_goes_on() {
        let (_, duplex, upgraded) = open();
        assert!(read(&duplex).is_pending());
        upgraded.0.incoming.push(Bytes::from_static(b"x")).unwrap();
        upgraded.go_away();
        assert_eq!(read(&duplex), Poll::Ready(Ok(Bytes::from_static(b"x"))));
        assert_eq!(read(&duplex), Poll::Ready(Err(GOING_AWAY)));
        assert!(read(&duplex).is_pending());
        upgraded.0.incoming.push(Bytes::from_static(b"y")).unwrap();
        assert_eq!(read(&duplex), Poll::Ready(Ok(Bytes::from_static(b"y"))));
        assert_eq!(duplex.state(), GOING_AWAY);
        drop(upgraded);
        assert_eq!((read(&duplex), duplex.state()), (Poll::Ready(Err(status::GONE)), status::GONE));
        assert_eq!(duplex.write(Bytes::from_static(b"z")), status::GONE);
    }

    #[test]
    fn the_last_handle_closes_and_the_last_reference_lets_the_generation_go() {
        let (count, duplex, upgraded) = open();
        let mut cx = Context::from_waker(Waker::noop());
        duplex.add_handle();
        duplex.drop_handle();
        assert!(upgraded.0.outgoing.poll_next(&mut cx).is_pending());
        duplex.write(Bytes::from_static(b"last"));
        duplex.drop_handle();
        assert_eq!(upgraded.0.outgoing.poll_next(&mut cx), Poll::Ready(Ok(Bytes::from_static(b"last"))));
        assert_eq!(upgraded.0.outgoing.poll_next(&mut cx), Poll::Ready(Err(End::Whole)));
        assert_eq!(upgraded.0.incoming.poll_room(&mut cx), Poll::Ready(Err(Closed)));
        drop(duplex);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        drop(upgraded);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_protocol_is_one_that_the_client_lists() {
        let offer = Offer { protocols: "foo/1, WebSocket".into(), holder: Arc::<Count>::default() };
        assert!(offer.has(b"websocket") && offer.has(b"FOO/1"));
        assert!(!offer.has(b"foo") && !offer.has(b"") && !offer.has(b"foo/1, WebSocket"));
    }
}
