//! Start, Run and Stop of an async lambda, as futures of ours.
#![expect(unsafe_code, reason = "this module calls the lambda; its callers are safe")]

use std::{
    future::Future,
    pin::Pin,
    ptr,
    task::{self, Poll},
};

use effe_abi::{
    extensions::{self, AsyncPlugin},
    raw::{Exchange, Failure, Status, plugin_flags, status},
    waker,
};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{
    context::{Context, Started},
    fault::Fault,
    loaded::Plugin,
    out_param::OutParam,
};
use crate::rt::block_on::block_on;

/// A future of the lambda's, which is dropped once.
struct Work {
    future: extensions::Future,
    /// Whether it was polled.
    begun: bool,
    /// The waker of the later polls, whose clones are a counter.
    waker: Option<waker::Shared>,
}

// SAFETY: the wire lets any thread poll it and drop it, one call at a time, which `&mut` sees to.
unsafe impl Send for Work {}

impl Work {
    fn new(ask: impl FnOnce(&mut extensions::Future)) -> Work {
        let mut future = extensions::Future::NONE;
        ask(&mut future);
        Work { future, begun: false, waker: None }
    }

    fn poll(&mut self, waker: &task::Waker) -> Poll<Status> {
        let extensions::Future { data, poll, .. } = self.future;
        let status = if !std::mem::replace(&mut self.begun, true) {
            // Most are ready at once, and never clone it.
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

impl Drop for Work {
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

    /// Whether its runs go on in the lambda's own runtime when the loader asks for it.
    pub fn spawns_on_request(&self) -> bool {
        self.polled().is_some_and(|entries| entries.version >= 2)
    }

    /// Calls Start, to be polled: by the entry that waits if there is no other.
    pub fn start_polled(&'static self) -> Starting {
        let made = OutParam::new(Made { pointer: ptr::null_mut(), failure: Failure::new() });
        let work = self.polled().map(|entries| {
            let made = made.as_ptr();
            // SAFETY: it points to a value.
            let pointer = unsafe { &raw mut (*made).pointer };
            // SAFETY: as above.
            let failure = unsafe { &raw mut (*made).failure };
            // SAFETY: the table is `host.rs`'s; between `init` and `retire`; what it writes to is dropped after it.
            Work::new(|out| unsafe { (entries.start)(self.table, pointer, failure, out) })
        });
        Starting { plugin: self, work, made }
    }

    /// Whether a Context whose run was cancelled may be used again.
    pub fn keeps_cancelled(&self) -> bool {
        self.flags() & plugin_flags::KEEP_CANCELLED != 0
    }

    /// Stops Contexts, all at once if that can be done; returns when the last one is gone.
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

/// A Start that is under way. Dropped before its end, it leaves no Context.
pub struct Starting {
    plugin: &'static Plugin,
    /// Before what it writes to; `None` once it is done.
    work: Option<Work>,
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
        let failure = std::mem::take(&mut made.failure);
        Poll::Ready(plugin.made(std::mem::replace(&mut made.pointer, ptr::null_mut()), status, failure))
    }
}

/// A Run that is under way. Dropped before its end, it is cancelled.
pub struct Running {
    /// Before the Context, in which its state lives.
    work: Work,
    context: Box<Context>,
}

impl Running {
    /// Polls it, not once more after it was ready.
    pub fn poll(&mut self, waker: &task::Waker) -> Poll<Status> {
        self.work.poll(waker)
    }

    /// The Context; a run that has not ended is cancelled.
    pub fn into_context(self) -> Box<Context> {
        drop(self.work);
        self.context
    }
}

impl Context {
    /// Calls Run, to be polled. If the lambda isn't async, the first poll says so.
    ///
    /// # Safety
    /// What both pointers point to stays until the run is dropped, and nobody else uses `failure`.
    pub unsafe fn run_polled(
        self: Box<Self>,
        exchange: *const Exchange<'static>,
        failure: *mut Failure,
    ) -> Running {
        let pointer = self.pointer.as_ptr();
        // SAFETY: `start` made the pointer, `drop` has not stopped it, and it is in this one call: the run has it. The
        // rest is the caller's promise.
        let ask =
            |entries: &AsyncPlugin, out: &mut _| unsafe { (entries.run)(pointer, exchange, failure, out) };
        let work = Work::new(|out| {
            if let Some(entries) = self.plugin.polled() {
                ask(entries, out);
            }
        });
        Running { work, context: self }
    }

    /// Calls Stop, to be polled; what came of it is logged.
    pub fn stop_polled(self: Box<Self>) -> Stopping {
        let failure = OutParam::new(Failure::new());
        let Some(entries) = self.plugin.polled() else {
            return Stopping { work: None, failure, plugin: self.plugin, context: Some(self) };
        };
        let context = std::mem::ManuallyDrop::new(*self);
        // SAFETY: `start` made the pointer, and nothing uses it after this: the Context is not dropped any more. What
        // the future writes to is dropped after it.
        let work =
            Work::new(|out| unsafe { (entries.stop)(context.pointer.as_ptr(), failure.as_ptr(), out) });
        Stopping { work: Some(work), failure, plugin: context.plugin, context: None }
    }
}

/// A Stop that is under way. It goes to its end whatever happens: dropped before that, it waits on its thread.
pub struct Stopping {
    /// Before what it writes to; `None` once it is done.
    work: Option<Work>,
    failure: OutParam<Failure>,
    plugin: &'static Plugin,
    /// One that can't be polled, and is stopped by being dropped.
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
        let failure = std::mem::take(unsafe { self.failure.get_mut() });
        self.plugin.stopped();
        self.plugin.log_stop(Fault::of(status, failure));
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
