//! The connections of the whole server: how many are open, which threads serve them, and whether they are to close.
//! The connections of one thread are in `net/connections`.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use actix_rt::ArbiterHandle;
use tokio::sync::{Notify, oneshot};

use crate::rt::clock::Moment;

/// What all threads of the server share about their connections.
#[derive(Default)]
pub struct ConnectionTracker {
    /// When connections began to be closed, in nanoseconds of the clock; 0 before.
    since: AtomicU64,
    closing: Notify,
    n_open: AtomicUsize,
    threads: Mutex<Vec<ArbiterHandle>>,
}

impl ConnectionTracker {
    /// From now on idle connections are closed.
    pub fn close(&self) {
        self.since.store(Moment::now().nanos(), Ordering::Relaxed);
        self.closing.notify_waiters();
    }

    /// Whether [`ConnectionTracker::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// When [`ConnectionTracker::close`] was called.
    pub fn closing_since(&self) -> Moment {
        Moment::from_nanos(self.since.load(Ordering::Relaxed))
    }

    /// Waits until [`ConnectionTracker::close`] is called.
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

    /// Notes a thread that serves connections.
    pub fn add_thread(&self, thread: ArbiterHandle) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// Waits until each of the threads has begun all tasks that it had been given before.
    pub async fn barrier(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for thread in threads {
            let (done, is_done) = oneshot::channel::<()>();
            thread.spawn(async move { drop(done) });
            // Whether it was done or its thread has ended, there is nothing more to wait for.
            let _ = is_done.await;
        }
    }
}
