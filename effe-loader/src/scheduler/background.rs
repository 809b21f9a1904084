//! What a thread of the server has to bring to its end although nobody waits for it any more: Stops that take their
//! time, Starts whose client has left, and runs whose answer has gone.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::stream::{FuturesUnordered, Stream};
use tokio::sync::Notify;

use crate::scheduler::worker_status::{OpenRequest, WorkerStatus};

/// The errands of one thread of the server. Those that are left when it stops serving are dropped there, while the
/// thread is still whole, and know what that means to them.
#[derive(Default)]
pub struct BackgroundTasks {
    under_way: RefCell<FuturesUnordered<BackgroundTask>>,
    /// Those that came while the others may be in use: one errand brings another.
    new: RefCell<Vec<BackgroundTask>>,
    added: Notify,
    over: Cell<bool>,
}

/// A drain waits for it as for a request.
struct BackgroundTask {
    future: Pin<Box<dyn Future<Output = ()>>>,
    _running: OpenRequest,
}

impl BackgroundTasks {
    /// Does what can be done at once, and takes on the rest.
    pub fn add(&self, status: &Arc<WorkerStatus>, future: impl Future<Output = ()> + Unpin + 'static) {
        let mut future = future;
        // Who is woken by this poll is of no interest: the first poll of the rest comes in any case.
        if Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let task = BackgroundTask { future: Box::pin(future), _running: status.begin_request() };
            if self.over.get() {
                return drop(task);
            }
            self.new.borrow_mut().push(task);
            self.added.notify_one();
        }
    }

    /// Polls them for as long as the thread serves.
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

impl Future for BackgroundTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.future.as_mut().poll(cx)
    }
}
