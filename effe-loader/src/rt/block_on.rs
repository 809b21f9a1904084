//! Waiting on a thread until a poll is ready.

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use crate::rt::{clock::Moment, wake_batch};

/// Polls a future to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    block_until(None, |cx| future.as_mut().poll(cx)).expect("without a deadline there is always a value")
}

/// Polls on this thread until there is a value; `None` if the deadline passes first.
pub fn block_until<T>(
    deadline: Option<Moment>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    let new = || Arc::new(Parked { thread: thread::current(), is_woken: AtomicBool::new(false) });
    let parked = PARKED.take().unwrap_or_else(new);
    let waker = Waker::from(Arc::clone(&parked));
    let mut cx = Context::from_waker(&waker);
    let value = loop {
        if let Poll::Ready(value) = poll(&mut cx) {
            break Some(value);
        }
        if !parked.wait(deadline) {
            break None;
        }
    };
    PARKED.set(Some(parked));
    value
}

thread_local! {
    /// Kept for this thread's next wait. A wait inside of another one finds none and makes its own, so that neither
    /// takes a wake that is meant for the other.
    static PARKED: Cell<Option<Arc<Parked>>> = const { Cell::new(None) };
}

/// A thread that waits for its wake.
struct Parked {
    thread: Thread,
    /// Besides the thread's own token, which code that is polled may use up.
    is_woken: AtomicBool,
}

impl Parked {
    /// Waits for a wake; false if the deadline passes first.
    fn wait(&self, deadline: Option<Moment>) -> bool {
        while !self.is_woken.swap(false, Ordering::Acquire) {
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.remaining();
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
        true
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Pairs with the `Acquire` in `wait`, which sees what came before the wake.
        self.is_woken.store(true, Ordering::Release);
        wake_batch::unpark(&self.thread);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_inside_of_another_takes_no_wake_from_it() {
        let mut is_first = true;
        let value = block_until(Some(Moment::now() + Duration::from_secs(20)), |cx| {
            if !is_first {
                return Poll::Ready(7);
            }
            is_first = false;
            cx.waker().wake_by_ref();
            // It uses up the thread's token, and is not woken itself.
            let soon = Moment::now() + Duration::from_millis(5);
            assert_eq!(block_until(Some(soon), |_| Poll::<()>::Pending), None);
            Poll::Pending
        });
        assert_eq!(value, Some(7));
    }

    #[test]
    fn a_deadline_ends_a_wait_that_nobody_wakes() {
        let begun = Moment::now();
        let waited = block_until(Some(begun + Duration::from_millis(20)), |_| Poll::<()>::Pending);
        assert_eq!(waited, None);
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
