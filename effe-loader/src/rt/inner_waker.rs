//! Wakes for what a task polls inside of itself, such as the two ends of a connection, which wake each other. While the
//! task is being polled, it looks after all of that anyway: then such a wake only leaves a note, and neither queues the
//! task again nor costs another turn of it.

use std::{
    cell::Cell,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

thread_local! {
    /// The wakes that the task which this thread is polling looks after.
    static LOOKED_AFTER: Cell<*const Inner> = const { Cell::new(ptr::null()) };
}

/// The waker for what one task polls inside of itself.
pub struct InnerWaker {
    inner: Arc<Inner>,
    /// The same as a waker.
    waker: Waker,
}

struct Inner {
    /// Whether there was a wake that nobody has looked after.
    is_woken: AtomicBool,
    task: Waker,
}

impl InnerWaker {
    /// One for the task of `cx`, woken already, so that everything is polled once.
    pub fn new(cx: &Context<'_>) -> InnerWaker {
        let inner = Arc::new(Inner { is_woken: AtomicBool::new(true), task: cx.waker().clone() });
        InnerWaker { waker: Arc::clone(&inner).into(), inner }
    }

    /// Whether it is for the task of `cx`.
    pub fn is_for(&self, cx: &Context<'_>) -> bool {
        self.inner.task.will_wake(cx.waker())
    }

    /// The task is being polled, and looks after wakes until the guard is dropped.
    pub fn enter(&self) -> Entered {
        Entered(LOOKED_AFTER.replace(Arc::as_ptr(&self.inner)))
    }

    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether there was a wake since the last call.
    pub fn take(&self) -> bool {
        self.inner.is_woken.swap(false, Ordering::AcqRel)
    }

    /// The same, and leaves it to the next call.
    pub fn is_woken(&self) -> bool {
        self.inner.is_woken.load(Ordering::Acquire)
    }
}

/// While it lives, the task looks after its wakes.
pub struct Entered(*const Inner);

impl Drop for Entered {
    fn drop(&mut self) {
        LOOKED_AFTER.set(self.0);
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Each wake that finds a note has been preceded by one that has woken the task, or whose thread looks after it.
        if !self.is_woken.swap(true, Ordering::AcqRel) && !ptr::eq(LOOKED_AFTER.get(), Arc::as_ptr(self)) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, thread};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_that_looks_anyway_is_not_woken_and_each_other_wake_is_passed_on_once() {
        let task = Arc::<Task>::default();
        let waker = Waker::from(Arc::clone(&task));
        let n_woken = || task.0.load(Ordering::Relaxed);
        let inner = InnerWaker::new(&Context::from_waker(&waker));
        assert!(
            inner.is_for(&Context::from_waker(&waker)) && !inner.is_for(&Context::from_waker(Waker::noop()))
        );
        assert!(inner.take() && !inner.take(), "it begins as woken");
        let entered = inner.enter();
        inner.waker().wake_by_ref();
        assert!(n_woken() == 0 && inner.is_woken() && inner.take() && !inner.take());
        thread::scope(|scope| {
            scope.spawn(|| inner.waker().wake_by_ref());
        });
        assert_eq!(n_woken(), 1, "another thread doesn't know whether the task still looks");
        drop(entered);
        inner.waker().wake_by_ref();
        assert_eq!(n_woken(), 1, "the task is woken already");
        assert!(inner.take());
        inner.waker().wake_by_ref();
        assert_eq!(n_woken(), 2);
    }
}
