//! Tasks of a server's thread that other threads wake. They are collected here, so that the thread itself, which may
//! sleep in the kernel, is woken once for many of them. The other way round, threads that a server's thread wakes are
//! woken when it has gone through the tasks that are ready: else each of them takes its CPU in the midst of these.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
    thread::Thread,
};

use crossbeam::queue::SegQueue;
use futures_util::task::AtomicWaker;

thread_local! {
    /// Whether this thread is between `hold` and `release`.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    /// The batch of this thread's own tasks, while it runs them.
    static OWN: RefCell<Option<Arc<WakeBatch>>> = const { RefCell::new(None) };
    /// The threads that this one wakes at the end of its turn.
    static THREADS: RefCell<Vec<Thread>> = const { RefCell::new(Vec::new()) };
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

    /// Wakes the tasks, on their thread, and what that has to wake at the end of a turn.
    pub async fn run(self: Arc<Self>) {
        OWN.set(Some(Arc::clone(&self)));
        let _running = Running;
        poll_fn(|cx| {
            self.run.register(cx.waker());
            // Before the queue is read, so that a task that comes later rings again.
            self.is_rung.swap(false, Ordering::AcqRel);
            while let Some(task) = self.tasks.pop() {
                task.wake();
            }
            unpark_all();
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

/// While it lives, this thread's turns have an end.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        OWN.set(None);
        unpark_all();
    }
}

/// Unparks a thread: at the end of this one's turn, if it is a server's thread, else at once.
pub fn unpark(thread: &Thread) {
    OWN.with_borrow(|own| match own {
        None => thread.unpark(),
        Some(own) => {
            THREADS.with_borrow_mut(|threads| threads.push(thread.clone()));
            own.ring();
        }
    });
}

fn unpark_all() {
    THREADS.with_borrow_mut(|threads| threads.drain(..).for_each(|thread| thread.unpark()));
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

#[cfg(test)]
mod tests {
    use std::{
        task::Context,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// A thread that parks, and returns how long that took.
    fn parked() -> thread::JoinHandle<Duration> {
        thread::spawn(|| {
            let begun = Instant::now();
            thread::park_timeout(Duration::from_secs(20));
            begun.elapsed()
        })
    }

    #[test]
    fn a_thread_is_unparked_at_the_end_of_a_turn_and_at_once_where_there_are_none() {
        let (at_once, in_turn, at_end) = (parked(), parked(), parked());
        unpark(at_once.thread());
        assert!(at_once.join().unwrap() < Duration::from_secs(20));
        let mut run = Box::pin(WakeBatch::new().run());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut cx).is_pending());
        unpark(in_turn.thread());
        assert_eq!(THREADS.with_borrow(Vec::len), 1, "it waits for the turn's end");
        assert!(run.as_mut().poll(&mut cx).is_pending());
        assert!(in_turn.join().unwrap() < Duration::from_secs(20));
        unpark(at_end.thread());
        drop(run);
        assert!(at_end.join().unwrap() < Duration::from_secs(20), "there is no other turn");
    }
}
