//! Tasks of a server's thread that other threads wake: noted down here, so that the thread itself, which may have to be
//! called out of the kernel for it, is woken once for many of them.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
};

use crossbeam::queue::SegQueue;
use futures_util::task::AtomicWaker;

thread_local! {
    /// Whether this thread wakes no thread of the server before `release`.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    /// Those that it has noted tasks down for meanwhile.
    static HELD: RefCell<Vec<Arc<WakeBatch>>> = const { RefCell::new(Vec::new()) };
}

/// The tasks of one thread of the server that are to be woken.
#[derive(Default)]
pub struct WakeBatch {
    tasks: SegQueue<Waker>,
    /// Whether `run` has been woken for them.
    is_rung: AtomicBool,
    run: AtomicWaker,
}

impl WakeBatch {
    /// Wakes the tasks that are noted down; to be run on their thread.
    pub async fn run(self: Arc<Self>) {
        poll_fn(|context| {
            self.run.register(context.waker());
            // Before the tasks are looked at: one that comes after that rings again.
            self.is_rung.swap(false, Ordering::AcqRel);
            while let Some(task) = self.tasks.pop() {
                task.wake();
            }
            Poll::Pending
        })
        .await
    }

    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            self.run.wake();
        }
    }
}

/// Wakes one task of the thread, by way of the others.
pub struct BatchedWaker {
    task: Waker,
    wake_batch: Arc<WakeBatch>,
}

impl BatchedWaker {
    /// For the task that `task` wakes, on the thread that `wakeups` is of.
    pub fn new(task: Waker, wake_batch: &Arc<WakeBatch>) -> BatchedWaker {
        BatchedWaker { task, wake_batch: Arc::clone(wake_batch) }
    }

    /// Whether it wakes the task that `task` wakes.
    pub fn wakes(&self, task: &Waker) -> bool {
        self.task.will_wake(task)
    }
}

impl Wake for BatchedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_batch.tasks.push(self.task.clone());
        if !HOLDS.get() {
            return self.wake_batch.ring();
        }
        HELD.with_borrow_mut(|held| {
            if !held.iter().any(|other| Arc::ptr_eq(other, &self.wake_batch)) {
                held.push(Arc::clone(&self.wake_batch));
            }
        });
    }
}

/// What this thread wakes is only noted down until `release`.
pub fn hold() {
    HOLDS.set(true);
}

/// Wakes the threads for which something was noted down.
pub fn release() {
    HOLDS.set(false);
    HELD.with_borrow_mut(|held| held.drain(..).for_each(|wake_batch| wake_batch.ring()));
}
