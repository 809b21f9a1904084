//! An answer that goes out while its run goes on: from the run, which ends it, to whoever waits for it.

use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use super::response::ResponseBuilder;
use crate::rt::clock::Moment;

#[derive(Default)]
pub struct EarlyAnswer {
    /// The answer, until it is taken; a streamed one is in its pipe instead.
    answer: Mutex<Option<ResponseBuilder>>,
    rest: OnceLock<Rest>,
    waker: AtomicWaker,
}

/// What a run does after its answer.
pub struct Rest {
    pub since: Moment,
    /// Whether it has only so long as a run may take, because it has not taken its connection over.
    pub is_timed: bool,
    /// What a line of the log about it says of its request, whose head is not at hand then.
    pub about: [(&'static str, String); 3],
}

impl EarlyAnswer {
    /// Puts the answer in place, if it is in time, which is asked while nobody can look for the answer; whether it is.
    pub fn put(
        &self,
        is_in_time: impl FnOnce() -> bool,
        answer: Option<ResponseBuilder>,
        rest: Rest,
    ) -> bool {
        let mut place = self.lock();
        if !is_in_time() {
            return false;
        }
        *place = answer;
        // Set once: an exchange ends its answer once.
        let _ = self.rest.set(rest);
        drop(place);
        self.waker.wake();
        true
    }

    /// Waits for the answer. The last task that waits is woken.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<ResponseBuilder> {
        self.waker.register(cx.waker());
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// The answer, if it is there and nobody has taken it.
    pub fn take(&self) -> Option<ResponseBuilder> {
        self.rest.get().and_then(|_| self.lock().take())
    }

    /// What the run does since; `None` if its answer was not ended early.
    pub fn rest(&self) -> Option<&Rest> {
        self.rest.get()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ResponseBuilder>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
