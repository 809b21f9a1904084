//! A run that goes on as a task of the lambda's own runtime.
//!
//! Most runs are polled by the loader: one that is ready at once costs no hop, and one that waits once costs one, back.
//! But a run that waits again and again, for a connection that a task of the runtime reads or for what it has spawned,
//! would go back and forth between the two threads each time. Where runs are seen to be of that kind, the first poll
//! spawns them, and the loader is woken when all is over.

use std::{
    cell::RefCell,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
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

/// Runs from which is seen what they are like, and how many of them wait more than once, at least, where the next ones
/// had better be spawned.
const LOOK: u32 = 32;
const OFTEN: u32 = 16;
/// Runs after which spawned ones are looked at again, on the loader's threads.
const TERM: u32 = 4096;

// A generation is an image of its own, and so are its statics. Two threads may both miss what the other counts, which
// a habit survives.
static IS_LIKELY: AtomicBool = AtomicBool::new(false);
/// Runs since it was last decided, and those of them that waited again.
static N_RUNS: AtomicU32 = AtomicU32::new(0);
static N_AGAIN: AtomicU32 = AtomicU32::new(0);

/// Whether a run that begins now is likely to wait again and again.
pub(crate) fn is_likely() -> bool {
    IS_LIKELY.load(Ordering::Relaxed)
}

/// A run has ended, of which the loader has seen whether it waited more than once.
pub(crate) fn learn(waited_again: bool) {
    if waited_again {
        N_AGAIN.fetch_add(1, Ordering::Relaxed);
    }
    let n_runs = N_RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    let likely = is_likely();
    if n_runs >= if likely { TERM } else { LOOK } {
        let n_again = N_AGAIN.swap(0, Ordering::Relaxed);
        IS_LIKELY.store(!likely && n_again >= OFTEN, Ordering::Relaxed);
        N_RUNS.store(0, Ordering::Relaxed);
    }
}
