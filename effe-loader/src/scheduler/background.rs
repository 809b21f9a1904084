//! What a thread of the server polls to its end although nobody waits for it any more: Stops that take long, Starts
//! whose client has left, and runs whose answer has gone.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::stream::{FuturesUnordered, Stream};
use tokio::{runtime::Handle, sync::Notify};

use crate::scheduler::worker_status::WorkerStatus;

/// Of one thread of the server. Tasks that are left when it stops serving are dropped on it, while its thread-locals
/// are alive.
#[derive(Default)]
pub struct BackgroundTasks {
    under_way: RefCell<FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>>>,
    /// Added while the others may be borrowed: one task can add another.
    new: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
    added: Notify,
    over: Cell<bool>,
}

impl BackgroundTasks {
    /// Polls a future at once, and goes on with it in the background if it isn't ready.
    pub fn add(&self, status: &Arc<WorkerStatus>, mut future: impl Future<Output = ()> + Unpin + 'static) {
        // This poll wakes nobody, because the next one comes in any case.
        if Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
            && !self.over.get()
        {
            // A drain waits for it as for a request.
            let request = status.begin_request();
            self.new.borrow_mut().push(Box::pin(async move {
                future.await;
                drop(request);
            }));
            self.added.notify_one();
        }
    }

    /// The same for a run that has taken its connection over: it counts neither as a request nor among those that may
    /// run at once, and a drain waits for its connection.
    pub fn add_uncounted(&self, future: impl Future<Output = ()> + 'static) {
        let mut future = Box::pin(future);
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() && !self.over.get() {
            self.new.borrow_mut().push(future);
            self.added.notify_one();
        }
    }

    /// Whether nothing more can go on here, because the thread ends.
    pub fn is_over(&self) -> bool {
        // The thread may drop its connections first.
        self.over.get() || Handle::try_current().is_err()
    }

    /// Polls the tasks for as long as the thread serves.
    pub async fn run(self: Rc<Self>) {
        struct Over(Rc<BackgroundTasks>);
        impl Drop for Over {
            fn drop(&mut self) {
                self.0.over.set(true);
                drop(self.0.under_way.take());
                drop(self.0.new.take());
            }
        }
        let _over = Over(Rc::clone(&self));
        loop {
            let mut added = std::pin::pin!(self.added.notified());
            self.under_way.borrow_mut().extend(self.new.take());
            poll_fn(|cx| {
                while let Poll::Ready(Some(())) = Pin::new(&mut *self.under_way.borrow_mut()).poll_next(cx) {}
                added.as_mut().poll(cx)
            })
            .await;
        }
    }
}
