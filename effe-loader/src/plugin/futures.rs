//! Start, Run and Stop of an async lambda as futures: the lambda's own futures, each with the memory that it
//! uses. Who polls them, and on which thread, is left to the callers.
#![expect(unsafe_code, reason = "this module calls the lambda; its callers are safe")]

use std::{
    future::Future,
    mem,
    pin::Pin,
    ptr::{self, NonNull},
    task::{self, Poll},
};

use effe_abi::{
    extensions,
    raw::{Exchange, Failure, Status, plugin_flags, status},
    waker,
};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{
    context::{Context, Started},
    fault::Fault,
    loaded::Plugin,
};
use crate::rt::block_on::block_on;

/// A future that the lambda made.
struct LambdaFuture {
    future: extensions::Future,
    /// Whether it has been polled.
    polled: bool,
    /// The waker of the second and later polls. To clone it is to count up.
    waker: Option<waker::Shared>,
}

// SAFETY: the wire lets any thread poll it and drop it, one call at a time, which `&mut` sees to.
unsafe impl Send for LambdaFuture {}

impl LambdaFuture {
    fn new(ask: impl FnOnce(&mut extensions::Future)) -> LambdaFuture {
        let mut future = extensions::Future::NONE;
        ask(&mut future);
        LambdaFuture { future, polled: false, waker: None }
    }

    fn poll(&mut self, waker: &task::Waker) -> Poll<Status> {
        let extensions::Future { data, poll, .. } = self.future;
        let status = if !mem::replace(&mut self.polled, true) {
            // Most futures are ready at the first poll and never clone the waker.
            // SAFETY: not done yet, by the contract of this function's callers; one call at a time.
            waker::lend(waker, |waker| unsafe { poll(data, waker) })
        } else {
            let shared = match &mut self.waker {
                Some(shared) if shared.will_wake(waker) => shared,
                place => place.insert(waker::Shared::new(waker.clone())),
            };
            // SAFETY: as above.
            unsafe { poll(data, shared.as_ptr()) }
        };
        if status == status::PENDING { Poll::Pending } else { Poll::Ready(status) }
    }
}

impl Drop for LambdaFuture {
    fn drop(&mut self) {
        // SAFETY: once, after the last poll.
        unsafe { (self.future.drop)(self.future.data) }
    }
}

impl Plugin {
    /// Whether Start, Run and Stop can be polled.
    pub fn is_async(&self) -> bool {
        self.polled().is_some()
    }

    /// Whether its runs may end their answers before they return.
    pub fn may_answer_early(&self) -> bool {
        self.is_async() || self.flags() & (extensions::ANSWERS_EARLY | plugin_flags::STREAM_RESPONSE) != 0
    }

    /// Whether its runs go on in the lambda's own runtime when the loader asks for it.
    pub fn spawns_on_request(&self) -> bool {
        self.polled().is_some_and(|entries| entries.version >= 2)
    }

    /// Calls Start as a future. If the lambda isn't async, its first poll runs all of Start.
    pub fn start_polled(&'static self) -> Starting {
        let made = OutParam::new(Made { pointer: ptr::null_mut(), failure: Failure::new() });
        let work = self.polled().map(|entries| {
            let made = made.0.as_ptr();
            // SAFETY: it points to a value.
            let pointer = unsafe { &raw mut (*made).pointer };
            // SAFETY: as above.
            let failure = unsafe { &raw mut (*made).failure };
            // SAFETY: the table is `host.rs`'s; between `init` and `retire`; what it writes to is dropped
            // after it.
            LambdaFuture::new(|out| unsafe { (entries.start)(self.table, pointer, failure, out) })
        });
        Starting { plugin: self, work, made }
    }

    /// Whether a Context whose run was cancelled may be used again.
    pub fn keeps_cancelled(&self) -> bool {
        self.flags() & plugin_flags::KEEP_CANCELLED != 0
    }

    /// Stops Contexts, all at the same time if the lambda is async. Returns when the last one has stopped.
    pub fn stop_all(&self, contexts: impl IntoIterator<Item = Box<Context>>) {
        if !self.is_async() {
            return contexts.into_iter().for_each(drop);
        }
        let mut all: FuturesUnordered<_> =
            contexts.into_iter().map(|context| context.stop_polled()).collect();
        block_on(async { while all.next().await.is_some() {} });
    }
}

/// What Start writes to.
struct Made {
    pointer: *mut (),
    failure: Failure,
}

// SAFETY: a Context's pointer, see `Context`.
unsafe impl Send for Made {}

/// A Start that has not ended. If it is dropped before its end, there is no Context.
pub struct Starting {
    plugin: &'static Plugin,
    /// Declared before the memory that it writes to, so that it is dropped first. `None` once it is done.
    work: Option<LambdaFuture>,
    made: OutParam<Made>,
}

