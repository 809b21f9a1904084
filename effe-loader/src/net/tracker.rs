//! Who is inside: the connections that are open, the threads that serve them, and whether they are asked to leave.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use actix_rt::ArbiterHandle;
use tokio::sync::{Notify, oneshot};

use crate::rt::clock::Moment;

/// Who is inside, for all threads of the server.
#[derive(Default)]
pub struct Lobby {
    /// When it began to close, in nanoseconds of the clock; 0 before.
    since: AtomicU64,
    closing: Notify,
    n_open: AtomicUsize,
    threads: Mutex<Vec<ArbiterHandle>>,
}

impl Lobby {
    /// From now on idle connections are closed.
    pub fn close(&self) {
        self.since.store(Moment::now().nanos(), Ordering::Relaxed);
        self.closing.notify_waiters();
    }

    /// Whether that is so.
    pub fn is_closing(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// Since when.
    pub fn closing_since(&self) -> Moment {
        Moment::from_nanos(self.since.load(Ordering::Relaxed))
    }

    /// Waits until that is so.
    pub async fn closing(&self) {
        let closing = self.closing.notified();
        if !self.is_closing() {
            closing.await;
        }
    }

    /// A connection was opened.
    pub fn opened(&self) {
        self.n_open.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed.
    pub fn closed(&self) {
        self.n_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub fn n_open(&self) -> usize {
        self.n_open.load(Ordering::Relaxed)
    }

    /// The thread that this is called on serves connections.
    pub fn enlist(&self, thread: ArbiterHandle) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// Waits until each thread of the server has taken up what it had been given before.
    pub async fn rounds(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for thread in threads {
            let (done, is_done) = oneshot::channel::<()>();
            thread.spawn(async move { drop(done) });
            // Whether it was done or its thread has ended, there is nothing more to wait for.
            let _ = is_done.await;
        }
    }
}
