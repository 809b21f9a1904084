//! The connections of the whole server: how many are open, which threads serve them, and whether they are to close.
//! The connections of one thread are in `net/connections`.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use actix_rt::ArbiterHandle;
use tokio::sync::{Notify, oneshot};

#[derive(Default)]
pub struct ConnectionTracker {
    is_closing: AtomicBool,
    is_cut_off: AtomicBool,
    closing: Notify,
    n_open: AtomicUsize,
    threads: Mutex<Vec<ArbiterHandle>>,
}

impl ConnectionTracker {
    /// From now on idle connections are closed.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        self.closing.notify_waiters();
    }

    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Waits until [`ConnectionTracker::close`] is called.
    pub async fn closing(&self) {
        let closing = self.closing.notified();
        if !self.is_closing() {
            closing.await;
        }
    }

    /// From now on connections that lambdas have taken over are closed.
    pub fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
    }

    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    pub fn opened(&self) {
        self.n_open.fetch_add(1, Ordering::Relaxed);
    }

    pub fn closed(&self) {
        self.n_open.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn n_open(&self) -> usize {
        self.n_open.load(Ordering::Relaxed)
    }

    pub fn add_thread(&self, thread: ArbiterHandle) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// Waits until each of the threads has begun all tasks that it had been given before.
    pub async fn barrier(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for thread in threads {
            let (done, is_done) = oneshot::channel::<()>();
            thread.spawn(async move { drop(done) });
            // An error means that the task has run or its thread has ended: either way there is nothing to wait for.
            let _ = is_done.await;
        }
    }
}