impl Future for Starting {
    type Output = Started;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Started> {
        let plugin = self.plugin;
        let Some(work) = &mut self.work else { return Poll::Ready(plugin.start()) };
        let status = task::ready!(work.poll(cx.waker()));
        self.work = None;
        // SAFETY: the lambda's future is dropped, and it was the only other user.
        let made = unsafe { self.made.get_mut() };
        let failure = mem::take(&mut made.failure);
        Poll::Ready(plugin.made(made.pointer, status, failure))
    }
}

/// A Run that has not ended. If it is dropped before its end, the run is cancelled.
pub struct Running {
    /// Declared before the Context, so that it is dropped first: its state is in the Context.
    work: LambdaFuture,
    context: Box<Context>,
}

impl Running {
    /// Polls the run. Don't poll it again after it was ready.
    pub fn poll(&mut self, waker: &task::Waker) -> Poll<Status> {
        self.work.poll(waker)
    }

    /// Gives the Context back. A run that has not ended is cancelled.
    pub fn into_context(self) -> Box<Context> {
        drop(self.work);
        self.context
    }
}

impl Context {
    /// Calls Run as a future. If the lambda isn't async, the first poll reports `INVALID`.
    ///
    /// # Safety
    /// Both pointers stay valid until the run is dropped, and nobody else uses `failure` meanwhile.
    pub unsafe fn run_polled(
        self: Box<Self>,
        exchange: *const Exchange<'static>,
        failure: *mut Failure,
    ) -> Running {
        let pointer = self.pointer.as_ptr();
        let work = LambdaFuture::new(|out| {
            if let Some(entries) = self.plugin.polled() {
                // SAFETY: `start` made the pointer, `drop` has not stopped it, and it is in this one call: the
                // run has it. The rest is the caller's promise.
                unsafe { (entries.run)(pointer, exchange, failure, out) }
            }
        });
        Running { work, context: self }
    }

    /// Calls Stop as a future. An error is logged.
    pub fn stop_polled(self: Box<Self>) -> Stopping {
        let failure = OutParam::new(Failure::new());
        let Some(entries) = self.plugin.polled() else {
            return Stopping { work: None, failure, plugin: self.plugin, context: Some(self) };
        };
        let context = mem::ManuallyDrop::new(*self);
        // SAFETY: `start` made the pointer, and nothing uses it after this: the Context is not dropped any
        // more. What the future writes to is dropped after it.
        let work = LambdaFuture::new(|out| unsafe {
            (entries.stop)(context.pointer.as_ptr(), failure.0.as_ptr(), out)
        });
        Stopping { work: Some(work), failure, plugin: context.plugin, context: None }
    }
}

/// A Stop that has not ended. It always runs to its end: if it is dropped before, the drop waits for it.
pub struct Stopping {
    /// Declared before the memory that it writes to, so that it is dropped first. `None` once it is done.
    work: Option<LambdaFuture>,
    failure: OutParam<Failure>,
    plugin: &'static Plugin,
    /// The Context of a lambda that isn't async: dropping it calls Stop.
    context: Option<Box<Context>>,
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        self.context = None;
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let status = task::ready!(work.poll(cx.waker()));
        self.work = None;
        // SAFETY: the lambda's future is dropped, and it was the only other user.
        let failure = mem::take(unsafe { self.failure.get_mut() });
        self.plugin.count_stop();
        self.plugin.log_stop(Fault::check(status, failure));
        Poll::Ready(())
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        if self.work.is_some() {
            block_on(self);
        }
    }
}

/// A value that a lambda's future writes to while the loader moves whatever owns the value. A `Box` would not
/// do: to move a `Box` is to claim that nobody else has a pointer to its value.
struct OutParam<T>(NonNull<T>);

// SAFETY: it owns the value, as a `Box` does.
unsafe impl<T: Send> Send for OutParam<T> {}

impl<T> OutParam<T> {
    fn new(value: T) -> OutParam<T> {
        OutParam(NonNull::from(Box::leak(Box::new(value))))
    }

    /// # Safety
    /// The lambda has no future any more that may write to the value.
    unsafe fn get_mut(&mut self) -> &mut T {
        // SAFETY: `new` made it, `drop` has not freed it, and the owner is its only user, as the caller says.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for OutParam<T> {
    fn drop(&mut self) {
        // SAFETY: `new` leaked it, and this is its last use.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_after_the_owner_has_moved_arrives_and_is_freed() {
        let out = OutParam::new(String::new());
        let pointer = out.0.as_ptr();
        let mut moved = Box::new(out);
        // SAFETY: `moved` is alive, and nobody else has a reference to its value.
        unsafe { (*pointer).push_str("written") };
        // SAFETY: nothing is written any more.
        assert_eq!(unsafe { moved.get_mut() }, "written");
        assert_eq!(moved.0.as_ptr(), pointer);
    }
}
