//! Futures of the steps other than Run, each in a box; and what they have in common with a run's future.
//!
//! Those steps are rare, so an allocation for each does no harm. What the futures do is left to `steps.rs`.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use std::{
    future,
    pin::Pin,
    task::{self, Poll},
};

use tokio::runtime::Handle;

use crate::{
    calls::HostRef,
    extensions::{Future, Waker},
    fence::{Verdict, fence, fence_alone},
    raw::{Failure, Status, status},
    waker,
};

/// The future of a step.
pub(super) struct Boxed<F> {
    host: HostRef,
    runtime: Handle,
    failure: *mut Failure,
    /// `None` once it is done.
    future: Option<F>,
}

impl<F: future::Future<Output = Verdict> + Send> Boxed<F> {
    pub(super) fn put(host: HostRef, runtime: Handle, failure: *mut Failure, future: F, out: &mut Future) {
        let boxed = Box::new(Boxed { host, runtime, failure, future: Some(future) });
        *out = Future { data: Box::into_raw(boxed).cast(), poll: Self::poll, drop: Self::drop };
    }

    unsafe extern "C" fn poll(data: *mut (), waker: *const Waker) -> Status {
        // SAFETY: `put` made it; polls come one at a time, before `drop`.
        let Boxed { host, runtime, failure, future } = unsafe { &mut *data.cast::<Self>() };
        if future.is_none() {
            return status::INVALID;
        }
        // SAFETY: by the wire's contract, it is valid until `drop`.
        let failure = unsafe { &mut **failure };
        let status = fence(*host, failure, || {
            let _entered = runtime.enter();
            let Some(running) = future else { return Poll::Pending };
            // SAFETY: it is in a box, and is not moved before it is dropped.
            let pinned = unsafe { Pin::new_unchecked(running) };
            // SAFETY: the loader's promise, by the wire's contract of `poll`.
            let polled = unsafe { waker::borrow(waker, |waker| poll(pinned, waker)) };
            if polled.is_ready() {
                *future = None;
            }
            polled
        });
        if status == status::PANIC {
            discard(*host, runtime, || *future = None);
        }
        status
    }

    unsafe extern "C" fn drop(data: *mut ()) {
        // SAFETY: `put` made it, and this comes once.
        let Boxed { host, runtime, future, .. } = *unsafe { Box::from_raw(data.cast::<Self>()) };
        if future.is_some() {
            discard(host, &runtime, || drop(future));
        }
    }
}

pub(super) fn poll<F: future::Future>(future: Pin<&mut F>, waker: &task::Waker) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(waker))
}

/// Drops a value of the author's inside the runtime. A panic is logged, and ends here.
pub(super) fn discard(host: HostRef, runtime: &Handle, drop: impl FnOnce()) {
    fence_alone(host, || {
        let _entered = runtime.enter();
        drop();
    });
}

/// A pointer inside a future. By the wire's contract, it is valid until the future is dropped.
pub(super) struct SendPtr<T>(pub(super) *mut T);

// SAFETY: the wire lets any thread poll, one at a time, and only polls use what the pointer points to.
unsafe impl<T> Send for SendPtr<T> {}
