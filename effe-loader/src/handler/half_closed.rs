//! How long the run of an async lambda goes on for a client that has closed its end of the connection.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::{self, Sleep};

use crate::{body::pipe::Pipe, net::activity::Hangup};

/// How long a run goes on, without a piece of its answer, once its client has closed its end of the connection. One
/// that has only said all that it has to say looks the same as one that has gone, for whom the run would hold its
/// Context.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// Waits until a run's client has closed its end, and then for as long as the run may go on.
#[derive(Default)]
pub struct HalfClosed(Option<Pin<Box<Sleep>>>);

impl HalfClosed {
    /// `left` is ready once the client has closed its end. Where something of the answer waits, the time begins anew:
    /// sending it shows whether the client has gone.
    pub fn poll(&mut self, left: Poll<()>, answer: Option<&Pipe>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(left);
        if answer.is_some_and(Pipe::has_pieces) {
            self.0 = None;
            return Poll::Pending;
        }
        self.0.get_or_insert_with(|| Box::pin(time::sleep(HALF_CLOSED))).as_mut().poll(cx)
    }
}

/// Hears that a client has closed its end, where the run itself is not to hear of it yet.
#[derive(Default)]
pub struct ClientEnd {
    is_closed: AtomicBool,
    waker: AtomicWaker,
}

impl ClientEnd {
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_closed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Hangup for ClientEnd {
    fn leave(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.waker.wake();
    }
}
