//! A run that goes on as a task of the lambda's own runtime.
//!
//! The loader polls most runs itself: a run that is ready at once then costs no switch of threads, and a run that waits
//! once costs one. A run that waits again and again, for a connection that a task of the runtime reads or for a task that
//! it has spawned, would switch between the loader's thread and the runtime's each time. Such a run is spawned in its
//! first poll, and the loader's thread is woken once, when the run has ended.
//!
//! This file owns the task and its hand-over. Which runs are spawned is for the loader to decide
//! ([`SpawnHost`](crate::extensions::SpawnHost)); how a run is polled, and what it points to, is `async_entries/run.rs`'s.

use std::{
    cell::RefCell,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    task::{Poll, Waker},
};

use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    calls::SpawnHostRef,
    raw::{Status, status},
};

/// The loader's end of a spawned run. Dropped, it leaves the task alone; see [`cancel`](Spawned::cancel).
pub(crate) struct Spawned {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    /// Whether the run is there; held by whoever polls it or drops it.
    is_there: Mutex<bool>,
    outcome: Mutex<Outcome>,
}

enum Outcome {
    /// Whom to wake.
    Awaited(Option<Waker>),
    Known(Status),
}

impl Spawned {
    /// Spawns a run of which `poll` is one poll: it is called on the runtime's threads, one call at a time, until it says
    /// something other than PENDING. It must not unwind.
    pub(crate) fn new(
        runtime: &Handle,
        host: SpawnHostRef,
        mut poll: impl FnMut(&Waker) -> Status + Send + 'static,
    ) -> Spawned {
        let shared =
            Arc::new(Shared { is_there: Mutex::new(true), outcome: Mutex::new(Outcome::Awaited(None)) });
        let task = runtime.spawn(poll_fn({
            let shared = Arc::clone(&shared);
            move |cx| {
                // Held by somebody else, it is being dropped; to wait for that would keep from it what drives the runtime.
                let Some(mut is_there) = try_lock(&shared.is_there).filter(|is_there| **is_there) else {
                    return Poll::Ready(());
                };
                let status = poll(cx.waker());
                if status == status::PENDING {
                    return Poll::Pending;
                }
                *is_there = false;
                drop(is_there);
                shared.end(status, host);
                Poll::Ready(())
            }
        }));
        Spawned { shared, task: task.abort_handle() }
    }

    /// What came of the run; PENDING: `waker` will be woken.
    pub(crate) fn poll(&self, waker: &Waker) -> Status {
        match &mut *lock(&self.shared.outcome) {
            Outcome::Known(status) => *status,
            Outcome::Awaited(Some(known)) if known.will_wake(waker) => status::PENDING,
            Outcome::Awaited(place) => {
                *place = Some(waker.clone());
                status::PENDING
            }
        }
    }

    /// Ends the task. If the run is still there, `drop` drops it first; a poll that is under way is waited for,
    /// as one would be that had been made here.
    pub(crate) fn cancel(self, drop: impl FnOnce()) {
        let mut is_there = lock(&self.shared.is_there);
        if std::mem::take(&mut *is_there) {
            drop();
            self.task.abort();
        }
    }
}

impl Shared {
    fn end(&self, status: Status, host: SpawnHostRef) {
        let before = std::mem::replace(&mut *lock(&self.outcome), Outcome::Known(status));
        if let Outcome::Awaited(Some(waker)) = before {
            wake_soon(waker, host);
        }
    }
}

/// Whom to wake together; `None` once that was done.
type Wakers = Arc<Mutex<Option<Vec<Waker>>>>;

thread_local! {
    static WAITING: RefCell<Wakers> = RefCell::default();
}

/// Wakes the loader's thread after the tasks that this thread is to run already, of which others may want to wake it:
/// each wake by itself would take the CPU from them.
fn wake_soon(waker: Waker, host: SpawnHostRef) {
    WAITING.with_borrow_mut(|wakers| {
        if let Some(waiting) = &mut *lock(wakers) {
            return waiting.push(waker);
        }
        *wakers = Arc::new(Mutex::new(Some(vec![waker])));
        let wakes = WakesAll { wakers: Arc::clone(wakers), host };
        tokio::spawn(async move {
            let _wakes = wakes;
            tokio::task::yield_now().await;
        });
    })
}

/// Wakes all of them when it is dropped, be it with the runtime.
struct WakesAll {
    wakers: Wakers,
    host: SpawnHostRef,
}

impl Drop for WakesAll {
    fn drop(&mut self) {
        let waiting = lock(&self.wakers).take();
        self.host.wake_all(waiting.into_iter().flatten());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
