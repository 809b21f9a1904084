//! Waits for a future of ours on the thread that asks.
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

/// Polls a future of ours to its end on this thread. It is no `Runtime::block_on`, which panics where a program's
/// thread is inside the same tokio already.
pub(super) fn wait(future: Future) -> Status {
    let woken = Arc::new(Sleeper { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = task::Waker::from(Arc::clone(&woken));
    loop {
        // SAFETY: made in this file, and polled by nobody else.
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

/// A thread that waits for a future.
struct Sleeper {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
