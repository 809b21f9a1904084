//! The futures of an async lambda, polled on the test's thread.
//!
//! This file owns the polling, so that each future is dropped once. In which order the steps come is left to `host.rs`.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Wake},
    thread::{self, Thread},
};

use crate::{
    extensions::{ASYNC, AsyncPlugin, Future},
    raw::{Exchange, Failure, Host, PluginRef, Status, status},
    waker,
};

/// The lambda's async entries; `None` if it isn't async.
#[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
pub(super) fn find(plugin: PluginRef) -> Option<&'static AsyncPlugin> {
    // SAFETY: the wire's promise: any thread, at any time.
    let table = unsafe { (plugin.extension())(ASYNC.into()) }.cast::<AsyncPlugin>();
    // SAFETY: the lambda's promise: null, or a table of this id that lives for ever.
    unsafe { table.as_ref() }
}

/// Calls Start and polls it to its end.
///
/// # Safety
/// As the wire's `start`.
#[expect(unsafe_code, reason = "a call through the lambda's table")]
pub(super) unsafe fn start(
    entries: &AsyncPlugin,
    host: &'static Host,
    context: &mut *mut (),
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; both pointers are valid until `drive` returns.
    unsafe { (entries.start)(host, context, failure, &mut future) };
    // SAFETY: just made.
    unsafe { drive(future, |_| true) }.unwrap_or(status::INVALID)
}

/// Calls Run and polls it up to `polls` times; as often as it takes once `is_answered`. `None`: it was not done by then
/// and was dropped.
///
/// # Safety
/// As the wire's `run`.
#[expect(unsafe_code, reason = "a call through the lambda's table")]
pub(super) unsafe fn run(
    entries: &AsyncPlugin,
    context: *mut (),
    exchange: &Exchange<'_>,
    failure: &mut Failure,
    polls: usize,
    is_answered: &dyn Fn() -> bool,
) -> Option<Status> {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; all of it is valid until `drive` returns.
    unsafe { (entries.run)(context, ptr::from_ref(exchange).cast(), failure, &mut future) };
    // SAFETY: just made.
    unsafe { drive(future, |n_polls| n_polls < polls || is_answered()) }
}

/// Calls Stop and polls it to its end.
///
/// # Safety
/// As the wire's `stop`.
#[expect(unsafe_code, reason = "a call through the lambda's table")]
pub(super) unsafe fn stop(entries: &AsyncPlugin, context: *mut (), failure: &mut Failure) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; `failure` is valid until `drive` returns.
    unsafe { (entries.stop)(context, failure, &mut future) };
    // SAFETY: just made.
    unsafe { drive(future, |_| true) }.unwrap_or(status::INVALID)
}

/// Polls a future whenever it was woken, for as long as `goes_on` with the number of polls so far, and drops it.
/// `None`: it was not done by then.
///
/// # Safety
/// It has just been made, and what it was made from is valid for the length of the call.
#[expect(unsafe_code, reason = "its duty is the caller's")]
unsafe fn drive(future: Future, goes_on: impl Fn(usize) -> bool) -> Option<Status> {
    let thread_waker = Arc::new(ThreadWaker { thread: thread::current(), woken: AtomicBool::new(true) });
    let waker = task::Waker::from(Arc::clone(&thread_waker));
    let (mut done, mut n_polls) = (None, 0);
    while goes_on(n_polls) {
        n_polls += 1;
        while !thread_waker.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
        // SAFETY: the caller's promise.
        let status = waker::lend(&waker, |waker| unsafe { (future.poll)(future.data, waker) });
        if status != status::PENDING {
            done = Some(status);
            break;
        }
    }
    // SAFETY: the caller's promise; once.
    unsafe { (future.drop)(future.data) };
    done
}

/// Wakes a thread that is parked in `drive`.
struct ThreadWaker {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
