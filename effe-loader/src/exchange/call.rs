//! A request on its way to another thread and back: the call, which owns all that a run touches; how far it is; and
//! the mailbox that it comes back to.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use crossbeam::queue::SegQueue;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::{lent::Room, response::Answer};
use crate::{body::sender::Streams, http::head::OwnedHead, net::activity::Hangup, rt::clock::Moment};

/// One request and the room for its answer. Used again for the next request, so that the steady state allocates
/// nothing.
pub struct Call {
    /// The request's head.
    pub head: OwnedHead,
    /// The request's body.
    pub body: Bytes,
    /// Where the answer goes.
    pub answer: Answer,
    /// What of it goes piece by piece.
    pub streams: Streams,
    /// How far it is, which both sides see.
    pub progress: Arc<Progress>,
    /// When the client is told that it took too long.
    pub deadline: Option<Moment>,
    /// Where an async run keeps what it is lent.
    pub room: Room,
    completions: Arc<Completions>,
    /// Its place among the calls of the thread that it came from.
    pub key: usize,
}

impl Call {
    /// A call with empty buffers, which comes back to `mailbox`.
    pub fn new(completions: Arc<Completions>) -> Call {
        Call {
            head: OwnedHead::default(),
            body: Bytes::new(),
            answer: Answer::default(),
            streams: Streams::NONE,
            progress: Arc::default(),
            deadline: None,
            room: Room::default(),
            completions,
            key: usize::MAX,
        }
    }

    /// Takes the call out, and leaves one in its place that has the same progress and goes back to the same mailbox.
    pub fn replace(&mut self) -> Call {
        let mut placeholder = Call::new(Arc::clone(&self.completions));
        (placeholder.key, placeholder.progress) = (self.key, Arc::clone(&self.progress));
        std::mem::replace(self, placeholder)
    }

    /// Puts the call into the mailbox of the desk it came from, whose thread is not woken yet.
    pub fn send_back(self: Box<Self>) -> Arc<Completions> {
        let completions = Arc::clone(&self.completions);
        completions.calls.push(self);
        completions
    }
}

/// How far a call is.
#[derive(Default)]
pub struct Progress {
    /// Whether the client has left.
    pub gone: AtomicBool,
    /// An async run that wants to know.
    leaving: AtomicWaker,
    /// What the request is called, once somebody needs that.
    pub id: OnceLock<String>,
    step: AtomicU8,
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
/// The client has been told that there was no thread in time.
const GIVEN_UP: u8 = 2;
/// The client has been told that the run took too long.
const OVERDUE: u8 = 3;
const DONE: u8 = 4;

impl Progress {
    /// Ready once nobody waits for the run any more: the client has left, or has been told that the run takes too long.
    pub fn poll_unwanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.leaving.register(cx.waker());
        let is_unwanted = self.gone.load(Ordering::Acquire) || self.step.load(Ordering::Acquire) == OVERDUE;
        if is_unwanted { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A call begins to run that nobody else has yet.
    pub fn begin_alone(&self) {
        self.step.store(RUNNING, Ordering::Relaxed);
    }

    /// A thread takes the call up; false if nobody waits for it any more.
    pub fn begin(&self) -> bool {
        !self.gone.load(Ordering::Relaxed) && self.step(QUEUED, RUNNING)
    }

    /// The run has ended; false if that was after the client had been told that it took too long.
    pub fn end(&self) -> bool {
        self.step.swap(DONE, Ordering::AcqRel) != OVERDUE
    }

    /// There is no thread for the call, or none in time; false if one has taken it up.
    pub fn give_up(&self) -> bool {
        self.step(QUEUED, GIVEN_UP)
    }

    /// Whether no thread has taken the call up, and none will.
    pub fn is_given_up(&self) -> bool {
        self.step.load(Ordering::Acquire) == GIVEN_UP
    }

    /// The run takes too long, as the client is told; false if it has ended.
    pub fn is_overdue(&self) -> bool {
        let is_overdue = self.step(RUNNING, OVERDUE);
        if is_overdue {
            self.leaving.wake();
        }
        is_overdue
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.step.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Hangup for Progress {
    fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.leaving.wake();
    }
}

/// Where calls come back to.
#[derive(Default)]
pub struct Completions {
    /// The calls that are back.
    pub calls: SegQueue<Box<Call>>,
    /// Told once for all calls that are in the box.
    pub arrived: Notify,
}

impl Completions {
    /// Wakes the desk: once for all that is in the box when it comes to look.
    pub fn ring(&self) {
        self.arrived.notify_one();
    }

    /// Whether nothing waits to be taken out.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}
