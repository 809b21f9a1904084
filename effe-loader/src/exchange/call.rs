//! A request on its way to another thread and back: the call, which owns all that a run touches; its progress; and
//! the queue that it comes back to.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use crossbeam::queue::SegQueue;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::{
    early::{EarlyAnswer, Rest},
    response::ResponseBuilder,
};
use crate::{body::sender::Streams, message::request::Request, net::activity::Hangup, rt::clock::Moment};

/// One request and the room for its answer. It is used again for the next request, so that its buffers needn't be
/// allocated again.
pub struct Call {
    /// That of no request once the call has come back.
    pub head: Request,
    /// Empty if it is streamed.
    pub body: Bytes,
    pub response: ResponseBuilder,
    pub streams: Streams,
    /// Both threads see it.
    pub progress: Arc<Progress>,
    /// When the client is told that it took too long.
    pub deadline: Option<Moment>,
    /// How long the run may take, and once more after an answer that was ended early.
    pub run_timeout: Option<Duration>,
    /// What names the request to a rescue; 0 if nobody needs it.
    pub served: u64,
    completions: Arc<Completions>,
    /// Its place among the calls of the thread that it came from.
    pub key: usize,
}

impl Call {
    /// A call with empty buffers, which comes back to `completions`.
    pub fn new(
        completions: Arc<Completions>,
        response: ResponseBuilder,
        run_timeout: Option<Duration>,
    ) -> Call {
        Call {
            head: Request::default(),
            body: Bytes::new(),
            response,
            streams: Streams::NONE,
            progress: Arc::default(),
            deadline: None,
            run_timeout,
            served: 0,
            completions,
            key: usize::MAX,
        }
    }

    /// Takes the call out, and leaves one in its place that has the same progress and comes back to the same queue.
    pub fn replace(&mut self) -> Call {
        let mut placeholder =
            Call::new(Arc::clone(&self.completions), ResponseBuilder::default(), self.run_timeout);
        (placeholder.key, placeholder.progress) = (self.key, Arc::clone(&self.progress));
        std::mem::replace(self, placeholder)
    }

    /// Puts the call into the queue that it comes back to, whose thread is not woken yet.
    pub fn send_back(self: Box<Self>) -> Arc<Completions> {
        let completions = Arc::clone(&self.completions);
        completions.calls.push(self);
        completions
    }
}

#[derive(Default)]
pub struct Progress {
    /// Whether the client has left.
    pub gone: AtomicBool,
    /// Wakes an async run that nobody waits for any more.
    unwanted: AtomicWaker,
    /// The request's id, once somebody needs it.
    pub id: OnceLock<String>,
    /// The answer, if it goes out before the run is over.
    pub early: EarlyAnswer,
    step: AtomicU8,
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
/// The client has been told that there was no thread in time.
const GIVEN_UP: u8 = 2;
/// The client has been told that the run took too long.
const OVERDUE: u8 = 3;
const DONE: u8 = 4;
/// The answer has been ended, and the run goes on.
const ANSWERED: u8 = 5;
/// The run is about to be dropped: its client has left, or has been told that it took too long.
const DROPPED: u8 = 6;

impl Progress {
    /// Ready once the client has left without its answer, or has been told that the run takes too long.
    pub fn poll_unwanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.unwanted.register(cx.waker());
        let is_unwanted = self.is_gone() || self.step.load(Ordering::Acquire) == OVERDUE;
        if is_unwanted { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the client has left without its answer.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire) && !self.is_answered()
    }

    /// Begins a call that no other thread has seen.
    pub fn begin_alone(&self) {
        self.step.store(RUNNING, Ordering::Relaxed);
    }

    /// Begins a call that was queued; false if nobody waits for it any more.
    pub fn begin(&self) -> bool {
        !self.gone.load(Ordering::Relaxed) && self.step(QUEUED, RUNNING)
    }

    /// The run has ended; false if the client had been told before that it took too long.
    pub fn end(&self) -> bool {
        self.step.swap(DONE, Ordering::AcqRel) != OVERDUE
    }

    /// No thread will begin the call, or none did in time; false if one has begun it.
    pub fn give_up(&self) -> bool {
        self.step(QUEUED, GIVEN_UP)
    }

    pub fn is_given_up(&self) -> bool {
        self.step.load(Ordering::Acquire) == GIVEN_UP
    }

    /// The client is told that the run takes too long; false if it has ended.
    pub fn is_overdue(&self) -> bool {
        let is_overdue = self.step(RUNNING, OVERDUE);
        if is_overdue {
            self.unwanted.wake();
        }
        is_overdue
    }

    /// The run is about to be dropped, and can't end its answer any more; false if it has.
    pub fn refuse_answer(&self) -> bool {
        self.step(RUNNING, DROPPED)
    }

    /// The answer is complete and goes out while the run goes on; a streamed one is in its pipe. False if nobody waits
    /// for it any more.
    pub fn answer(&self, answer: Option<ResponseBuilder>, rest: Rest) -> bool {
        self.early.put(|| self.step(RUNNING, ANSWERED), answer, rest)
    }

    /// Whether the answer has been ended and the run goes on.
    pub fn is_answered(&self) -> bool {
        self.step.load(Ordering::Acquire) == ANSWERED
    }

    /// What a run does after its answer takes too long; false if it has ended.
    pub fn rest_is_overdue(&self) -> bool {
        let is_overdue = self.step(ANSWERED, OVERDUE);
        if is_overdue {
            self.unwanted.wake();
        }
        is_overdue
    }

    /// The end of a streamed answer can't be sent, or nothing waits any more for what a run does after its answer: the
    /// run is one again whose client has left.
    pub fn abandon(&self) {
        self.step(ANSWERED, RUNNING);
        self.leave();
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.step.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Hangup for Progress {
    fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.unwanted.wake();
    }
}

/// Where calls come back to.
#[derive(Default)]
pub struct Completions {
    pub calls: SegQueue<Box<Call>>,
    pub arrived: Notify,
}

impl Completions {
    /// Wakes the thread that the calls are for, once for all that are in the queue when it looks.
    pub fn ring(&self) {
        self.arrived.notify_one();
    }
}
