//! Waits for a future of this crate on the calling thread.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Wake},
    thread::{self, Thread},
};

use crate::{
    extensions::Future,
    raw::{Status, status},
    waker,
};

/// Polls a future of this crate to its end on this thread, and drops it.
///
/// tokio's `Runtime::block_on` can't be used. It panics on a thread that is inside a runtime of the same tokio already,
/// and in a program that has the lambda linked in, the calling thread may be.
pub(super) fn block_on(future: Future) -> Status {
    let woken = Arc::new(ThreadWaker { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = task::Waker::from(Arc::clone(&woken));
    loop {
        // SAFETY: made by this crate, and polled by nobody else.
        let status = waker::lend(&waker, |waker| unsafe { (future.poll)(future.data, waker) });
        if status != status::PENDING {
            // SAFETY: as above, once.
            unsafe { (future.drop)(future.data) };
            return status;
        }
        while !woken.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Wakes a thread that is parked in `block_on`.
struct ThreadWaker {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
