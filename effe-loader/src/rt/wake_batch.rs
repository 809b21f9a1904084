//! Tasks of a server's thread that other threads wake. They are collected here, so that the thread itself, which may
//! sleep in the kernel, is woken once for many of them.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
};

use crossbeam::queue::SegQueue;
use futures_util::task::AtomicWaker;

thread_local! {
    /// Whether this thread is between `hold` and `release`.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    /// The batches that it has added tasks to since `hold`.
    static HELD: RefCell<Vec<Arc<WakeBatch>>> = const { RefCell::new(Vec::new()) };
}

/// The tasks of one server's thread that are to be woken.
pub struct WakeBatch {
    tasks: SegQueue<Waker>,
    /// Whether `run` has been woken for the tasks.
    is_rung: AtomicBool,
    run: AtomicWaker,
    /// The thread's.
    here: usize,
}

/// What differs between the threads that there are at one time. It costs less than their ids.
fn here() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.with(|here| ptr::from_ref(here).addr())
}

impl WakeBatch {
    /// For the tasks of the calling thread.
    pub fn new() -> Arc<WakeBatch> {
        let (tasks, is_rung, run) = Default::default();
        Arc::new(WakeBatch { tasks, is_rung, run, here: here() })
    }

    /// Wakes the tasks, on their thread.
    pub async fn run(self: Arc<Self>) {
        poll_fn(|cx| {
            self.run.register(cx.waker());
            // Before the queue is read, so that a task that comes later rings again.
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

/// Wakes one task of the thread, together with others.
pub struct BatchedWaker {
    task: Waker,
    wake_batch: Arc<WakeBatch>,
}

impl BatchedWaker {
    /// `wake_batch` is that of the task's thread.
    pub fn new(task: Waker, wake_batch: &Arc<WakeBatch>) -> BatchedWaker {
        BatchedWaker { task, wake_batch: Arc::clone(wake_batch) }
    }

    /// Whether it wakes the same task as `task`.
    pub fn wakes(&self, task: &Waker) -> bool {
        self.task.will_wake(task)
    }
}

impl Wake for BatchedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The thread itself is awake.
        if self.wake_batch.here == here() {
            return self.task.wake_by_ref();
        }
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

/// Until `release`, this thread wakes no thread of the server.
pub fn hold() {
    HOLDS.set(true);
}

/// Wakes the threads whose tasks were woken since `hold`.
pub fn release() {
    HOLDS.set(false);
    HELD.with_borrow_mut(|held| held.drain(..).for_each(|wake_batch| wake_batch.ring()));
}
