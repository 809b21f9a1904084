//! A run that goes on as a task of the lambda's own runtime.
//!
//! Most runs are polled by the loader: one that is ready at once costs no hop, and one that waits once costs one, back.
//! But a run that waits again and again, for a connection that a task of the runtime reads or for what it has spawned,
//! would go back and forth between the two threads each time. Where runs are seen to be of that kind, the first poll
//! spawns them, and the loader is woken when all is over.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Poll, Waker},
};

use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    calls::SpawnHostRef,
    raw::{Status, status},
    waker::N_WAKES,
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
                let mut is_there = lock(&shared.is_there);
                if !*is_there {
                    return Poll::Ready(());
                }
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

    /// Ends the task. If the run is still there, `drop` drops it first; a poll that is under way is waited for.
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

/// Loader's threads that wait for runs which have ended.
static WAITING: Mutex<Vec<Waker>> = Mutex::new(Vec::new());

/// Wakes the loader's thread after the tasks that are to be run already, of which others may want to wake it: each wake
/// by itself would take the CPU from them.
fn wake_soon(waker: Waker, host: SpawnHostRef) {
    let mut waiting = lock(&WAITING);
    waiting.push(waker);
    if waiting.len() > 1 {
        return;
    }
    drop(waiting);
    let wakes = WakesAll(host);
    tokio::spawn(async move {
        let _wakes = wakes;
        tokio::task::yield_now().await;
    });
}

/// Wakes all of them when it is dropped, be it with the runtime.
struct WakesAll(SpawnHostRef);

impl Drop for WakesAll {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *lock(&WAITING));
        self.0.wake_all(waiting);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs from which is seen what they are like, and how often the lambda's threads wake the loader's in them, at least,
/// where they had better be spawned: five times in four runs. A run that waits once is woken once.
const LOOK: u32 = 32;
const OFTEN: u32 = 40;
/// Runs after which spawned ones are looked at again, on the loader's threads.
const TERM: u32 = 4096;

// A generation is an image of its own, and so are its statics. Two threads may both miss what the other counts, which
// a habit survives.
static IS_LIKELY: AtomicBool = AtomicBool::new(false);
/// Runs since it was last decided.
static N_RUNS: AtomicU32 = AtomicU32::new(0);

/// Whether a run that begins now is likely to wait again and again.
pub(crate) fn is_likely() -> bool {
    IS_LIKELY.load(Ordering::Relaxed)
}

/// A run has ended.
pub(crate) fn learn() {
    let n_runs = N_RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    let likely = is_likely();
    if n_runs >= if likely { TERM } else { LOOK } {
        let n_wakes = N_WAKES.swap(0, Ordering::Relaxed);
        IS_LIKELY.store(!likely && n_wakes >= OFTEN, Ordering::Relaxed);
        N_RUNS.store(0, Ordering::Relaxed);
    }
}
