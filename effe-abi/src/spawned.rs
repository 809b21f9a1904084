//! A run that goes on as a task of the lambda's own runtime.
//!
//! The loader polls most runs itself: a run that is ready at once then costs no switch of threads, and a run that waits
//! once costs one. A run that waits again and again, for a connection that a task of the runtime reads or for a task
//! that it has spawned, would switch between the loader's thread and the runtime's each time. Such a run is spawned
//! before its first poll, or before a later one, and the loader's thread is woken once, when the run has ended.
//!
//! This file owns the task and its hand-over. Which runs are spawned is decided by the loader
//! ([`SpawnHost`](crate::extensions::SpawnHost)); how a run is polled, and what it points to, is left to
//! `async_entries/run.rs`.

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

/// What the loader's future keeps of a spawned run. Dropping it doesn't end the task; [`cancel`](Spawned::cancel) does.
pub(crate) struct Spawned {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    /// Whether the run's future was not dropped yet. Whoever polls or drops the future holds the lock.
    is_alive: Mutex<bool>,
    outcome: Mutex<Outcome>,
}

enum Outcome {
    /// The run goes on; this waker is to be woken at its end.
    Pending(Option<Waker>),
    /// The run has ended with this status.
    Ended(Status),
}

impl Spawned {
    /// Spawns a task for a run. The task calls `poll`, which polls the run, on the runtime's threads, one call at a
    /// time, until it returns something other than PENDING. `poll` must not unwind.
    pub(crate) fn new(
        runtime: &Handle,
        host: SpawnHostRef,
        mut poll: impl FnMut(&Waker) -> Status + Send + 'static,
    ) -> Spawned {
        let shared =
            Arc::new(Shared { is_alive: Mutex::new(true), outcome: Mutex::new(Outcome::Pending(None)) });
        let task = runtime.spawn(poll_fn({
            let shared = Arc::clone(&shared);
            move |cx| {
                // If the lock is taken, `cancel` is dropping the run, and that may need this thread to drive I/O or
                // timers. So this doesn't wait for the lock.
                let Some(mut is_alive) = try_lock(&shared.is_alive).filter(|is_alive| **is_alive) else {
                    return Poll::Ready(());
                };
                let status = poll(cx.waker());
                if status == status::PENDING {
                    return Poll::Pending;
                }
                *is_alive = false;
                drop(is_alive);
                shared.end(status, host);
                Poll::Ready(())
            }
        }));
        Spawned { shared, task: task.abort_handle() }
    }

    /// How the run has ended. PENDING: not yet, and `waker` will be woken.
    pub(crate) fn poll(&self, waker: &Waker) -> Status {
        match &mut *lock(&self.shared.outcome) {
            Outcome::Ended(status) => *status,
            Outcome::Pending(Some(known)) if known.will_wake(waker) => status::PENDING,
            Outcome::Pending(place) => {
                *place = Some(waker.clone());
                status::PENDING
            }
        }
    }

    /// Ends the task. If the run has not ended, `drop` is called first, to drop its future. If the task is polling it,
    /// this waits until that poll is over.
    pub(crate) fn cancel(self, drop: impl FnOnce()) {
        let mut is_alive = lock(&self.shared.is_alive);
        if std::mem::take(&mut *is_alive) {
            drop();
            self.task.abort();
        }
    }
}

impl Shared {
    fn end(&self, status: Status, host: SpawnHostRef) {
        let before = std::mem::replace(&mut *lock(&self.outcome), Outcome::Ended(status));
        if let Outcome::Pending(Some(waker)) = before {
            wake_soon(waker, host);
        }
    }
}

/// Wakers that are to be woken together; `None` once they were.
type Wakers = Arc<Mutex<Option<Vec<Waker>>>>;

thread_local! {
    /// Those that the current round of this thread's tasks has left to be woken.
    static WAITING: RefCell<Wakers> = RefCell::default();
}

/// Wakes the loader's thread, but only after the tasks that are due on this thread already. Others of them may want to
/// wake it too, and if each did so at once, the loader's thread would take the CPU from the rest.
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

/// Wakes all of them when it is dropped: by the task that has it, or with the runtime if that ends first.
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
